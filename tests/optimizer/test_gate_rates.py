"""How often the gate errs, and how often it lets a harmless model pass: thousands of simulated models, figures printed.

Run alone with ``pytest -m gate_rates``.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from edgeopt import criteria
from edgeopt.criteria import Classes, JointJudgement, Limits, Name, PairedScores, judge_all
from edgeopt.gate import Judgement, Verdict, discordant_p_value, judge

pytestmark = pytest.mark.gate_rates

RUNS = 2000
RATE = 0.05
ALLOWED = RATE + 2 * np.sqrt(RATE * (1 - RATE) / RUNS)  # 6 %: two standard errors of what RUNS can show
Say = Callable[[str], None]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Print past pytest's capture: the figures are what these tests are run for."""

    def show(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}", end="")

    return show


@functools.cache
def _judge_counts(lost: int, won: int, n: int, margin: float, confidence: float, ceiling: bool) -> Judgement:  # noqa: FBT001  (the key of a cache)
    baseline, variant = np.ones(n), np.ones(n)
    variant[:lost] = 0
    baseline[lost : lost + won] = 0
    return judge(baseline, variant, margin=margin, confidence=confidence, ceiling=ceiling)


def _cached(
    baseline: npt.NDArray[np.float64],
    variant: npt.NDArray[np.float64],
    *,
    margin: float,
    confidence: float,
    ceiling: bool = False,
) -> Judgement:
    """Judge 0/1 scores; equal counts give equal bounds, so each is judged once."""
    lost, won = int(np.sum(baseline > variant)), int(np.sum(baseline < variant))
    return _judge_counts(lost, won, len(baseline), margin, confidence, ceiling)


@functools.cache
def _verdict(lost: int, won: int, n: int, margin: float) -> Verdict:
    """Return what the gate says, from its p-values alone: bounds are not needed here, and take far longer."""
    if discordant_p_value(lost, won, n, margin) <= RATE:
        return Verdict.PASS
    return Verdict.FAIL if discordant_p_value(won, lost, n, -margin) <= RATE else Verdict.INCONCLUSIVE


def _rates(n: int, lost: float, won: float, margin: float) -> tuple[float, float]:
    """Return how often simulated models pass and fail, and check the shortcut on some of them."""
    random = np.random.default_rng([n, round(1000 * lost), round(1000 * won)])
    outcomes = [
        (int(loss), int(gain)) for loss, gain, _ in random.multinomial(n, [lost, won, 1 - lost - won], size=RUNS)
    ]
    verdicts = [_verdict(*outcome, n, margin) for outcome in outcomes]
    for outcome, verdict in list(zip(outcomes, verdicts, strict=True))[:5]:
        assert _judge_counts(*outcome, n, margin, 1 - RATE, ceiling=False).verdict is verdict
    return verdicts.count(Verdict.PASS) / RUNS, verdicts.count(Verdict.FAIL) / RUNS


@pytest.mark.parametrize("n", [200, 1000])
@pytest.mark.parametrize("won", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("margin", [0.01, 0.03])
def test_a_true_drop_at_the_margin_passes_in_five_per_cent(n: int, won: float, margin: float, say: Say) -> None:
    """For few and many samples, and for models that only lose as for those that also win."""
    passes, fails = _rates(n, won + margin, won, margin)
    discordant = f"{2 * won + margin:.0%} discordant"
    say(f"n {n}, true drop = margin = {margin:.0%}, {discordant}: PASS {passes:.2%}, FAIL {fails:.2%}")
    assert passes <= ALLOWED
    assert fails <= ALLOWED


def test_power_of_a_harmless_model(say: Say) -> None:
    """At n = 2,000, 3 % discordance, no true drop and a margin of one point, at least 80 % pass.

    The power is added up over all outcomes, for it is so near 80 % that a simulation falls to either side of it.
    """
    n, discordant, margin = 2000, 0.03, 0.01
    count = range(int(stats.binom.ppf(1e-6, n, discordant)), int(stats.binom.ppf(1 - 1e-6, n, discordant)) + 1)
    power = 0.0
    for m in count:
        most = bisect.bisect_left(range(m + 1), 1, key=lambda lost: _verdict(lost, m - lost, n, margin) != Verdict.PASS)
        power += stats.binom.pmf(m, n, discordant) * stats.binom.cdf(most - 1, m, 0.5)
    simulated, _ = _rates(n, discordant / 2, discordant / 2, margin)
    say(f"n {n}, margin 1%, true drop 0, 3% discordant: PASS {simulated:.2%}, exactly {power:.2%}")
    assert power >= 0.80
    assert abs(simulated - power) <= 3 * np.sqrt(0.8 * 0.2 / RUNS)


CLASSES = 4
SIZE = 300  # samples of each class


def _limits(drop: float, class_drop: float, agreement: float) -> Limits:
    return Limits(max_drop=drop, confidence=1 - RATE, max_class_drop=class_drop, min_agreement=agreement)


@dataclass(frozen=True)
class Truth:
    """Probabilities: of losing a sample, by class; of winning one; of another wrong answer instead of a wrong one."""

    lost: tuple[float, ...]
    won: float = 0.0
    changed: float = 0.0

    @property
    def values(self) -> dict[Name, float]:
        """The true drop and the true agreement."""
        mean = float(np.mean(self.lost))
        return {Name.DROP: mean - self.won, Name.AGREEMENT: 1 - mean - self.won - self.changed}

    def simulate(self, random: np.random.Generator) -> PairedScores:
        """Return one pair of models."""
        of_sample = np.repeat(np.arange(CLASSES), SIZE)
        draw, loss = random.random(CLASSES * SIZE), np.repeat(self.lost, SIZE)
        lost, won = draw < loss, (draw >= loss) & (draw < loss + self.won)
        changed = (draw >= loss + self.won) & (draw < loss + self.won + self.changed)
        return PairedScores(
            baseline=np.where(won | changed, 0.0, 1.0),
            variant=np.where(lost | changed, 0.0, 1.0),
            agreement=np.where(lost | won | changed, 0.0, 1.0),
            classes=Classes(of_sample, tuple(range(CLASSES))),
        )


def _misses(outcome: JointJudgement, truth: Truth) -> tuple[bool, bool]:
    """Return whether any upper bound lies below the truth, and whether any lower bound lies above it."""
    bounds = [(one.lower, one.upper, truth.values[one.name]) for one in outcome.criteria if one.name in truth.values]
    bounds += [
        (one.lower, one.upper, truth.lost[one.label] - truth.won)
        for criterion in outcome.criteria
        for one in criterion.classes
    ]
    return (
        any(upper is None or upper < true for _, upper, true in bounds),
        any(lower is None or lower > true for lower, _, true in bounds),
    )


@pytest.mark.parametrize(
    ("what", "truth", "limits"),
    [
        ("overall drop", Truth((0.01,) * 4), _limits(0.01, 0.2, 0.9)),
        ("worst class", Truth((0.05, 0.0, 0.0, 0.0)), _limits(0.05, 0.05, 0.9)),
        ("agreement", Truth((0.001,) * 4, changed=0.049), _limits(0.05, 0.2, 0.95)),
        ("each of the three", Truth((0.03,) * 4), _limits(0.03, 0.03, 0.97)),
    ],
)
def test_several_criteria_and_one_at_its_limit(
    what: str, truth: Truth, limits: Limits, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole passes in at most 5 %; it fails in at most 5 %, for no limit is broken; all intervals hold in 95 %."""
    monkeypatch.setattr(criteria, "judge", _cached)
    random = np.random.default_rng(len(what))
    outcomes = [judge_all(truth.simulate(random), limits) for _ in range(RUNS)]
    verdicts = [outcome.verdict for outcome in outcomes]
    misses = np.mean([_misses(outcome, truth) for outcome in outcomes], axis=0)
    passes, fails = verdicts.count(Verdict.PASS) / RUNS, verdicts.count(Verdict.FAIL) / RUNS
    say(
        f"three criteria, {what} at the limit: PASS {passes:.2%}, FAIL {fails:.2%}, "
        f"some upper bound missed {misses[0]:.2%}, some lower one {misses[1]:.2%}"
    )
    assert all(rate <= ALLOWED for rate in (passes, fails, *misses))


def test_several_criteria_cost_a_harmless_model_little(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model far from its limits is not refused for being asked more: the parts are not split for PASS."""
    monkeypatch.setattr(criteria, "judge", _cached)
    random, truth = np.random.default_rng(11), Truth((0.003,) * 4, won=0.003)
    verdicts = [judge_all(truth.simulate(random), _limits(0.01, 0.05, 0.95)).verdict for _ in range(RUNS)]
    passes = verdicts.count(Verdict.PASS) / RUNS
    say(f"three criteria, true drop 0, 0.6% discordant, {CLASSES} classes of {SIZE}: PASS {passes:.2%}")
    assert passes >= 0.80

"""How often the comparison of two arms errs: simulated from measured variances, each by the real function.

Deviations are those of :mod:`tests.fleet.gate.test_rates`; errors and golden divergence get what their priors say. An
arm has 50 devices of three hardware classes (60, 30 and 10 percent), 20,000 rows each before and 20,000 after.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pytest

from edgeopt_fleet.gate import COMPARED, Devices, Margins, Metric, Tally
from edgeopt_fleet.gate.arms import ArmsEvidence, Result, Side, compare_arms
from edgeopt_fleet.gate.findings import PRIORS
from tests.fleet.gate.test_rates import BETWEEN, JUDGED, ROW, tell

pytestmark = [pytest.mark.gate, pytest.mark.timeout(600)]

Floats = npt.NDArray[np.float64]
Lie = Callable[[Floats, np.random.Generator], Floats]

TRIALS = int(os.environ.get("EDGEOPT_GATE_ROLLOUTS", "1000"))  # of two equal bundles
DIFFERENT = TRIALS // 5
ROWS = 20_000
MARGINS = Margins(latency=0.04, confidence_points=0.005)
FASTER, LESS_CONFIDENT = {Metric.LATENCY: -math.log(1.1), Metric.MEDIAN: -math.log(1.1)}, {Metric.CONFIDENCE: 0.02}


def scales() -> tuple[Floats, Floats]:
    """Return for each metric what devices differ by, and the deviation of one row."""
    like = {Metric.MEDIAN: Metric.LATENCY}
    between, row = np.zeros(len(COMPARED)), np.zeros(len(COMPARED))
    for place, metric in enumerate(COMPARED):
        source = like.get(metric, metric)
        known = source in JUDGED
        between[place] = BETWEEN[JUDGED.index(source)] if known else PRIORS[metric] / 2
        row[place] = ROW[JUDGED.index(source)] if known else 0.0
    return between, row


DEVIATION, ROW_DEVIATION = scales()


def arm(generator: np.random.Generator, n: int, effect: Mapping[Metric, float], lie: Lie | None = None) -> Devices:
    """Return ``n`` devices whose metrics changed by ``effect``, each differently, with tails of Student's t."""
    noise = ROW_DEVIATION**2 * 2 / ROWS  # of both sides
    shape = (len(COMPARED), n)
    changes = generator.standard_t(5, shape) / 1.1 * DEVIATION[:, None]
    changes += generator.standard_normal(shape) * np.sqrt(noise)[:, None]
    changes += np.array([effect.get(metric, 0.0) for metric in COMPARED])[:, None]
    if lie is not None:
        changes = lie(changes, generator)
    return Devices(
        names=tuple(f"d{place:03}" for place in range(n)),
        hardware=np.array([2 if p % 10 == 0 else 1 if p % 10 in (1, 4, 7) else 0 for p in range(n)], dtype=np.int32),
        before=np.full(n, ROWS),
        after=np.full(n, ROWS),
        changes=changes.astype(np.float32),
        noise=np.broadcast_to(noise[:, None], shape).astype(np.float32),
    )


def trial(seed: int, effect: Mapping[Metric, float], *, n: int = 50, lie: Lie | None = None) -> ArmsEvidence:
    """Return what is known of two arms, of which B differs by ``effect``."""
    generator = np.random.default_rng(seed)
    return ArmsEvidence(
        number=1,
        seconds=86400.0,
        levels=False,
        hardware=("a", "b", "c"),
        a=arm(generator, n, {}, lie),
        b=arm(generator, n, effect, lie),
        tally_a=Tally(n, 0),
        tally_b=Tally(n, 0),
    )


def results(
    effect: Mapping[Metric, float], trials: int, seed: int, lie: Lie | None = None, n: int = 50
) -> list[Result]:
    """Return what many comparisons come to."""
    return [compare_arms(trial(seed + k, effect, n=n, lie=lie), MARGINS).result for k in range(trials)]


def test_two_equal_bundles_hardly_ever_differ() -> None:
    """At most 5 % at a confidence of 95 %, over seven metrics of the whole and of each hardware class together."""
    found = Counter(results({}, TRIALS, seed=10_000))
    wrong = sum(found[one] for one in (Result.A, Result.B, Result.TRADE_OFF))
    tell(f"A/A trials in which a difference was found (all results: {dict(found)})", wrong, TRIALS)
    assert wrong <= 0.05 * TRIALS
    assert found[Result.ALIKE] >= 0.9 * TRIALS


@pytest.mark.parametrize(
    ("words", "effect", "expected"),
    [
        ("p95 +10 % in B", {Metric.LATENCY: math.log(1.1)}, Result.A),
        ("confidence -2 points in B", LESS_CONFIDENT, Result.A),
        ("B 10 % faster", FASTER, Result.B),
        ("B 10 % faster and 2 points less confident", FASTER | LESS_CONFIDENT, Result.TRADE_OFF),
    ],
    ids=["slower", "less confident", "faster", "trade-off"],
)
def test_a_difference_is_found_with_fifty_devices_an_arm(
    words: str, effect: Mapping[Metric, float], expected: Result
) -> None:
    """In at least 95 % of trials, and never for the wrong arm."""
    found = Counter(results(effect, DIFFERENT, seed=20_000))
    tell(f"{words}: {expected}", found[expected], DIFFERENT)
    assert found[expected] >= 0.95 * DIFFERENT
    if expected is not Result.TRADE_OFF:
        assert not found[Result.B if expected is Result.A else Result.A]


def liars(extremes: tuple[float, ...]) -> Lie:
    """Return what a tenth of an arm's devices make of their figures."""

    def lie(changes: Floats, generator: np.random.Generator) -> Floats:
        lying = np.zeros(changes.shape[1], dtype=bool)
        lying[3::10] = True
        assert lying.mean() <= 0.1
        said = np.random.default_rng(generator.integers(2**32)).choice(extremes, size=changes.shape)
        return np.where(lying, said, changes)

    return lie


@pytest.mark.parametrize(
    "extremes", [(50.0,), (-50.0,), (-1e6, 1e6), (-3.0, 3.0)], ids=["worst", "best", "absurd", "mixed"]
)
@pytest.mark.parametrize(
    ("effect", "expected"),
    [({Metric.LATENCY: math.log(1.1)}, Result.A), (FASTER | LESS_CONFIDENT, Result.TRADE_OFF), ({}, Result.ALIKE)],
    ids=["slower", "trade-off", "alike"],
)
def test_liars_change_no_comparison(
    effect: Mapping[Metric, float], expected: Result, extremes: tuple[float, ...]
) -> None:
    """With a tenth of both arms reporting extremes, as often right as the other tests ask for without."""
    found = Counter(results(effect, DIFFERENT, seed=30_000, lie=liars(extremes)))
    tell(f"{expected} although 10 % report {extremes}", found[expected], DIFFERENT)
    assert found[expected] >= 0.9 * DIFFERENT
    allowed = {expected, Result.NOT_ENOUGH} | ({Result.A, Result.B} if expected is Result.ALIKE else set())
    assert set(found) <= allowed
    assert found[Result.A] + found[Result.B] <= 0.05 * DIFFERENT or expected is Result.A


def test_what_would_decide_does_decide() -> None:
    """Of ten devices an arm too few; with as many more as were named most trials decide about the latency."""
    effect, row = {Metric.LATENCY: math.log(1.06)}, COMPARED.index(Metric.LATENCY)
    needs, decided = [], 0
    for k in range(DIFFERENT):
        first = compare_arms(trial(40_000 + k, effect, n=10), MARGINS).differences[row]
        if first.side is not Side.UNKNOWN:
            continue
        assert first.more_devices is not None
        needs.append(first.more_devices)
        more = min(10 + first.more_devices, 400)
        second = compare_arms(trial(50_000 + k, effect, n=more), MARGINS).differences[row]
        decided += second.side is not Side.UNKNOWN
    tell(f"decided with as many devices as were named (median {int(np.median(needs))} more)", decided, len(needs))
    assert len(needs) > DIFFERENT / 2, "ten devices are too few for 6 %"
    assert decided >= 0.7 * len(needs)

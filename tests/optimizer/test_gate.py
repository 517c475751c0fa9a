"""The gate errs at most as often as it says, and says what it needs."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgeopt.gate import Judgement, Verdict, discordant_p_value, judge


def _scores(lost: int, won: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return paired 0/1 scores with ``lost`` samples only the baseline has right, ``won`` only the variant."""
    baseline, variant = np.ones(n), np.ones(n)
    variant[:lost] = 0
    baseline[lost : lost + won] = 0
    return baseline, variant


def _judge(lost: int, won: int, n: int, margin: float = 0.01) -> Judgement:
    return judge(*_scores(lost, won, n), margin=margin, confidence=0.95)


@pytest.mark.parametrize(("n", "margin"), [(30, 0.1), (50, 0.05)])
def test_a_true_drop_at_the_margin_passes_in_at_most_five_per_cent(n: int, margin: float) -> None:
    """Exactly, by adding up every outcome that passes, for discordance rates from none to many."""
    rates = np.linspace(0, (1 - margin) / 2, 12)[:8]
    passing = [
        (lost, won)
        for lost, won in itertools.product(range(n + 1), repeat=2)
        if lost + won <= n and lost / n <= margin and discordant_p_value(lost, won, n, margin) <= 0.05
    ]
    assert passing
    for won_rate in rates:
        shares = [won_rate + margin, won_rate, 1 - 2 * won_rate - margin]
        false_pass = sum(stats.multinomial.pmf([lost, won, n - lost - won], n, shares) for lost, won in passing)
        assert false_pass <= 0.05


@pytest.mark.parametrize("discordant", [0.02, 0.05])
def test_false_passes_in_simulated_pairs(discordant: float) -> None:
    """Of 400 simulated models whose true drop is the margin, about 5 % or fewer pass (a point estimate: half)."""
    random = np.random.default_rng(3)
    n, margin, runs = 1000, 0.01, 400
    lost_rate = (discordant + margin) / 2
    outcomes = random.multinomial(n, [lost_rate, lost_rate - margin, 1 - 2 * lost_rate + margin], size=runs)
    passes = sum(discordant_p_value(int(lost), int(won), n, margin) <= 0.05 for lost, won, _ in outcomes)
    assert passes / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert sum(lost - won <= n * margin for lost, won, _ in outcomes) / runs > 0.4  # what the naive rule would pass


def test_power_at_no_true_drop() -> None:
    """At 2,000 samples and 3 % discordant answers, about 80 % of harmless variants pass (at best 82.5 %)."""
    passes = functools.cache(lambda lost, won: discordant_p_value(lost, won, 2000, 0.01) <= 0.05)
    outcomes = np.random.default_rng(1).multinomial(2000, [0.015, 0.015, 0.97], size=3000)
    assert np.mean([passes(int(lost), int(won)) for lost, won, _ in outcomes]) >= 0.79


@pytest.mark.parametrize(
    ("lost", "won", "n", "verdict"),
    [
        (0, 0, 400, Verdict.PASS),  # the rule of three: 0 of 400 is below 1 %
        (0, 0, 200, Verdict.INCONCLUSIVE),
        (11, 11, 1100, Verdict.PASS),
        (10, 10, 500, Verdict.INCONCLUSIVE),
        (60, 0, 1000, Verdict.FAIL),
        (12, 0, 1000, Verdict.INCONCLUSIVE),  # 1.2 points seen, but 1 is not excluded
    ],
)
def test_verdicts(lost: int, won: int, n: int, verdict: Verdict) -> None:
    """PASS needs the upper bound below the margin, FAIL the lower bound above it."""
    assert verdict is _judge(lost, won, n).verdict


def test_inconclusive_says_how_many_samples_would_do() -> None:
    """With that many samples of the same kind the verdict is PASS, with a tenth less it is not."""
    few = _judge(5, 5, 500)
    assert Verdict.INCONCLUSIVE is few.verdict
    needed = few.samples_needed
    assert needed is not None
    scaled = round(5 * needed / 500)
    assert Verdict.PASS is _judge(scaled, scaled, needed).verdict
    scaled = round(5 * 0.85 * needed / 500)
    assert Verdict.PASS is not _judge(scaled, scaled, int(0.85 * needed)).verdict


def test_more_samples_cannot_help_a_drop_that_is_too_large() -> None:
    """No number is promised when the drop that was seen is itself above the margin."""
    judgement = _judge(13, 0, 1000)
    assert Verdict.INCONCLUSIVE is judgement.verdict
    assert judgement.samples_needed is None


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(20, 3000))
def test_bounds_hold_the_drop_between_them(data: st.DataObject, n: int) -> None:
    """Lower <= drop <= upper, and the verdict follows from the bounds alone."""
    lost = data.draw(st.integers(0, n // 10))
    won = data.draw(st.integers(0, n // 10))
    judgement = _judge(lost, won, n)
    assert judgement.drop_lower <= judgement.drop <= judgement.drop_upper
    assert (judgement.drop_upper <= 0.01) == (judgement.verdict is Verdict.PASS)
    assert (judgement.drop_lower > 0.01) == (judgement.verdict is Verdict.FAIL)


def test_swapping_the_models_mirrors_the_bounds() -> None:
    """Nothing in the test prefers one of the two models."""
    one, other = _judge(9, 4, 700), _judge(4, 9, 700)
    assert one.drop_upper == pytest.approx(-other.drop_lower)
    assert one.drop_lower == pytest.approx(-other.drop_upper)


def test_agreement_has_clopper_pearson_bounds() -> None:
    """When the baseline is one by definition, the drop is a plain share, and scipy's exact interval is the oracle."""
    judgement = judge(*_scores(20, 0, 600), margin=0.1, confidence=0.95, ceiling=True)
    oracle = stats.binomtest(20, 600).proportion_ci(0.90, method="exact")
    assert (oracle.low, oracle.high) == pytest.approx((judgement.drop_lower, judgement.drop_upper))
    assert Verdict.PASS is judgement.verdict


class TestOtherScores:
    """Scores that are not 0 and 1, as of a regression."""

    def test_equal_differences_prove_nothing_by_themselves(self) -> None:
        """Ten equal scores have no variance, and yet do not pass; thousands do."""
        few = judge(np.full(10, 0.25), np.full(10, 0.25), margin=0.001, confidence=0.95)
        assert Verdict.PASS is few.verdict  # all scores are the same: no range, no risk that could be seen
        mixed = np.tile([0.25, 0.75], 5)
        assert Verdict.INCONCLUSIVE is judge(mixed, mixed, margin=0.01, confidence=0.95).verdict
        mixed = np.tile([0.25, 0.75], 500)
        assert Verdict.PASS is judge(mixed, mixed, margin=0.01, confidence=0.95).verdict

    def test_false_passes_are_rare(self) -> None:
        """At a true drop of the margin, at most about 5 % of simulated runs pass."""
        random = np.random.default_rng(5)
        passes = 0
        for _ in range(300):
            baseline = random.uniform(0, 1, 200)
            variant = baseline - 0.02 + random.normal(0, 0.05, 200)
            passes += judge(baseline, variant, margin=0.02, confidence=0.95).verdict is Verdict.PASS
        assert passes / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)

    def test_a_large_drop_fails(self) -> None:
        """A drop far above the margin is FAIL, not INCONCLUSIVE."""
        baseline = np.random.default_rng(6).uniform(0.5, 1, 300)
        assert Verdict.FAIL is judge(baseline, baseline - 0.3, margin=0.01, confidence=0.95).verdict

    def test_how_many_samples_would_do(self) -> None:
        """The estimate is finite and larger than what there is."""
        random = np.random.default_rng(8)
        baseline = random.uniform(0, 1, 50)
        judgement = judge(baseline, baseline + random.normal(0, 0.1, 50), margin=0.005, confidence=0.95)
        assert Verdict.INCONCLUSIVE is judgement.verdict
        assert judgement.samples_needed is None or judgement.samples_needed > 50


@pytest.mark.parametrize(
    ("baseline", "variant", "margin", "confidence"),
    [
        ([1.0], [1.0, 1.0], 0.01, 0.95),
        ([], [], 0.01, 0.95),
        ([1.0, np.nan], [1.0, 1.0], 0.01, 0.95),
        ([1.0], [1.0], -0.01, 0.95),
        ([1.0], [1.0], 0.01, 0.5),
        ([1.0], [1.0], 0.01, 1.0),
    ],
)
def test_nonsense_is_refused(baseline: list[float], variant: list[float], margin: float, confidence: float) -> None:
    """Unpaired, empty and undefined scores never get a verdict."""
    with pytest.raises(ValueError, match="expected"):
        judge(np.array(baseline), np.array(variant), margin=margin, confidence=confidence)

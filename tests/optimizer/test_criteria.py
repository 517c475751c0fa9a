"""All criteria hold together at the stated confidence, and none hides another."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgeopt.criteria import Classes, Criterion, JointJudgement, Limits, Name, PairedScores, joint_verdict, judge_all
from edgeopt.gate import Verdict, judge

ALL = Limits(max_drop=0.01, confidence=0.95, max_class_drop=0.05, min_agreement=0.95)
Counts = tuple[int, int, int]  # of one class: samples lost, samples won, samples


def _paired(*counts: Counts, known: tuple[int, ...] = (), changed: int = 0) -> PairedScores:
    """Return 0/1 scores of classes 0, 1, …; ``changed`` answers differ without a win or a loss."""
    baseline, variant, of_sample = [], [], []
    for label, (lost, won, n) in enumerate(counts):
        baseline += [1.0] * lost + [0.0] * won + [1.0] * (n - lost - won)
        variant += [0.0] * lost + [1.0] * won + [1.0] * (n - lost - won)
        of_sample += [label] * n
    agreement = np.asarray(np.equal(baseline, variant), dtype=np.float64)
    agreement[np.flatnonzero(agreement)[:changed]] = 0
    return PairedScores(
        baseline=np.array(baseline),
        variant=np.array(variant),
        agreement=agreement,
        classes=Classes(np.array(of_sample, dtype=np.int64), known),
    )


def _named(outcome: JointJudgement) -> dict[Name, Criterion]:
    return {criterion.name: criterion for criterion in outcome.criteria}


@pytest.mark.parametrize("verdicts", list(product(Verdict, repeat=3)))
def test_the_whole_fails_if_any_part_does_and_passes_if_all_do(verdicts: tuple[Verdict, ...]) -> None:
    """Every combination of three."""
    expected = Verdict.INCONCLUSIVE
    if Verdict.FAIL in verdicts:
        expected = Verdict.FAIL
    elif set(verdicts) == {Verdict.PASS}:
        expected = Verdict.PASS
    assert expected is joint_verdict(verdicts)


@pytest.mark.parametrize(("lost", "n"), [(0, 1000), (12, 1000), (60, 1000)])
def test_one_criterion_alone_is_the_gate_as_it_was(lost: int, n: int) -> None:
    """Nothing is split when nothing else is asked for, and nothing else is reported."""
    paired = _paired((lost, 0, n))
    alone = judge(paired.baseline, paired.variant, margin=0.01, confidence=0.95)
    outcome = judge_all(paired, Limits(max_drop=0.01, confidence=0.95))
    (criterion,) = outcome.criteria
    assert alone == outcome.overall
    assert (alone.verdict, alone.drop, alone.drop_lower, alone.drop_upper) == (
        criterion.verdict,
        criterion.value,
        criterion.lower,
        criterion.upper,
    )
    assert (alone.drop_lower if alone.verdict is Verdict.FAIL else alone.drop_upper) == criterion.bound


def test_pass_needs_no_split_and_the_intervals_carry_it() -> None:
    """The bound is that of the full level, the interval that of a third of the error rate."""
    paired = _paired((2, 0, 1500))
    criterion = _named(judge_all(paired, ALL))[Name.DROP]
    full = judge(paired.baseline, paired.variant, margin=0.01, confidence=0.95)
    third = judge(paired.baseline, paired.variant, margin=0.01, confidence=1 - 0.05 / 3)
    assert full.drop_upper == criterion.bound
    assert (third.drop_lower, third.drop_upper) == pytest.approx((criterion.lower, criterion.upper))
    assert full.drop_upper < third.drop_upper


def test_fail_is_held_to_its_share_of_the_error_rate() -> None:
    """A drop that fails by itself does not yet fail among three, each of which might err; a greater one does."""
    edge = next(
        lost
        for lost in range(10, 60)
        if Verdict.FAIL is judge_all(_paired((lost, 0, 1000)), Limits(max_drop=0.01, confidence=0.95)).verdict
    )
    limits = Limits(max_drop=0.01, confidence=0.95, max_class_drop=0.9, min_agreement=0.1)
    criterion = judge_all(_paired((edge, 0, 1000)), limits).criteria[0]
    assert (Verdict.INCONCLUSIVE, None) == (criterion.verdict, criterion.samples_needed)
    assert Verdict.FAIL is judge_all(_paired((edge + 10, 0, 1000)), limits).verdict


def test_agreement_has_clopper_pearson_bounds() -> None:
    """The oracle is scipy: a third of the error rate on each side of the interval, all of it for the bound."""
    criterion = _named(judge_all(_paired((0, 0, 2000), changed=60), ALL))[Name.AGREEMENT]
    test = stats.binomtest(1940, 2000)
    split = test.proportion_ci(1 - 2 * 0.05 / 3, method="exact")
    assert (split.low, split.high) == pytest.approx((criterion.lower, criterion.upper))
    assert test.proportion_ci(0.9, method="exact").low == pytest.approx(criterion.bound)
    assert (Verdict.PASS, 0.97, 0.95) == (criterion.verdict, criterion.value, criterion.limit)


def test_trap_10_changed_answers_behind_an_equal_score() -> None:
    """Not one point of accuracy is lost, and yet 12 % of the answers changed: only agreement sees it."""
    outcome = judge_all(_paired((0, 0, 2000), changed=240), ALL)
    assert Verdict.FAIL is outcome.verdict
    assert {Name.DROP: Verdict.PASS, Name.CLASS_DROP: Verdict.PASS, Name.AGREEMENT: Verdict.FAIL} == {
        name: criterion.verdict for name, criterion in _named(outcome).items()
    }


def test_trap_10_a_rare_class_that_is_never_found_again() -> None:
    """A detector that calls everything by the common class keeps its accuracy: only the worst class sees it."""
    outcome = judge_all(_paired((0, 30, 9970), (40, 0, 40)), ALL)
    worst = _named(outcome)[Name.CLASS_DROP]
    assert (Verdict.FAIL, Verdict.FAIL) == (outcome.verdict, worst.verdict)
    assert (1, 40, 1.0) == (worst.label, worst.n, worst.value)
    assert Verdict.PASS is _named(outcome)[Name.DROP].verdict
    assert Verdict.PASS is _named(outcome)[Name.AGREEMENT].verdict


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_a_collapse_is_seen_among_many_classes(count: int) -> None:
    """The split level of one class among a thousand is tiny, and the exact test must still be able to reject at it."""
    classes: list[Counts] = [(20, 0, 20), *[(0, 0, 20)] * (min(count, 10) - 1)]
    worst = _named(judge_all(_paired(*classes, known=tuple(range(count))), ALL))[Name.CLASS_DROP]
    assert (Verdict.FAIL, 0, count) == (worst.verdict, worst.label, len(worst.classes))


def test_a_short_class_needs_what_it_says() -> None:
    """With so many samples of it the class passes; with a tenth less it does not."""
    worst = _named(judge_all(_paired((0, 0, 1000), (0, 0, 20)), ALL))[Name.CLASS_DROP]
    assert (Verdict.INCONCLUSIVE, 1, 20) == (worst.verdict, worst.label, worst.n)
    assert worst.samples_needed is not None
    assert Verdict.PASS is judge_all(_paired((0, 0, 1000), (0, 0, worst.samples_needed)), ALL).verdict
    less = int(0.9 * worst.samples_needed)
    assert Verdict.INCONCLUSIVE is judge_all(_paired((0, 0, 1000), (0, 0, less)), ALL).verdict


def test_a_class_without_a_certification_sample_is_not_forgotten() -> None:
    """Nothing is known about it, so nothing is claimed; it needs as many as a class without any difference."""
    worst = _named(judge_all(_paired((0, 0, 1000), known=(0, 5)), ALL))[Name.CLASS_DROP]
    assert (Verdict.INCONCLUSIVE, 5, 0, None, None) == (worst.verdict, worst.label, worst.n, worst.value, worst.bound)
    assert worst.samples_needed is not None
    assert (
        Verdict.PASS
        is judge_all(_paired((0, 0, 1000 - worst.samples_needed), (0, 0, worst.samples_needed)), ALL).verdict
    )


def test_a_class_criterion_without_classes_is_refused() -> None:
    """It is never skipped silently."""
    scores = np.ones(100)
    with pytest.raises(ValueError, match="expected the class of each sample"):
        judge_all(PairedScores(baseline=scores, variant=scores, agreement=scores), ALL)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_intervals_hold_what_was_seen_and_verdicts_follow_from_bounds(data: st.DataObject) -> None:
    """For any subset of criteria and any counts: lower <= value <= upper, and bound against limit gives the verdict."""
    sizes = data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=3))
    counts = [(data.draw(st.integers(0, n // 3)), data.draw(st.integers(0, n // 3)), n) for n in sizes]
    limits = Limits(
        max_drop=data.draw(st.sampled_from([0.0, 0.01, 0.2])),
        confidence=data.draw(st.sampled_from([0.8, 0.95])),
        max_class_drop=data.draw(st.sampled_from([None, 0.0, 0.1])),
        min_agreement=data.draw(st.sampled_from([None, 0.5, 0.95])),
    )
    outcome = judge_all(_paired(*counts), limits)
    assert limits.count == len(outcome.criteria)
    for one in outcome.criteria:
        assert one.value is not None
        assert one.lower is not None
        assert one.upper is not None
        assert one.bound is not None
        assert one.lower <= one.value <= one.upper
        kept = one.bound >= one.limit - 1e-12 if one.name is Name.AGREEMENT else one.bound <= one.limit
        assert kept == (one.verdict is Verdict.PASS)

"""How many samples an emulated CPU answers."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt.criteria import Classes, Limits, PairedScores, judge_all
from edgeopt.emulation.planning import Cost, least_samples, samples_within
from edgeopt.gate import Verdict

LIMITS = Limits(max_drop=0.01, confidence=0.95)


def scores(count: int, classes: int | None = None) -> PairedScores:
    """Nine of ten answers are right; the variant's are not known yet."""
    right = (np.arange(count) % 10 != 0).astype(np.float64)
    labels = None if classes is None else Classes(np.arange(count) % classes, tuple(range(classes)))
    return PairedScores(baseline=right, variant=1 - right, agreement=np.zeros(count), classes=labels)


@pytest.mark.parametrize(
    ("limits", "classes"),
    [
        (LIMITS, None),
        (Limits(max_drop=0.02, confidence=0.9, min_agreement=0.98), None),
        (Limits(max_drop=0.02, confidence=0.95, max_class_drop=0.1), 5),
    ],
)
def test_the_least_number_just_passes(limits: Limits, classes: int | None) -> None:
    """So many samples without any difference pass, one fewer does not."""
    least = least_samples(scores(3000, classes), limits)
    assert least is not None
    verdicts = [_perfect(scores(count, classes), limits) for count in (least, least - 1)]
    assert [Verdict.PASS, Verdict.INCONCLUSIVE] == verdicts


def _perfect(paired: PairedScores, limits: Limits) -> Verdict:
    same = PairedScores(
        baseline=paired.baseline,
        variant=paired.baseline,
        agreement=np.ones(len(paired.baseline)),
        classes=paired.classes,
    )
    return judge_all(same, limits).verdict


def test_too_few_samples_are_no_number() -> None:
    """Where even all of them prove nothing, emulation would be a waste of time."""
    assert least_samples(scores(100), LIMITS) is None
    plan = samples_within(1000, Cost(start=5, each=1), least=None, available=100)
    assert 0 == plan.count
    assert "cannot pass on 100 samples" in plan.reason


def test_a_budget_below_the_least_number_is_no_number() -> None:
    """The reason says how long it would take."""
    plan = samples_within(60, Cost(start=5, each=0.65), least=300, available=6000)
    assert 0 == plan.count
    assert "needs 300 samples, which take about 200 s here; the budget is 60 s" in plan.reason


@pytest.mark.parametrize(
    ("budget", "count"), [(305, 300), (604, 300), (606, 600), (1300, 1200), (1999, 1200), (2006, 2000), (9999, 2000)]
)
def test_as_many_as_fit_in_powers_of_two(budget: float, count: int) -> None:
    """A machine that is a little slower comes to the same number; all samples are a number of their own."""
    plan = samples_within(budget, Cost(start=5, each=1), least=300, available=2000)
    assert count == plan.count
    assert plan.seconds <= budget
    assert ("all samples" if count == 2000 else f"{count} of 2000") in plan.reason

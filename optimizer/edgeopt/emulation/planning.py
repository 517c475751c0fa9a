"""How many certification samples an emulated CPU shall answer: enough for the gate, within a budget of time.

Emulation is tens to hundreds of times slower than the CPU it stands for. The gate needs a number of samples to pass
even when no answer differs; fewer are a waste of time. Beyond that, as many as the budget allows, in powers of two of
the least number, so that a run on a busier machine comes to the same number and so to the same bundle. They are the
first ones in the seeded order, which is blind to what the models answer.

Pure. Example::

    least = least_samples(perfect, limits)                         # None: not even all of them would pass
    plan = samples_within(120, Cost(start=5, each=0.65), least=299, available=6000)
    plan.count                                                     # 0: not within 120 s; else at least 299
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeopt.criteria import Classes, Limits, PairedScores, judge_all
from edgeopt.gate import Verdict

__all__ = ["Cost", "SamplePlan", "least_samples", "samples_within"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds until the first sample is answered, and for each more."""

    start: float
    each: float

    def of(self, count: int) -> float:
        """Return the seconds that ``count`` samples take."""
        return self.start + count * self.each


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan:
    """How many samples, about how many seconds they take, and why not more (or none), in words."""

    count: int
    seconds: float
    reason: str


def least_samples(baseline: PairedScores, limits: Limits) -> int | None:
    """Return how many of the first samples pass if the variant answers all like the baseline; ``None``: no number.

    ``baseline`` has the scores of the float model on the certification samples in their seeded order, the variant's
    being taken to be the same. A bisection: more samples never pass worse, but for the luck of a class or two.
    """
    perfect = replace(baseline, variant=baseline.baseline, agreement=baseline.agreement * 0 + 1)
    low, high = 0, len(perfect.baseline)
    if not _passes(perfect, high, limits):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _passes(perfect, middle, limits) else (middle, high)
    return high


def samples_within(budget: float, cost: Cost, *, least: int | None, available: int) -> SamplePlan:
    """Return how many of ``available`` samples fit into ``budget`` seconds: ``least``, or a power of two times that.

    None (count 0) when ``least`` is ``None`` or does not fit.
    """
    if least is None:
        reason = f"the gate cannot pass on {available} samples, however well the variant does: give more"
        return SamplePlan(count=0, seconds=0.0, reason=reason)
    if cost.of(least) > budget:
        needed = f"the gate needs {least} samples, which take about {cost.of(least):.0f} s here"
        return SamplePlan(count=0, seconds=0.0, reason=f"{needed}; the budget is {budget:.0f} s")
    count = least
    while count < available and cost.of(min(2 * count, available)) <= budget:
        count = min(2 * count, available)
    share = "all samples" if count == available else f"{count} of {available} samples: more would not fit the budget"
    return SamplePlan(count=count, seconds=cost.of(count), reason=share)


def _passes(paired: PairedScores, count: int, limits: Limits) -> bool:
    classes = paired.classes
    part = PairedScores(
        baseline=paired.baseline[:count],
        variant=paired.variant[:count],
        agreement=paired.agreement[:count],
        ceiling=paired.ceiling,
        classes=None if classes is None else Classes(classes.of_sample[:count], classes.known),
    )
    return judge_all(part, limits).verdict is Verdict.PASS

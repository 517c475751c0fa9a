"""Which of the tried variants is the best: what keeps accuracy, what is faster, what lies on the Pareto front.

The selection split only hints at what the certification split will say, so a variant *keeps* accuracy here when it
uses up at most half of what is allowed. Rules, in order:

1. Of those that keep and are faster than fp32, the fastest; of those that are about as fast, the one nearest to fp32.
   About as fast is within 3 % of it, or within 10 % with intervals that overlap: a second run, whose times differ a
   little, shall come to the same choice, and outputs do not depend on the stopwatch.
2. Else, of those that keep, are at least a quarter smaller and as fast as fp32, the smallest. As fast is a ratio of at
   least 0.97 whose interval reaches one: a busy machine widens the interval, and hides nothing that is smaller.
3. Else none: fp32 it is.

Where times cannot be measured, static int8 with the fewest nodes in float stands in for the fastest. Pure. Example::

    ranked(trials, demand)[0].title          # "int8, minmax"
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeopt.recipe import Precision
from edgeopt.results import SpeedResult, TrialResult

__all__ = ["NEVER_SLOWER", "SMALLER", "Demand", "faster", "front", "ranked", "worth_its_size"]

NEVER_SLOWER = 0.97  # the least ratio at which a smaller variant counts as equally fast, if it may be one
SMALLER = 0.75  # of fp32's bytes, at most, to be worth shipping for its size alone
_ALIKE = 0.97  # ratios this near to the best are one class: the stopwatch knows no better
_PERHAPS_ALIKE = 0.9  # and these, if their intervals overlap
_USED = 0.5  # of what is allowed, at most, on the selection split


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a variant must keep: ``baseline`` is fp32's score on the selection split, ``size_bytes`` its size."""

    baseline: float
    size_bytes: int
    max_drop: float
    min_agreement: float | None = None

    def keeps(self, trial: TrialResult) -> bool:
        """Tell whether ``trial`` uses up at most half of what is allowed."""
        if trial.score is None or trial.agreement is None:
            return False
        within = self.baseline - trial.score <= _USED * self.max_drop
        if self.min_agreement is None:
            return within
        return within and 1 - trial.agreement <= _USED * (1 - self.min_agreement)


def faster(speed: SpeedResult | None) -> bool:
    """Tell whether the ratio is surely above one."""
    return speed is not None and speed.ratio_low > 1


def worth_its_size(size_bytes: int, speed: SpeedResult | None, fp32_bytes: int) -> bool:
    """Tell whether a variant that is not faster is worth shipping because it is smaller."""
    return size_bytes <= SMALLER * fp32_bytes and (speed is None or _as_fast(speed))


def _as_fast(speed: SpeedResult) -> bool:
    return speed.ratio >= NEVER_SLOWER and speed.ratio_high >= 1


def ranked(trials: Iterable[TrialResult], demand: Demand) -> list[TrialResult]:
    """Return the variants that may ship, best first; empty when fp32 is best."""
    keeping = [trial for trial in trials if demand.keeps(trial) and trial.recipe.precision is not Precision.FP32]
    keeping += [trial for trial in trials if demand.keeps(trial) and _is_another_fp32(trial)]
    if any(trial.speed is not None for trial in keeping):
        quick = sorted((trial for trial in keeping if faster(trial.speed)), key=lambda trial: -_ratio(trial))
        small = [
            trial
            for trial in keeping
            if not faster(trial.speed) and worth_its_size(trial.size_bytes or 0, trial.speed, demand.size_bytes)
        ]
        return _nearest_of_alike(quick) + sorted(small, key=lambda trial: (trial.size_bytes or 0, trial.error or 0.0))
    smaller = [trial for trial in keeping if worth_its_size(trial.size_bytes or 0, None, demand.size_bytes)]
    return sorted(smaller, key=_unmeasured)


def front(trials: Sequence[TrialResult]) -> set[int]:
    """Return the indices of the Pareto front: no other trial is at least as fast and as near, and better in one."""
    points = [
        (index, _ratio(trial), trial.error)
        for index, trial in enumerate(trials)
        if trial.speed is not None and trial.error is not None
    ]
    return {
        index
        for index, ratio, error in points
        if not any(
            other >= ratio and distance <= error and (other > ratio or distance < error)
            for _, other, distance in points
        )
    }


def _is_another_fp32(trial: TrialResult) -> bool:
    """Whether it is fp32 with something done to it: another runtime or layout, or pruned."""
    recipe = trial.recipe
    changed = recipe.pruned or recipe.planar or recipe.runtime != "onnxruntime"
    return recipe.precision is Precision.FP32 and changed


def _ratio(trial: TrialResult) -> float:
    return trial.speed.ratio if trial.speed is not None else 0.0


def _nearest_of_alike(quick: list[TrialResult]) -> list[TrialResult]:
    """Reorder: within each class of about equal ratios, the smallest error first."""
    result: list[TrialResult] = []
    rest = quick
    while rest:
        alike = [trial for trial in rest if _alike(rest[0].speed, trial.speed)]
        rest = [trial for trial in rest if trial not in alike]
        result += sorted(alike, key=lambda trial: trial.error or 0.0)
    return result


def _alike(best: SpeedResult | None, other: SpeedResult | None) -> bool:
    """Whether ``other`` is about as fast as ``best``, of which the ratio is at least as great."""
    if best is None or other is None:
        return False
    if other.ratio >= _ALIKE * best.ratio:
        return True
    return other.ratio >= _PERHAPS_ALIKE * best.ratio and other.ratio_high >= best.ratio_low


def _unmeasured(trial: TrialResult) -> tuple[bool, int, float]:
    recipe = trial.recipe
    return recipe.precision is not Precision.INT8, len(recipe.float_nodes), trial.error or 0.0

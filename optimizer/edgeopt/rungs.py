"""What each rung of the ladder gave: the best it reached in accuracy and in speed, and the gain on all rungs before.

It judges nothing; gains may be negative. Pure. Example::

    [(gain.rung, gain.ratio_gain) for gain in rung_gains(target.trials)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from edgeopt.recipe import Precision, RuntimeName
from edgeopt.results import TrialResult

__all__ = ["RungGain", "rung_gains"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RungGain:
    """One rung: how many recipes it tried, the best agreement and ratio among them, and their gains.

    ``None``: nothing was measured, or nothing before it was. ``best`` is the recipe nearest to fp32, or the problem.
    """

    rung: str
    tried: int
    agreement: float | None
    agreement_gain: float | None
    ratio: float | None
    ratio_gain: float | None
    best: str


def rung_gains(trials: Sequence[TrialResult]) -> tuple[RungGain, ...]:
    """Return the rungs in the order in which they were tried; fp32 by another runtime is none."""
    gains: list[RungGain] = []
    reached: list[TrialResult] = []
    for rung, group in groupby(filter(_is_changed, trials), _rung):
        members = list(group)
        best = max(members, key=lambda one: -1.0 if one.agreement is None else one.agreement)
        agreement, ratio = _best(members), _fastest(members)
        gains.append(
            RungGain(
                rung=rung,
                tried=len(members),
                agreement=agreement,
                agreement_gain=_gain(agreement, _best(reached)),
                ratio=ratio,
                ratio_gain=_gain(ratio, _fastest(reached)),
                best=best.title if agreement is not None else members[0].problem or "",
            )
        )
        reached += members
    return tuple(gains)


def _is_changed(trial: TrialResult) -> bool:
    recipe = trial.recipe
    return recipe.precision is not Precision.FP32 or (recipe.planar and recipe.runtime is RuntimeName.ONNXRUNTIME)


def _rung(trial: TrialResult) -> str:
    return trial.rung


def _gain(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before


def _best(trials: Sequence[TrialResult]) -> float | None:
    return max((one.agreement for one in trials if one.agreement is not None), default=None)


def _fastest(trials: Sequence[TrialResult]) -> float | None:
    return max((one.speed.ratio for one in trials if one.speed is not None), default=None)

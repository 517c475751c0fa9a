"""What stands in each section of the page: words and rows from the records, and why a section is empty.

It judges nothing anew, and writes no markup. Pure. Example::

    headline(target)          # "int8 ships"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from edgeopt.gate import Verdict
from edgeopt.recipe import Precision, Recipe
from edgeopt.reporting.plots import Timed
from edgeopt.results import LayerSensitivity, RunResult, StageResult, TargetResult, TrialResult, VariantResult
from edgeopt.wording import Wording

__all__ = [
    "LONG",
    "Stage",
    "fp32_ms",
    "headline",
    "layers",
    "leading",
    "plain",
    "recipe_rows",
    "remarks",
    "run_headline",
    "stages",
    "telling",
    "timed_trials",
    "timed_variants",
    "versions",
    "when",
    "why_no_layers",
    "why_no_times",
]

_ROUNDING = 1e-5  # of a standard deviation: below it, two runtimes add in another order
_VISIBLE = 1e-3  # an error that fills the bar at least, so that rounding does not look like a loss
LONG = 12  # a longer table of trials shows the telling ones first
_FIRST = ("edgeopt", "python", "torch", "onnx", "onnxruntime", "openvino", "numpy")  # what people look for


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage with what was lost on the way to it; ``share`` is its error as a share of the greatest."""

    result: StageResult
    lost: str
    share: float
    is_worst: bool


def headline(target: TargetResult) -> str:
    """Return what becomes of the target, in a few words."""
    if target.verdict is Verdict.PASS:
        why = ": nothing else kept accuracy and was faster or smaller" if _is_fp32(target) else ""
        return f"{target.chosen} ships{why}" if target.chosen else "nothing ships"
    judged = [one.name for one in target.variants if one.recipe.precision is not Precision.FP32]
    name = judged[0] if judged else "the variant"
    if target.verdict is Verdict.FAIL:
        return f"{name} loses more than is allowed"
    return f"too few samples to tell whether {name} is good enough"


def run_headline(run: RunResult) -> str:
    """Return what becomes of the whole run; that of the target when there is one."""
    if len(run.targets) == 1:
        return headline(run.targets[0])
    count, served = len(run.targets), sum(one.chosen is not None for one in run.targets)
    return f"all {count} targets get a variant" if served == count else f"{served} of {count} targets get a variant"


def fp32_ms(target: TargetResult) -> float | None:
    """Return how long fp32 takes on this target: as timed beside a variant there, for elsewhere it says nothing."""
    speeds = [one.speed for one in target.variants] + [one.speed for one in target.trials]
    return next((speed.baseline_ms for speed in speeds if speed is not None), None)


def leading(target: TargetResult) -> VariantResult | None:
    """Return the variant that the figures at the top are of: the chosen one, else the one that was certified."""
    chosen = [one for one in target.variants if one.name == target.chosen]
    return next(iter([*chosen, *target.variants]), None)


def remarks(trial: TrialResult, target: TargetResult) -> tuple[str, ...]:
    """Return what is to be said of a trial: whether it was chosen and ships, and whether it is on the front."""
    if trial.chosen:
        ships = target.chosen == trial.recipe.variant
        return ("chosen" if ships else "chosen to be certified",)
    return ("on the front",) if trial.on_front else ()


def telling(trials: Sequence[TrialResult]) -> tuple[TrialResult, ...]:
    """Return all trials if few, else the chosen one, those on the front and the nearest to fp32 of each rung."""
    if len(trials) <= LONG:
        return tuple(trials)
    nearest: dict[str, TrialResult] = {}
    for one in trials:
        if one.error is not None and (one.rung not in nearest or one.error < (nearest[one.rung].error or 0.0)):
            nearest[one.rung] = one
    return tuple(one for one in trials if one.chosen or one.on_front or nearest.get(one.rung) is one)


def recipe_rows(recipe: Recipe) -> list[tuple[str, str]]:
    """Return everything a recipe says that is not the rule, name by name."""
    usual = asdict(Recipe(precision=recipe.precision))
    given = asdict(recipe)
    shown = {"precision", "runtime"} | ({"calibrator"} if recipe.precision is Precision.INT8 else set())
    return [
        (name.replace("_", " "), plain(value)) for name, value in given.items() if name in shown or value != usual[name]
    ]


def stages(found: Sequence[StageResult], words: Wording) -> tuple[Stage, ...]:
    """Return the stages with what was lost between them; the worst step is where the error grew most."""
    if not found:
        return ()
    greatest = max(_VISIBLE, *(one.error for one in found))
    growth = {after.stage: after.error - before.error for before, after in pairwise(found)}
    worst = max(growth, key=lambda stage: growth[stage], default="")
    losses = {after.stage: words.drop(before.score - after.score) for before, after in pairwise(found)}
    return tuple(
        Stage(one, losses.get(one.stage, ""), one.error / greatest, one.stage == worst and growth[worst] > _ROUNDING)
        for one in found
    )


def layers(found: Iterable[LayerSensitivity]) -> list[tuple[LayerSensitivity, float]]:
    """Return the layers, worst first, each with its error as a share of the greatest."""
    ordered = sorted(found, key=lambda one: -one.error)
    greatest = (ordered[0].error if ordered else 0.0) or 1.0
    return [(one, one.error / greatest) for one in ordered]


def timed_variants(target: TargetResult) -> list[Timed]:
    """Return the variants that were timed against fp32."""
    return [Timed(one.name, one.speed) for one in target.variants if one.speed is not None and not _is_baseline(one)]


def timed_trials(target: TargetResult) -> list[Timed]:
    """Return the trials that were timed."""
    return [Timed(f"{one.rung}: {one.title}", one.speed) for one in target.trials if one.speed is not None]


def why_no_times(target: TargetResult) -> str:
    """Return why there is no time of anything."""
    if not target.trials:
        return "Nothing was tried."
    if all(one.problem for one in target.trials):
        return "None of what was tried could be built or run; the table of the rungs says why."
    return (
        "Nothing was timed: only a machine with the target's own kind of CPU can say how fast "
        f"{target.target} is. Measure on the device before a rollout."
    )


def why_no_layers(target: TargetResult) -> str:
    """Return why no layer was quantized alone."""
    if not target.trials:
        return "Nothing was tried, so no layer was ranked."
    return "No layer was ranked: the search does that only when its cheaper steps lose too much."


def versions(found: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the versions that people look for, and all others, by name."""
    first = [(name, found[name]) for name in _FIRST if name in found]
    return first, sorted((name, version) for name, version in found.items() if name not in _FIRST)


def when(created: str) -> str:
    """Return a time in ISO 8601, UTC, to the minute; as it is if it is no such time."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def plain(value: Any) -> str:
    """Return what JSON can hold as words."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')}: {plain(entry)}" for key, entry in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ("; " if any(isinstance(one, Mapping) for one in value) else ", ").join(map(plain, value)) or "none"
    return str(value)


def _is_fp32(target: TargetResult) -> bool:
    return any(one.name == target.chosen and _is_baseline(one) for one in target.variants)


def _is_baseline(variant: VariantResult) -> bool:
    return variant.recipe == Recipe(precision=Precision.FP32)

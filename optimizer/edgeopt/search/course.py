"""What the ladder may try for a model and a target: the recipes to begin with, the runtimes, the weights at risk.

It reads the graph and decides nothing else. Example::

    course = course_for(original, target, demand, effort, timed=True)
    next(climb(course))
"""

from __future__ import annotations

from dataclasses import replace

from edgeopt.graph import op_types
from edgeopt.planar import has_lines, planar
from edgeopt.quantization.candidates import first_recipes
from edgeopt.quantization.dynamic import dynamic_weights
from edgeopt.quantization.facts import facts_of
from edgeopt.quantization.families import Family, family_of, family_recipes
from edgeopt.quantization.static import reducible_weights
from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.runtimes.port import available
from edgeopt.search.choice import Demand
from edgeopt.search.ladder import Course
from edgeopt.stages import Effort, Original
from edgeopt.targets import Target

__all__ = ["course_for", "without_effect"]


def course_for(original: Original, target: Target, demand: Demand, effort: Effort, *, timed: bool) -> Course:
    """Return the course of the ladder; ``timed`` says that the target's times can be measured here."""
    model = original.float.model
    return Course(
        demand=demand,
        first=_first(model, target),
        planar=_first_planar(model, target),
        timed=timed,
        reducible=reducible_weights(model) if target.saturates else (),
        runtimes=_runtimes(target, effort, timed=timed),
        pruned=original.pruned is not None,
        quantizes=effort.quantizes,
        thorough=effort.thorough,
    )


def without_effect(target: Target, effort: Effort, *, timed: bool) -> str:
    """Return in words that the runtimes that were asked for are none for ``target``; empty where they are."""
    others = [runtime for runtime in effort.runtimes if runtime is not RuntimeName.ONNXRUNTIME]
    if timed or not others:
        return ""
    return (
        f"--runtime {' '.join(others)} had no effect for {target.name}: a runtime is chosen by measuring, and the "
        "times of that CPU cannot be measured on this machine; it gets variants for onnxruntime"
    )


def _first(model: bytes, target: Target) -> tuple[Recipe, ...]:
    """Return the recipes for the model's family; where static int8 of everything is sound, those come first."""
    family = family_of(op_types(model))
    dynamic = Recipe(precision=Precision.INT8_DYNAMIC)
    recurrent = dynamic_weights(model, replace(dynamic, operators=("LSTM",)))
    recipes = family_recipes(family, target, dynamic_weights(model, dynamic), recurrent)
    if family in (Family.CNN, Family.MLP):
        recipes = (*first_recipes(facts_of(model), _cautious(target)), *_without_weights_only(recipes))
    return tuple(dict.fromkeys(recipes))


def _first_planar(model: bytes, target: Target) -> tuple[Recipe, ...]:
    """Return fp32 and the first recipes for the graph with planar convolutions; nothing where it has none."""
    if not has_lines(model):
        return ()
    recipes = (Recipe(precision=Precision.FP32), *_first(planar(model), target))
    return tuple(replace(recipe, planar=True) for recipe in recipes)


def _cautious(target: Target) -> Target:
    """Return ``target`` as one that saturates, on any x86 without VNNI.

    Its variants may be taken by other boxes without VNNI, and a manifest cannot say "no AVX2".
    """
    if target.arch != "x86_64" or target.has_vnni:
        return target
    return replace(target, features=tuple(sorted({*target.features, "avx2"})))


def _without_weights_only(recipes: tuple[Recipe, ...]) -> tuple[Recipe, ...]:
    """Leave out what the ladder comes to by itself, where nothing is faster."""
    return tuple(recipe for recipe in recipes if recipe.precision is not Precision.INT8_WEIGHTS)


def _runtimes(target: Target, effort: Effort, *, timed: bool) -> tuple[RuntimeName, ...]:
    """Return the runtimes to choose from by measuring: those that are asked for, else those of the target."""
    plain = (RuntimeName.ONNXRUNTIME,)
    if not timed:
        return plain  # what cannot be timed gives no reason to leave the usual runtime
    wanted = effort.runtimes or tuple(RuntimeName(name) for name in target.runtimes)
    return tuple(runtime for runtime in RuntimeName if runtime in wanted and runtime in available()) or plain

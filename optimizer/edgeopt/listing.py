"""How variants stand in the manifest: their names, their order, and what a device needs for each.

Two targets may get the same variant, or variants of the same kind that differ; a device takes the first that it can
run, so those with the most needs stand first and fp32 stands last. Pure. Example::

    [one.name for one in listed(variants_by_target, fp32)]       # ["int8", "int8-raspberry-pi-4", "fp32"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.targets import Target

__all__ = ["Needs", "Shipped", "listed", "needs"]

_INTEGER = (Precision.INT8, Precision.INT8_DYNAMIC)
_LEAST_ONNXRUNTIME = "1.20"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a device must have: one of ``arch`` (empty: any), all ``features``, and the runtime's least version."""

    arch: tuple[str, ...]
    features: tuple[str, ...]
    minimum_runtime: str


@dataclass(frozen=True, slots=True)
class Shipped:
    """A variant as it ships: its ``name``, and the names of the ``targets`` that it was certified for."""

    name: str
    recipe: Recipe
    model: bytes
    needs: Needs
    targets: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.name}.{'tflite' if self.recipe.runtime is RuntimeName.LITERT else 'onnx'}"


def needs(recipe: Recipe, target: Target) -> Needs:
    """Return what a device needs for a variant that was certified for ``target``.

    Integer kernels differ by architecture. Unsigned activations with 8-bit weights are right on x86 with VNNI only:
    elsewhere they may saturate, unless the weights that matter use 7 bits.
    """
    least = target.runtimes.get(recipe.runtime, _LEAST_ONNXRUNTIME)
    if recipe.precision not in _INTEGER:
        return Needs((), (), least)
    full_range = target.arch == "x86_64" and target.has_vnni and not recipe.signed_activations
    return Needs((target.arch,), ("vnni",) if full_range else (), least)


def listed(certified: Sequence[tuple[Target, Sequence[tuple[Recipe, bytes]]]], fp32: bytes) -> tuple[Shipped, ...]:
    """Return what ships, in the order in which a device looks: for each target its variants, best first; then fp32."""
    found: list[Shipped] = []
    for target, variants in certified:
        for recipe, model in variants:
            _add(found, recipe, model, target)
    found.sort(key=lambda one: -len(one.needs.features))
    plain = Recipe(precision=Precision.FP32)
    names = tuple(target.name for target, _ in certified)
    return (*found, Shipped("fp32", plain, fp32, Needs((), (), _LEAST_ONNXRUNTIME), names))


def _add(found: list[Shipped], recipe: Recipe, model: bytes, target: Target) -> None:
    """Add a variant, or the target to the one that is the same."""
    wanted = needs(recipe, target)
    for index, one in enumerate(found):
        if (one.model, one.recipe, one.needs) == (model, recipe, wanted):
            found[index] = replace(one, targets=(*one.targets, target.name))
            return
    taken = any(one.name == recipe.variant for one in found)
    name = f"{recipe.variant}-{target.name}" if taken else recipe.variant
    found.append(Shipped(name, recipe, model, wanted, (target.name,)))

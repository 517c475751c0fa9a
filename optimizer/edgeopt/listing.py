"""How variants stand in the manifest: their names, their order, and what a device needs for each.

A device takes the first that it can run. So for each architecture the targets with the most CPU features come first,
each with its variants, best first, and each needs what tells its CPU from those of the targets behind it. A target
that keeps fp32 has it listed before the variants of poorer CPUs, or its devices would take those. What is the same for
neighbours in this order ships once. At the end stands fp32, for everything else.

Two targets whose CPUs have the same features cannot be told apart by a device: both get what the first one gets. Pure.
Example::

    [one.name for one in listed(variants_by_target, fp32)]       # ["int8-x86-vnni", "int8-x86-avx2", "fp32"]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.targets import Target, least_version

__all__ = ["Certified", "Needs", "Shipped", "listed", "needs"]

Certified = tuple[Target, Sequence[tuple[Recipe, bytes]]]
"""A target, and the recipes and models that were certified for it, best first; none: it keeps fp32."""

_FP32 = Recipe(precision=Precision.FP32)
_INTEGER = (Precision.INT8, Precision.INT8_DYNAMIC)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a device must have: one of ``arch`` (empty: any), all ``features``, and the runtime's least version."""

    arch: tuple[str, ...]
    features: tuple[str, ...]
    minimum_runtime: str


@dataclass(frozen=True, slots=True)
class Shipped:
    """A variant as it ships: its ``name``, and the names of the ``targets`` that it was certified for.

    The same variant may stand more than once, with other needs each time.
    """

    name: str
    recipe: Recipe
    model: bytes
    needs: Needs
    targets: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.name}.{'tflite' if self.recipe.runtime is RuntimeName.LITERT else 'onnx'}"


@dataclass(frozen=True, slots=True)
class _Group:
    """Targets of one architecture, neighbours by their CPUs, that get the same ``variants``."""

    targets: tuple[Target, ...]
    variants: tuple[tuple[Recipe, bytes], ...]

    @property
    def features(self) -> frozenset[str]:
        """What all of its CPUs have."""
        return frozenset.intersection(*(frozenset(target.features) for target in self.targets))


def needs(recipe: Recipe, targets: Sequence[Target]) -> Needs:
    """Return what a device needs for a variant that was certified for ``targets``, all of one architecture.

    Integer kernels differ by architecture, and times do for all others, so only fp32 is for any. Unsigned activations
    with 8-bit weights are right on x86 with VNNI only: elsewhere they may saturate, unless the weights that matter use
    7 bits, or it was certified there.
    """
    runtime = recipe.runtime
    versions = [target.runtimes.get(runtime, least_version(runtime)) for target in targets]
    least = min(versions, key=_numbers)
    if recipe == _FP32:
        return Needs((), (), least)
    features = []
    if recipe.precision is Precision.FP16:
        features.append("fp16")
    if recipe.precision in _INTEGER and not recipe.signed_activations:
        features.append("vnni")
    certain = [name for name in features if all(name in target.features for target in targets)]
    return Needs((targets[0].arch,), tuple(certain), least)


def listed(certified: Sequence[Certified], fp32: bytes) -> tuple[Shipped, ...]:
    """Return what ships, in the order in which a device looks."""
    names = _names(certified)
    ships: list[Shipped] = []
    for arch in dict.fromkeys(target.arch for target, _ in certified):
        groups = _groups([one for one in certified if one[0].arch == arch])
        for index, group in enumerate(groups):
            ships += _of_group(group, groups[index + 1 :], fp32, names)
    targets = [target for target, _ in certified]
    last = Needs((), (), needs(_FP32, targets).minimum_runtime)
    return (*ships, Shipped(_FP32.variant, _FP32, fp32, last, tuple(target.name for target in targets)))


def _names(certified: Sequence[Certified]) -> dict[tuple[Recipe, bytes], str]:
    """Return a name for each variant: its kind, and the first target it is for where there are several of that kind."""
    first: dict[tuple[Recipe, bytes], str] = {}
    for target, variants in certified:
        for one in variants:
            first.setdefault(one, target.name)
    kinds = [recipe.variant for recipe, _ in first]
    return {
        one: one[0].variant if kinds.count(one[0].variant) == 1 else f"{one[0].variant}-{target}"
        for one, target in first.items()
    }


def _groups(certified: Sequence[Certified]) -> list[_Group]:
    """Return the targets of one architecture, the most features first, joined where they get the same."""
    groups: list[_Group] = []
    for target, variants in sorted(certified, key=lambda one: -len(one[0].decisive)):
        if groups and groups[-1].variants == tuple(variants):
            groups[-1] = _Group((*groups[-1].targets, target), groups[-1].variants)
        else:
            groups.append(_Group((target,), tuple(variants)))
    return groups


def _of_group(
    group: _Group, behind: Sequence[_Group], fp32: bytes, names: dict[tuple[Recipe, bytes], str]
) -> Iterator[Shipped]:
    """Yield the variants of a group, and fp32 after them where a device would go on to those of another CPU."""
    telling = {name for other in behind for target in other.targets for name in _telling(group, target)}
    kept = tuple(target.name for target in group.targets)
    for recipe, model in group.variants:
        base = needs(recipe, group.targets)
        full = Needs(base.arch, tuple(sorted({*base.features, *telling})), base.minimum_runtime)
        yield Shipped(names[recipe, model], recipe, model, full, kept)
    plain = any(recipe.runtime is RuntimeName.ONNXRUNTIME for recipe, _ in group.variants)
    if telling and not plain and any(other.variants for other in behind):
        least = needs(_FP32, group.targets).minimum_runtime
        own = Needs((group.targets[0].arch,), tuple(sorted(telling)), least)
        yield Shipped(_FP32.variant, _FP32, fp32, own, kept)


def _telling(group: _Group, other: Target) -> frozenset[str]:
    """Return the features by which the CPUs of ``group`` are told from ``other``: what changes integers, or times."""
    lacking = group.features - set(other.features)
    return lacking & other.ARITHMETIC or lacking & other.SPEED


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())

"""Which static int8 recipes a network is worth on a kind of CPU, from its layers alone, the most promising first.

Transformers and recurrent networks have recipes of their own (:mod:`edgeopt.quantization.families`); calibrators, the
weights that really saturate and all other rungs come later (:mod:`edgeopt.search.ladder`). What is best is measured,
not decided here. Pure. Example::

    first_recipes(facts_of(model), target)[0].title          # "int8, minmax, 36 weights in 7 bits"
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeopt.layers import Convolution
from edgeopt.recipe import Precision, Recipe
from edgeopt.targets import Target

__all__ = ["GraphFacts", "first_recipes"]

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Where these stand, int8 for everything between the matrix products collapses (transformers: 81 to 39 % accuracy).
_FRAGILE = frozenset({"Softmax", "LayerNormalization", "Erf", "Gelu", "HardSwish"})
# Without VNNI the first convolutions, few channels on many pixels, are no faster in int8 and lose the most:
# EfficientNet-Lite0 on AVX2 goes from 96.0 to 98.7 % agreement, and from 1.43 to 1.47 times the speed.
_STEM = 3
_DEEP = 3 * _STEM  # convolutions from which on a float stem is a small part of the work


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """What :func:`first_recipes` must know of a prepared graph.

    ``convolutions`` in order; ``reducible``: the weights of dense convolutions and matrix products, which saturate
    without VNNI; ``layers``: the node and the weight of each layer with constant weights, in order.
    """

    op_types: frozenset[str]
    convolutions: tuple[Convolution, ...]
    reducible: tuple[str, ...]
    layers: tuple[tuple[str, str], ...]


def first_recipes(facts: GraphFacts, target: Target) -> tuple[Recipe, ...]:
    """Return what is worth trying first on ``target``, each recipe once.

    x86 multiplies unsigned activations by signed weights, ARM signed by signed. Without VNNI the weights of dense
    layers use 7 bits, or pairs of products would overflow 16; depthwise kernels add in 32 bits and keep all 8
    (EfficientNet-Lite0: an error of .153 instead of .183, and faster).
    """
    base = Recipe(
        precision=Precision.INT8,
        signed_activations=target.signed_activations,
        reduced_weights=facts.reducible if target.saturates else (),
    )
    return tuple(dict.fromkeys(_variations(base, facts, target)))


def _variations(base: Recipe, facts: GraphFacts, target: Target) -> Iterator[Recipe]:
    yield base
    if target.saturates:
        if len(facts.convolutions) >= _DEEP:
            stem = {layer.weight for layer in facts.convolutions[:_STEM]}
            yield _in_float(base, facts.convolutions[_STEM].before, stem)
        if len(facts.layers) > 2:  # else nothing would be left in int8
            nodes, weights = zip(facts.layers[0], facts.layers[-1], strict=True)
            yield _in_float(base, nodes, set(weights))
    if facts.op_types & _FRAGILE:
        yield replace(base, operators=_HEAVY)


def _in_float(recipe: Recipe, nodes: tuple[str, ...], weights: set[str]) -> Recipe:
    """Return ``recipe`` with ``nodes`` in float, where there is nothing to reduce in their ``weights``."""
    reduced = tuple(name for name in recipe.reduced_weights if name not in weights)
    return replace(recipe, float_nodes=nodes, reduced_weights=reduced)

"""Int8 weights alone: the file shrinks to about a quarter, and the arithmetic stays in float.

Each weight is kept in int8, symmetric, with one scale for each output channel; a Cast and a Mul make float of it. As
both work on constants, ONNX Runtime does them once, while it loads the model: it runs as fast as float, and takes as
much memory. A table that is looked up (Gather, an embedding) has one scale for each column, and stays in int8: only the
rows that were found become float. Activations are never rounded, so nothing must be calibrated and nothing saturates.

DequantizeLinear, the obvious operator, is not folded by ONNX Runtime but done again at each run, or fused with a matrix
product into a kernel that rounds activations too and took 1.6 times as long (docs/adr/0011). Only the main graph is
looked at, not the bodies of If and Loop. Example::

    small = compress_weights(prepared.model, Recipe(precision=Precision.INT8_WEIGHTS))
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.graph import stripped
from edgeopt.nodes import all_nodes, attributes, name_nodes, parsed
from edgeopt.recipe import Recipe
from edgeopt.samples import Array
from edgeopt_contract.errors import ModelError

__all__ = ["WEIGHT_OPERATORS", "compress_weights", "compressible_weights"]

WEIGHT_OPERATORS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "LSTM", "GRU")
_STEPS = 127  # symmetric: -128 is left out, so that a weight and its negative round alike
_OVERHEAD = 250  # bytes that the two nodes and their names take


@dataclass(frozen=True, slots=True)
class _Use:
    """A float initializer as an operand of ``node``; ``axis`` counts its output channels."""

    node: Any
    slot: int
    axis: int


def compress_weights(model: bytes, recipe: Recipe) -> bytes:
    """Return ``model`` with the weights of ``recipe.operators`` (all of :data:`WEIGHT_OPERATORS` if empty) in int8.

    Nodes in ``recipe.float_nodes`` keep theirs, as do weights so small that the scales would outweigh the gain. Also
    for a model that is quantized in part: what is left in float is compressed. The same arguments give the same bytes.
    Raises :class:`ModelError` when there is no weight to compress.
    """
    graph = name_nodes(parsed(model))
    uses = _uses(graph.graph, recipe)
    if not uses:
        raise ModelError(
            f"no weights to compress: expected large constant weights of {', '.join(WEIGHT_OPERATORS)}; "
            "prepare the model first if its weights are computed while it runs"
        )
    readers = _reader_counts(graph.graph)
    for name, places in uses.items():
        _compress(graph.graph, name, places, shared=readers[name] > len(places))
    return stripped(graph)


def compressible_weights(model: bytes, recipe: Recipe) -> tuple[str, ...]:
    """Return the names of the weights that :func:`compress_weights` puts into int8, in the graph's order."""
    return tuple(_uses(name_nodes(parsed(model)).graph, recipe))


def _operators(recipe: Recipe) -> tuple[str, ...]:
    return tuple(kind for kind in recipe.operators or WEIGHT_OPERATORS if kind in WEIGHT_OPERATORS)


def _uses(graph: Any, recipe: Recipe) -> dict[str, list[_Use]]:
    """Return where each float weight that pays is used as one; those of nodes that stay in float are left out."""
    given = {value.name for value in graph.input}  # what a caller may replace is no constant
    floats = [one for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    weights = {one.name: one for one in floats if one.name not in given}
    found: dict[str, list[_Use]] = defaultdict(list)
    kept: set[str] = set()
    for node in graph.node:
        if node.name in recipe.float_nodes:
            kept.update(node.input)
        elif node.op_type in _operators(recipe):
            for slot, axis in _operands(node, weights):
                found[node.input[slot]].append(_Use(node, slot, axis))
    return {
        name: places for name, places in found.items() if name not in kept and _pays(weights[name].dims, places[0].axis)
    }


def _operands(node: Any, weights: dict[str, Any]) -> list[tuple[int, int]]:
    """Return (input, axis of its output channels) of each weight of ``node`` (ONNX operator documentation)."""
    settings = attributes(node)
    rank = {slot: len(weights[name].dims) for slot, name in enumerate(node.input) if name in weights}
    if node.op_type in ("LSTM", "GRU"):  # directions x gates and hidden x inputs
        return [(slot, 1) for slot in (1, 2) if slot in rank]
    if node.op_type == "Gather":  # rows are looked up, so only columns can have scales of their own
        return [(0, 1)] if rank.get(0) == 2 and settings.get("axis", 0) == 0 else []
    if rank.get(1, 0) < 2:
        return []
    if node.op_type == "Gemm":
        return [(1, 0 if settings.get("transB", 0) else 1)]
    axis = {"MatMul": rank[1] - 1, "Conv": 0, "ConvTranspose": 1}[node.op_type]
    return [(1, axis)]


def _pays(shape: Sequence[int], axis: int) -> bool:
    """Tell whether int8 saves more bytes than the scales and the added node take."""
    return 3 * math.prod(shape) > 4 * shape[axis] + _OVERHEAD


def _compress(graph: Any, name: str, places: list[_Use], *, shared: bool) -> None:
    """Put int8 and scales in the place of a weight; ``shared``: something else reads it, and needs it in float."""
    weight = next(one for one in graph.initializer if one.name == name)
    integers, scales = _rounded(numpy_helper.to_array(weight), places[0].axis)
    stored, scale = f"{name}_int8", f"{name}_scale"
    graph.initializer.remove(weight)
    if shared or any(place.node.op_type != "Gather" for place in places):
        _insert(graph, 0, _expansion(stored, scale, name))
    else:
        scales = scales.reshape(-1)  # whatever shape the rows are looked up in, columns come last
        for place in places:
            found, result = f"{place.node.output[0]}_int8", place.node.output[0]
            place.node.input[place.slot], place.node.output[0] = stored, found
            behind = 1 + [node.name for node in graph.node].index(place.node.name)
            _insert(graph, behind, _expansion(found, scale, result))
    graph.initializer.extend([numpy_helper.from_array(integers, stored), numpy_helper.from_array(scales, scale)])


def _rounded(values: Array, axis: int) -> tuple[Array, Array]:
    """Return ``values`` (float32) in int8, and float32 scales, one for each index along ``axis``, that broadcast."""
    others = tuple(index for index in range(values.ndim) if index != axis)
    greatest = np.abs(values).max(axis=others, keepdims=True)
    scales = np.where(greatest > 0, greatest / _STEPS, 1).astype(np.float32)
    return np.clip(np.rint(values / scales), -_STEPS, _STEPS).astype(np.int8), scales


def _expansion(stored: str, scale: str, result: str) -> list[Any]:
    """Return the nodes that turn int8 into float32."""
    unscaled = f"{result}_unscaled"
    return [
        onnx.helper.make_node("Cast", [stored], [unscaled], f"{result}_cast", to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", [unscaled, scale], [result], f"{result}_mul"),
    ]


def _insert(graph: Any, index: int, nodes: list[Any]) -> None:
    for offset, node in enumerate(nodes):
        graph.node.insert(index + offset, node)


def _reader_counts(graph: Any) -> dict[str, int]:
    """Return how many nodes, those of subgraphs included, and outputs read each tensor."""
    counts: dict[str, int] = defaultdict(int)
    for name in (*(name for node in all_nodes(graph) for name in node.input), *(value.name for value in graph.output)):
        counts[name] += 1
    return counts

"""What it costs to quantize each node alone: which layers int8 really hurts, found in one run for each of them.

For each quantized node a float model is made in which only that node's inputs and weights are rounded, with the scales
of the quantized model; its outputs are held against the float model's. The rounding of a tensor counts for each node
that reads it; it goes away only when the node that makes it is left in float too. It chooses nothing: that is
:mod:`edgeopt.quantization.mixed`. Example::

    ranking = rank(float_model, int8_model, samples[:64], saved_ms(float_model, int8_model, samples))
    ranking[0].node, ranking[0].error
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.metrics import output_error
from edgeopt.nodes import attributes, name_nodes, parsed
from edgeopt.results import LayerSensitivity
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array, Sample
from edgeopt_contract.errors import ModelError

__all__ = ["rank"]

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def rank(
    float_model: bytes, quantized: bytes, samples: Sequence[Sample], saved_ms: Mapping[str, float] | None = None
) -> tuple[LayerSensitivity, ...]:
    """Return every node that ``quantized`` computes in int8, the most sensitive first.

    ``error`` is the mean absolute difference of the float outputs in their standard deviations, ``saved_ms`` what
    :func:`edgeopt.quantization.kernels.saved_ms` measured. The cost is loading and running the float model once for
    each such node. ``float_model`` must be the one that was quantized. Raises :class:`ModelError`.
    """
    original = name_nodes(parsed(float_model))
    roundings = _roundings(original.graph, name_nodes(parsed(quantized)).graph)
    expected = OnnxRuntimeSession(float_model, threads=1).predict(samples)
    found = []
    for node, operator in ((node.name, node.op_type) for node in original.graph.node if node.name in roundings):
        model = _with_rounding(original, node, roundings[node])
        error = output_error(expected, OnnxRuntimeSession(model, threads=1).predict(samples))
        saved = None if saved_ms is None else saved_ms.get(node)
        found.append(LayerSensitivity(node=node, operator=operator, error=error, saved_ms=saved))
    return tuple(sorted(found, key=lambda layer: (-layer.error, layer.node)))


@dataclass(frozen=True, slots=True, eq=False)
class _Rounding:
    """How one tensor of a node is rounded: a weight to ``values``, an activation on the grid of ``parameters``.

    ``place`` is the input's index; for an output that the model returns it is -1.
    """

    place: int
    values: Array | None = None
    parameters: tuple[Array, ...] = ()


def _roundings(original: Any, quantized: Any) -> dict[str, list[_Rounding]]:
    """Return what is rounded at each node that both graphs have."""
    constants = {item.name: item for item in quantized.initializer}
    dequantized = {name: node for node in quantized.node if node.op_type == "DequantizeLinear" for name in node.output}
    nodes = {node.name: node for node in original.node}
    found: dict[str, list[_Rounding]] = {}
    for node in quantized.node:
        if node.name not in nodes or nodes[node.name].op_type != node.op_type or _in_float(node, constants):
            continue
        places = zip(range(len(nodes[node.name].input)), node.input, strict=False)
        roundings = [_rounding(place, dequantized[name], constants) for place, name in places if name in dequantized]
        if roundings:
            found[node.name] = roundings
    producers = {name: node.name for node in original.node for name in node.output}
    for output in (value.name for value in original.output):
        if output in dequantized and producers.get(output) in found:
            found[producers[output]].append(_rounding(-1, dequantized[output], constants))
    return found


def _in_float(node: Any, constants: Mapping[str, Any]) -> bool:
    """Tell whether ``node`` has weights and they are float: then what it reads is rounded for its neighbours' sake."""
    weights = constants.get(node.input[1]) if node.op_type in _LAYERS else None
    return weights is not None and weights.data_type == onnx.TensorProto.FLOAT


def _rounding(place: int, dequantize: Any, constants: Mapping[str, Any]) -> _Rounding:
    """Return what ``dequantize`` does: for a constant its values, else the grid of its input."""
    source, *parameters = dequantize.input
    arrays = tuple(numpy_helper.to_array(constants[name]) for name in parameters if name in constants)
    if len(arrays) < len([name for name in parameters if name]):
        raise ModelError(f"the scale of {dequantize.name} is computed: only constant scales can be ranked")
    if source not in constants:
        return _Rounding(place, parameters=arrays)
    stored = numpy_helper.to_array(constants[source])
    axis = attributes(dequantize).get("axis", 1)
    fitted = [_along(array, axis, stored.ndim) for array in arrays]
    offset = fitted[1].astype(np.float32) if len(fitted) > 1 else np.float32(0)
    return _Rounding(place, values=((stored.astype(np.float32) - offset) * fitted[0]).astype(np.float32))


def _along(array: Array, axis: int, rank: int) -> Array:
    """Return ``array`` in a shape that broadcasts along ``axis``."""
    if array.size == 1:
        return array.reshape(())
    shape = [1] * rank
    shape[axis] = array.size
    return array.reshape(shape)


def _with_rounding(original: Any, name: str, roundings: Sequence[_Rounding]) -> bytes:
    """Return the float model in which only node ``name`` computes with rounded tensors."""
    model = onnx.ModelProto()
    model.CopyFrom(original)
    graph = model.graph
    place = next(index for index, node in enumerate(graph.node) if node.name == name)
    node, before, after = graph.node[place], [], []
    for number, rounding in enumerate(roundings):
        tensor = f"{name}/rounded/{number}"
        if rounding.values is not None:
            graph.initializer.append(numpy_helper.from_array(rounding.values, tensor))
            node.input[rounding.place] = tensor
        elif rounding.place < 0:
            (output,) = node.output
            node.output[0] = f"{tensor}/float"
            after += _round_trip(graph, rounding.parameters, node.output[0], output, tensor)
        else:
            before += _round_trip(graph, rounding.parameters, node.input[rounding.place], f"{tensor}/float", tensor)
            node.input[rounding.place] = f"{tensor}/float"
    nodes = [*graph.node[:place], *before, node, *after, *graph.node[place + 1 :]]
    kept = [onnx.NodeProto.FromString(one.SerializeToString()) for one in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    data: bytes = model.SerializeToString()
    return data


def _round_trip(graph: Any, parameters: Sequence[Array], source: str, target: str, base: str) -> list[Any]:
    """Return the nodes that round ``source`` to ``target``."""
    names = [f"{base}/parameter/{index}" for index in range(len(parameters))]
    graph.initializer.extend(numpy_helper.from_array(array, key) for array, key in zip(parameters, names, strict=True))
    return [
        onnx.helper.make_node("QuantizeLinear", [source, *names], [f"{base}/integers"], name=f"{base}/quantize"),
        onnx.helper.make_node("DequantizeLinear", [f"{base}/integers", *names], [target], name=f"{base}/dequantize"),
    ]

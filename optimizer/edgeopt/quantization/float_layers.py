"""Layers left in float stay in float: without this, ONNX Runtime quantizes them while it loads the model.

Since 1.20 ONNX Runtime gives a Conv, ConvTranspose or Gemm with a float weight an int8 weight of its own when its
input comes from a DequantizeLinear and its output goes to a QuantizeLinear, alone or after Relu or Clip
(``WeightBiasQuantization`` in ``core/optimizer/qdq_transformer``): one scale for the whole weight, all eight bits. That
is what mixed precision leaves a layer in float for, so accuracy measured in simulation would not come back on a device.
It leaves a layer alone whose bias is no initializer. So such a layer gets its bias, or a bias of zero, through a
DequantizeLinear of whole numbers, which gives exactly the same floats and which no optimizer folds. Example::

    kept = keep_float(int8_model)         # the same function, and what was left in float is computed in float
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.nodes import attributes, parsed
from edgeopt.samples import Array

__all__ = ["keep_float"]

_TAKEN = frozenset({"Conv", "ConvTranspose", "Gemm"})
_PASSED = frozenset({"QuantizeLinear", "Relu", "Clip"})
_MANTISSA_BITS = 24  # of float32, the leading one included


def keep_float(model: bytes) -> bytes:
    """Return the QDQ ``model`` with float layers between quantized ones protected; others are as they were.

    The same bytes give the same bytes. Float32 biases only: of another type nothing is quantized anyway.
    """
    graph_file = parsed(model)
    graph = graph_file.graph
    weights = {item.name: item for item in graph.initializer}
    dequantized = {tensor for node in graph.node if node.op_type == "DequantizeLinear" for tensor in node.output}
    added = []
    for node in graph.node:
        if node.op_type not in _TAKEN or not _is_float(weights.get(node.input[1])):
            continue
        if node.input[0] in dequantized and _leads_to_quantize(graph, node.output[0]):
            bias = _bias(node, weights)
            if bias is not None:
                added.append(_through_integers(graph, node, bias))
    if not added:
        return model
    nodes = [*added, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    data: bytes = graph_file.SerializeToString(deterministic=True)
    return data


def _leads_to_quantize(graph: Any, tensor: str) -> bool:
    """Tell whether ``tensor`` goes to one QuantizeLinear and nowhere else, by way of Relu and Clip at most."""
    while True:
        readers = [node for node in graph.node for name in node.input if name == tensor]
        if len(readers) != 1 or readers[0].op_type not in _PASSED:
            return False
        if readers[0].op_type == "QuantizeLinear":
            return True
        tensor = readers[0].output[0]


def _is_float(tensor: Any) -> bool:
    return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT


def _bias(node: Any, weights: dict[str, Any]) -> Array | None:
    """Return the bias of ``node``, zeros when it has none, ``None`` when it is no vector of constants."""
    if len(node.input) > 2 and node.input[2]:
        bias = weights.get(node.input[2])
        return None if bias is None or not _is_float(bias) or len(bias.dims) != 1 else numpy_helper.to_array(bias)
    shape = tuple(weights[node.input[1]].dims)
    if node.op_type == "Conv":
        return np.zeros(shape[0], np.float32)
    if node.op_type == "ConvTranspose":
        return np.zeros(shape[1] * attributes(node).get("group", 1), np.float32)
    return np.zeros(shape[0] if attributes(node).get("transB") else shape[1], np.float32)


def _through_integers(graph: Any, node: Any, bias: Array) -> Any:
    """Give ``node`` its ``bias`` as whole numbers times powers of two, and return the node that multiplies them."""
    _, exponents = np.frexp(bias.astype(np.float64))
    exponents = np.clip(exponents - _MANTISSA_BITS, -126, 127)  # a scale must be a normal float32
    numbers = np.rint(np.ldexp(bias.astype(np.float64), -exponents)).astype(np.int32)
    stem = f"{node.name or node.output[0]}_kept_bias"
    graph.initializer.append(numpy_helper.from_array(numbers, f"{stem}_numbers"))
    graph.initializer.append(numpy_helper.from_array(np.ldexp(np.float32(1), exponents), f"{stem}_scale"))
    while len(node.input) < 3:
        node.input.append("")
    node.input[2] = stem
    return onnx.helper.make_node(
        "DequantizeLinear", [f"{stem}_numbers", f"{stem}_scale"], [stem], name=f"{stem}_DequantizeLinear", axis=0
    )


def _drop_unused(graph: Any) -> None:
    """Remove the float biases that nothing reads any more."""
    read = {tensor for node in graph.node for tensor in node.input} | {value.name for value in graph.output}
    kept = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)

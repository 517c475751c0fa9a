"""The convolutions and Gemms of a quantized (QDQ) graph: their stored integers, and how to change them.

A layer is a node whose weights come from a DequantizeLinear over constants that nothing else reads, and that the float
graph has under the same name. It runs nothing and decides nothing. Example::

    graph = Int8Graph(quantized, float_model)
    for layer in graph.layers:
        graph.shift_bias(layer, shift)
    graph.serialized()
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.nodes import attributes, parsed
from edgeopt.samples import Array

__all__ = ["Int8Graph", "Int8Layer"]

_OPERATORS = frozenset({"Conv", "Gemm"})
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Int8Layer:
    """One layer: ``node`` of the quantized graph, ``expected`` its output's name in the float graph.

    ``weight``, ``scale`` and ``zero_point`` name constants of the quantized graph, ``float_weight`` one of the float
    graph; ``axis`` is the weights' axis that has a scale for each index.
    """

    node: Any
    expected: str
    float_weight: str
    weight: str
    scale: str
    zero_point: str
    axis: int

    @property
    def attributes(self) -> dict[str, Any]:
        """The node's attributes by name."""
        return attributes(self.node)


class Int8Graph:
    """A quantized graph, parsed; its integers are changed in place."""

    def __init__(self, quantized: bytes, float_model: bytes) -> None:
        """Raises :class:`ModelError` when one of the two is not ONNX."""
        self.model = parsed(quantized)
        float_graph = parsed(float_model).graph
        self._constants = {item.name: item for item in self.model.graph.initializer}
        self._float_constants = {item.name: item for item in float_graph.initializer}
        self._reads = Counter(name for node in self.model.graph.node for name in node.input)
        self._producer = {name: node for node in self.model.graph.node for name in node.output}
        originals = {node.name: node for node in float_graph.node if node.name}
        found = (self._layer(node, originals.get(node.name)) for node in self.model.graph.node)
        self.layers: tuple[Int8Layer, ...] = tuple(layer for layer in found if layer is not None)

    def serialized(self) -> bytes:
        """Return the graph with all that was changed."""
        data: bytes = self.model.SerializeToString(deterministic=True)
        return data

    def integers(self, layer: Int8Layer) -> Array:
        """Return the weights as stored."""
        return self._array(layer.weight)

    def steps(self, layer: Int8Layer) -> tuple[Array, Array]:
        """Return scale (float32) and zero point (int32), in shapes that fit the weights' by broadcasting."""
        weights = self._constants[layer.weight]
        shape = [1] * len(weights.dims)
        scale = self._array(layer.scale)
        if scale.size > 1:
            shape[layer.axis] = scale.size
        zero = self._array(layer.zero_point) if layer.zero_point else np.zeros(1, np.int32)
        return scale.reshape(shape), zero.astype(np.int32).reshape(shape if zero.size > 1 else [1] * len(shape))

    def float_weights(self, layer: Int8Layer) -> Array:
        """Return the weights that the integers stand for, float32."""
        array: Array = numpy_helper.to_array(self._float_constants[layer.float_weight])
        return array

    def store(self, layer: Int8Layer, integers: Array) -> None:
        """Replace the stored weights by ``integers``, which must have their shape and dtype."""
        old = self._constants[layer.weight]
        if integers.shape != tuple(old.dims) or onnx.helper.np_dtype_to_tensor_dtype(integers.dtype) != old.data_type:
            raise ValueError(f"{layer.node.name}: expected weights like those stored, got {integers.dtype}")
        old.CopyFrom(numpy_helper.from_array(integers, layer.weight))

    def shift_bias(self, layer: Int8Layer, shift: Array) -> Array:
        """Add ``shift`` (output channels,) to the layer's bias and return what could be added: a multiple of its scale.

        A layer without a bias gets one, in int32 with scale = input scale x weight scale (what ONNX Runtime's integer
        kernels expect). Nothing is added where the bias is shared or that scale is not known.
        """
        name = layer.node.input[2] if len(layer.node.input) > 2 else ""
        if not name:
            return self._add_bias(layer, shift)
        if name in self._constants:
            return self._shift_float(name, shift)
        dequantize = self._producer.get(name)
        if dequantize is None or not self._is_own_dequantize(dequantize):
            return np.zeros_like(shift)
        stored, scale = (self._array(dequantize.input[index]) for index in (0, 1))
        if stored.dtype != np.int32 or stored.ndim != 1:
            return np.zeros_like(shift)
        moved = np.clip(stored + np.rint(shift / scale), _INT32.min, _INT32.max).astype(np.int32)
        self._constants[dequantize.input[0]].CopyFrom(numpy_helper.from_array(moved, dequantize.input[0]))
        return np.asarray((moved.astype(np.float64) - stored) * scale, shift.dtype)

    def _shift_float(self, name: str, shift: Array) -> Array:
        bias = self._array(name)
        if self._reads[name] > 1 or bias.shape != shift.shape:
            return np.zeros_like(shift)
        self._constants[name].CopyFrom(numpy_helper.from_array((bias + shift).astype(np.float32), name))
        return shift

    def _add_bias(self, layer: Int8Layer, shift: Array) -> Array:
        source = self._producer.get(layer.node.input[0])
        if source is None or source.op_type != "DequantizeLinear" or source.input[1] not in self._constants:
            return np.zeros_like(shift)
        input_scale = self._array(source.input[1])
        if input_scale.size != 1:
            return np.zeros_like(shift)
        scale = np.broadcast_to((input_scale * self._array(layer.scale)).reshape(-1), shift.shape).astype(np.float32)
        integers = np.clip(np.rint(shift / scale), _INT32.min, _INT32.max).astype(np.int32)
        self._insert_bias(layer.node, {"": integers, "_scale": scale, "_zero_point": np.zeros_like(integers)})
        return (integers * scale).astype(shift.dtype)

    def _insert_bias(self, node: Any, parts: dict[str, Array]) -> None:
        """Put a dequantized bias made of ``parts`` before ``node``."""
        graph, base = self.model.graph, f"{node.name}_bias_quantized"
        for suffix, array in parts.items():
            self._constants[base + suffix] = graph.initializer.add()
            self._constants[base + suffix].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), base + suffix))
        inputs, output = [base + suffix for suffix in parts], f"{node.name}_bias_dequantized"
        dequantize = onnx.helper.make_node("DequantizeLinear", inputs, [output], name=f"{output}_node", axis=0)
        place = next(index for index, other in enumerate(graph.node) if other.name == node.name)
        kept = [*node.input[:2], output]
        del node.input[:]
        node.input.extend(kept)
        graph.node.insert(place, dequantize)
        self._producer[output] = graph.node[place]
        self._reads.update([*inputs, output])

    def _layer(self, node: Any, original: Any | None) -> Int8Layer | None:
        """Return ``node`` as a layer if it is one that is understood."""
        if original is None or node.op_type not in _OPERATORS or original.op_type != node.op_type:
            return None
        dequantize = self._producer.get(node.input[1])
        if dequantize is None or not self._is_own_dequantize(dequantize):
            return None
        settings = attributes(node)
        if settings.get("transA", 0) or settings.get("alpha", 1) != 1 or settings.get("beta", 1) != 1:
            return None
        weight, scale, *zero = dequantize.input
        known = self._float_constants.get(original.input[1])
        if known is None or tuple(known.dims) != tuple(self._constants[weight].dims):
            return None
        if len(self._constants[scale].dims) > 1:  # blocks of a channel
            return None
        axis = attributes(dequantize).get("axis", 1)
        return Int8Layer(
            node=node,
            expected=original.output[0],
            float_weight=original.input[1],
            weight=weight,
            scale=scale,
            zero_point=zero[0] if zero else "",
            axis=axis % len(self._constants[weight].dims),
        )

    def _is_own_dequantize(self, node: Any) -> bool:
        """Tell whether ``node`` dequantizes constants, and it and they have no other reader."""
        constant = node.op_type == "DequantizeLinear" and all(name in self._constants for name in node.input if name)
        return constant and self._reads[node.input[0]] == 1 and self._reads[node.output[0]] == 1

    def _array(self, name: str) -> Array:
        array: Array = numpy_helper.to_array(self._constants[name])
        return array

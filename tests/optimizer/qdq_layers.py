"""Quantized layers made by hand, and what each must give, in plain NumPy with 16-bit saturation or without."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgeopt.samples import Array, Sample

SIDE = 9


@dataclass(frozen=True)
class Layer:
    """A convolution over 9 x 9 pixels, or a matrix product (``kernel`` 0) over its channels."""

    inputs: int
    outputs: int
    kernel: int
    groups: int = 1
    stride: int = 1
    signed: bool = False

    @property
    def name(self) -> str:
        """Like ``conv_16_8_3_1_1_u``: sizes, groups, stride, unsigned activations."""
        sizes = (self.inputs, self.outputs, self.kernel, self.groups, self.stride)
        return "_".join(("conv" if self.kernel else "gemm", *map(str, sizes), "s" if self.signed else "u"))

    @property
    def depthwise(self) -> bool:
        """Whether each output channel sees one input channel of its own."""
        return self.groups == self.inputs == self.outputs

    @property
    def offset(self) -> int:
        """What turns the stored activations into unsigned ones."""
        return 128 if self.signed else 0

    @property
    def zero_point(self) -> int:
        """The activations' zero point as stored."""
        return -9 if self.signed else 119

    @property
    def step(self) -> np.float32:
        """The scale of the output: coarse enough that nothing is clipped, fine enough to see saturation."""
        reduction = self.inputs // self.groups * max(1, self.kernel) ** 2
        return np.float32(127 * 127 * np.sqrt(reduction) / 60)

    def weights(self) -> Array:
        """Full-range int8 weights."""
        shape = (self.outputs, self.inputs // self.groups, *(self.kernel,) * 2 * bool(self.kernel))
        return np.random.default_rng(len(self.name)).integers(-127, 128, shape).astype(np.int8)

    def activations(self, samples: int) -> Array:
        """Stored activations of full range, as integers."""
        shape = (samples, self.inputs, *(SIDE,) * 2 * bool(self.kernel))
        return np.random.default_rng(1).integers(0, 256, shape) - self.offset

    def expected(self, activations: Array, *, saturating: bool) -> Array:
        """The output, from integers to numbers."""
        low, high, zero = (-128, 127, 0) if self.signed else (0, 255, 128)
        sums = self.sums(activations, saturating=saturating).astype(np.float32)
        stored = np.clip(np.rint(sums * (np.float32(1) / self.step)) + zero, low, high)
        return ((stored - zero) * self.step).astype(np.float32)

    def sums(self, activations: Array, *, saturating: bool) -> Array:
        """What the layer adds up, int64, computed pixel by pixel; depthwise layers never saturate."""
        saturating = saturating and not self.depthwise
        raw = activations + self.offset
        zero = self.zero_point + self.offset
        weights = self.weights().astype(np.int64)
        if not self.kernel:
            return _products(raw, weights, saturating=saturating) - zero * weights.sum(1)
        pad = self.kernel // 2
        padded = np.pad(raw, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=zero)
        places = range(0, SIDE + 2 * pad - self.kernel + 1, self.stride)
        out = np.zeros((len(raw), self.outputs, len(places), len(places)), np.int64)
        each, share = self.inputs // self.groups, self.outputs // self.groups
        for group in range(self.groups):
            kernels = weights[group * share : (group + 1) * share].transpose(0, 2, 3, 1).reshape(share, -1)
            for y, top in enumerate(places):
                for x, left in enumerate(places):
                    window = padded[:, group * each : (group + 1) * each, top : top + self.kernel]
                    rows = window[..., left : left + self.kernel].transpose(0, 2, 3, 1).reshape(len(raw), -1)
                    sums = _products(rows, kernels, saturating=saturating) - zero * kernels.sum(1)
                    out[:, group * share : (group + 1) * share, y, x] = sums
        return out


def _products(rows: Array, weights: Array, *, saturating: bool) -> Array:
    products = rows[:, None].astype(np.int64) * weights[None]
    if not saturating:
        return products.sum(axis=2)
    products = np.pad(products, ((0, 0), (0, 0), (0, products.shape[2] % 2)))
    return np.clip(products[..., 0::2] + products[..., 1::2], -(2**15), 2**15 - 1).sum(axis=2)


LAYERS = (
    Layer(16, 8, 1),
    Layer(17, 8, 1),
    Layer(16, 8, 3),
    Layer(3, 8, 3, stride=2),
    Layer(5, 7, 3, signed=True),
    Layer(16, 8, 3, signed=True),
    Layer(16, 8, 3, groups=2, stride=2),
    Layer(10, 8, 3, groups=2),
    Layer(16, 16, 3, groups=16),
    Layer(16, 32, 3, groups=16),
    Layer(30, 12, 0),
    Layer(31, 12, 0, signed=True),
)


def model(layers: tuple[Layer, ...] = LAYERS) -> bytes:
    """Return one QDQ graph with an input and an output for each layer; the node is named like the layer."""
    inputs, outputs, nodes, constants = [], [], [], []
    for layer in layers:
        name = layer.name
        shape = [layer.inputs, SIDE, SIDE] if layer.kernel else [layer.inputs]
        kind = np.int8 if layer.signed else np.uint8
        one, zero = np.float32(1), np.zeros(layer.outputs, np.int8)
        for suffix, value in {
            "w": layer.weights(), "ws": np.ones(layer.outputs, np.float32), "wz": zero, "xs": one,
            "xz": np.array(layer.zero_point, kind), "ys": layer.step, "yz": np.array(0 if layer.signed else 128, kind),
        }.items():  # fmt: skip
            constants.append(numpy_helper.from_array(np.asarray(value), f"{name}.{suffix}"))
        nodes += _nodes(layer)
        inputs.append(onnx.helper.make_tensor_value_info(f"{name}.x", TensorProto.FLOAT, ["n", *shape]))
        rank = 4 if layer.kernel else 2
        outputs.append(onnx.helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, ["n", *[None] * (rank - 1)]))
    graph = onnx.helper.make_graph(nodes, "layers", inputs, outputs, constants)
    return onnx.helper.make_model(
        graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)]
    ).SerializeToString()


def prepared(layers: tuple[Layer, ...] = LAYERS) -> bytes:
    """Return a float graph with the same nodes: what the weights are called is all that matters."""
    nodes = [onnx.helper.make_node("Conv", ["x", f"{layer.name}.float"], ["y"], name=layer.name) for layer in layers]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "float", [], [])).SerializeToString()


def samples(count: int, layers: tuple[Layer, ...] = LAYERS) -> list[Sample]:
    """Return samples with an input for each layer."""
    values = {layer.name: (layer.activations(count) - layer.zero_point).astype(np.float32) for layer in layers}
    return [Sample({f"{name}.x": array[index] for name, array in values.items()}, None) for index in range(count)]


def _nodes(layer: Layer) -> list[onnx.NodeProto]:
    make, name = onnx.helper.make_node, layer.name
    pads = [layer.kernel // 2] * 4
    shape = {"kernel_shape": [layer.kernel] * 2, "pads": pads, "strides": [layer.stride] * 2, "group": layer.groups}
    operator, attributes = ("Conv", shape) if layer.kernel else ("Gemm", {"transB": 1})
    return [
        make("QuantizeLinear", [f"{name}.x", f"{name}.xs", f"{name}.xz"], [f"{name}.xq"]),
        make("DequantizeLinear", [f"{name}.xq", f"{name}.xs", f"{name}.xz"], [f"{name}.xd"]),
        make("DequantizeLinear", [f"{name}.w", f"{name}.ws", f"{name}.wz"], [f"{name}.wd"], axis=0),
        make(operator, [f"{name}.xd", f"{name}.wd"], [f"{name}.c"], name=name, **attributes),
        make("QuantizeLinear", [f"{name}.c", f"{name}.ys", f"{name}.yz"], [f"{name}.yq"]),
        make("DequantizeLinear", [f"{name}.yq", f"{name}.ys", f"{name}.yz"], [f"{name}.y"]),
    ]

"""A layer that mixed precision leaves in float is computed in float, exactly as simulated, by ONNX Runtime too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt.graph import prepare
from edgeopt.quantization.float_layers import keep_float
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from tests.optimizer.graphs import convolution_chain
from tests.optimizer.plain_int8 import plain_int8

VALUE = onnx.helper.make_tensor_value_info
TRICKY = np.array([0, -0.1, 3.5, 1e-30, 2.0**-20, 3e38, 1 / 3, 1e-45], np.float32)


def _int8_around(node: str, weights: tuple[int, ...], bias: np.ndarray | None, **attributes: int) -> bytes:
    """Return a float layer between a DequantizeLinear and a QuantizeLinear."""
    random = np.random.default_rng(0)
    constants = {
        "s": np.array(0.05, np.float32),
        "z": np.array(128, np.uint8),
        "w": random.standard_normal(weights).astype(np.float32),
    }
    if bias is not None:
        constants["b"] = bias
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        make("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        make(node, ["xd", "w", *(["b"] if bias is not None else [])], ["c"], name="layer", **attributes),
        make("Clip", ["c", "low"], ["r"]),
        make("QuantizeLinear", ["r", "s", "z"], ["yq"]),
        make("DequantizeLinear", ["yq", "s", "z"], ["y"]),
    ]
    constants["low"] = np.array(-5, np.float32)
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    dims = ["n", 8] if node == "Gemm" else ["n", 8, 6, 6]
    graph = onnx.helper.make_graph(nodes, "layer", [VALUE("x", 1, dims)], [VALUE("y", 1, None)], tensors)
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


LAYERS = {
    "conv": ("Conv", (8, 8, 3, 3), {}),
    "depthwise": ("Conv", (8, 1, 3, 3), {"group": 8}),
    "transposed": ("ConvTranspose", (8, 4, 3, 3), {"group": 2}),
    "gemm": ("Gemm", (8, 8), {}),
    "gemm, weight transposed": ("Gemm", (8, 8), {"transB": 1}),
}


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_kept_layer_computes_what_was_simulated(layer: str, *, biased: bool) -> None:
    """Each kind of layer that ONNX Runtime would quantize by itself, with and without a bias."""
    operator, weights, attributes = LAYERS[layer]
    bias = np.linspace(-1, 1, 8, dtype=np.float32) if biased else None
    model = _int8_around(operator, weights, bias, **attributes)
    random = np.random.default_rng(1)
    shape = (8,) if operator == "Gemm" else (8, 6, 6)
    samples = [Sample({"x": random.standard_normal(shape).astype(np.float32)}, None) for _ in range(8)]
    simulated = OnnxRuntimeSession(model, threads=1, simulated=True).predict(samples)["y"]
    plain = OnnxRuntimeSession(model, threads=1).predict(samples)["y"]
    kept = OnnxRuntimeSession(keep_float(model), threads=1).predict(samples)["y"]
    step = 0.05
    assert 0.001 > np.mean(np.abs(simulated - kept) > step / 2)
    assert 0.02 < np.mean(np.abs(simulated - plain) > step / 2), "ONNX Runtime no longer quantizes by itself?"


def test_a_bias_comes_back_exactly() -> None:
    """Every float32 that matters is a whole number of 24 bits times a power of two."""
    graph = onnx.load_model_from_string(keep_float(_int8_around("Conv", (8, 8, 3, 3), TRICKY))).graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    actual = constants["layer_kept_bias_numbers"] * constants["layer_kept_bias_scale"]
    assert np.array_equal(TRICKY[:-1], actual[:-1])
    assert 1e-38 > abs(actual[-1])
    assert "b" not in constants


def test_a_model_between_two_float_layers_is_left_as_it_is(images: list[Sample]) -> None:
    """Float models, and those quantized throughout, have nothing to protect: the same bytes."""
    model = prepare(convolution_chain(4)).model
    assert model == keep_float(model)
    int8 = plain_int8(model, images)
    assert int8 == keep_float(int8)


def test_only_layers_between_quantized_ones_are_touched(images: list[Sample]) -> None:
    """In an island of two layers neither stands between both; it repeats, and the result is a valid model."""
    model = prepare(convolution_chain(5)).model
    names = [node.name for node in onnx.load_model_from_string(model).graph.node if node.op_type == "Conv"]
    between = plain_int8(model, images, [names[2]])
    kept = keep_float(between)
    assert kept != between
    assert kept == keep_float(between) == keep_float(kept)
    onnx.checker.check_model(onnx.load_model_from_string(kept))
    relu = next(node.name for node in onnx.load_model_from_string(model).graph.node if node.input[0] == "c2")
    island = plain_int8(model, images, [names[2], relu, names[3]])
    assert island == keep_float(island)

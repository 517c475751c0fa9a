"""Rows of a convolution: what ONNX Runtime's Conv multiplies."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from edgeopt.windows import Window, window_rows


@pytest.mark.parametrize(
    ("shape", "kernel", "attributes"),
    [
        ((4, 9, 7), (3, 3), {"pads": [1, 1, 1, 1]}),
        ((4, 9, 7), (3, 3), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
        ((4, 9, 7), (2, 3), {"dilations": [2, 2], "pads": [1, 2, 1, 2]}),
        ((6, 9, 7), (3, 3), {"group": 3, "strides": [2, 2]}),
        ((4, 9, 8), (2, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((4, 9, 8), (2, 2), {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
        ((4, 9, 8), (3, 3), {"auto_pad": "VALID"}),
        ((4, 12), (5,), {"strides": [2], "pads": [2, 1]}),
    ],
)
def test_rows_times_weights_are_the_convolution(
    shape: tuple[int, ...], kernel: tuple[int, ...], attributes: dict[str, object]
) -> None:
    """Pads, strides, dilations, groups and both ways of leaving pads to the runtime."""
    random = np.random.default_rng(0)
    groups = int(attributes.get("group", 1))
    values = random.integers(0, 50, (2, *shape)).astype(np.float32)
    weights = random.integers(-9, 9, (6, shape[0] // groups, *kernel)).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=kernel, **attributes)
    read = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    rows = window_rows(values, Window.of(read, kernel, fill=0), groups, most=10**9)
    parts = np.moveaxis(weights, 1, -1).reshape(groups, 6 // groups, -1)
    actual = np.concatenate([part @ kernels.T for part, kernels in zip(rows, parts, strict=True)], axis=1)
    expected = np.moveaxis(_convolved(node, values, weights), 1, -1).reshape(-1, 6)
    np.testing.assert_array_equal(expected, actual)


def test_few_positions_are_spread_evenly() -> None:
    """A large map is sampled from top to bottom, whatever its size."""
    values = np.arange(64, dtype=np.uint8).reshape(1, 1, 64, 1)
    rows = window_rows(values, Window.of({}, (1, 1), fill=0), 1, most=8)
    assert [0, 8, 16, 24, 32, 40, 48, 56] == rows.ravel().tolist()


def _convolved(node: onnx.NodeProto, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    make = onnx.helper.make_tensor_value_info
    inputs = [make("x", TensorProto.FLOAT, values.shape), make("w", TensorProto.FLOAT, weights.shape)]
    graph = onnx.helper.make_graph([node], "conv", inputs, [make("y", TensorProto.FLOAT, None)])
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values, "w": weights})[0]

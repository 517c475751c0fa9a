"""ONNX graphs made by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def old_convolution(opset: int = 11) -> bytes:
    """Return a convolution as older exporters wrote it: opset 11, the weights in a Constant node."""
    make = onnx.helper.make_tensor_value_info
    weights = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
    weights *= np.logspace(-2, 2, 6, dtype=np.float32)[:, None, None, None]  # channels of very different size
    nodes = [
        onnx.helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights)),
        onnx.helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        onnx.helper.make_node("Relu", ["c"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "old", [make("x", 1, ["n", 3, 8, 8])], [make("y", 1, ["n", 6, 6, 6])])
    model = onnx.helper.make_model(graph, ir_version=6, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return model.SerializeToString()


def convolution_chain(length: int) -> bytes:
    """Return ``length`` convolutions of six channels, every second one depthwise, each but the last with a ReLU."""
    make = onnx.helper.make_tensor_value_info
    random = np.random.default_rng(0)
    nodes, constants, name = [], [], "x"
    for index in range(length):
        depthwise = index % 2 == 1
        shape = (6, 1 if depthwise else (3 if index == 0 else 6), 3, 3)
        weights = random.standard_normal(shape).astype(np.float32) * np.sqrt(2 / np.prod(shape[1:]))
        constants.append(numpy_helper.from_array(weights.astype(np.float32), f"w{index}"))
        attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 6 if depthwise else 1}
        last = index == length - 1
        nodes.append(onnx.helper.make_node("Conv", [name, f"w{index}"], ["y" if last else f"c{index}"], **attributes))
        if not last:
            name = f"r{index}"
            nodes.append(onnx.helper.make_node("Relu", [f"c{index}"], [name]))
    values = [make("x", 1, ["n", 3, 8, 8])], [make("y", 1, ["n", 6, 8, 8])]
    graph = onnx.helper.make_graph(nodes, "chain", *values, constants)
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return model.SerializeToString()

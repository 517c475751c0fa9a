"""ONNX graphs as they occur in the wild, each with the peculiarity that it is named after, and data for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeopt.samples import Sample

FLOAT, BOOL, INT32, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64
Value = tuple[str, int, Sequence[Any]]


def value(name: str, kind: int, shape: Sequence[Any]) -> Any:
    """Return the description of an input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, *shape: int) -> Any:
    """Return random float32 weights, the same for the same name and shape."""
    seed = sum(name.encode()) + int(np.prod(shape))
    weights = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
    return numpy_helper.from_array(weights.astype(np.float32), name)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    initializers: Sequence[Any] = (),
    *,
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> bytes:
    """Return the graph as a file's bytes."""
    graph = helper.make_graph(
        list(nodes), "wild", [value(*one) for one in inputs], [value(*one) for one in outputs], list(initializers)
    )
    opsets = {"": opset, **(domains or {})}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, ir_version=8, opset_imports=imports).SerializeToString()


def pictures(count: int = 24, name: str = "x", side: int = 8) -> list[Sample]:
    """Return random pictures of three channels."""
    random = np.random.default_rng(1)
    return [Sample({name: random.standard_normal((3, side, side)).astype(np.float32)}, None) for _ in range(count)]


def constant(name: str, array: Any) -> Any:
    """Return a Constant node."""
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(array)))


def _branch(name: str, factor: float) -> Any:
    """Return x * factor, with names that the other branch has as well."""
    nodes = [constant("factor", np.float32(factor)), helper.make_node("Mul", ["c", "factor"], ["scaled"])]
    return helper.make_graph(nodes, name, [], [value("scaled", FLOAT, ["n", 6, 6, 6])])


def decided_if(opset: int = 11) -> bytes:
    """Return convolution, If with a constant condition, ReLU, convolution: exporters write it for ``if training``."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", kernel_shape=[3, 3]),
        constant("condition", np.bool_(0)),
        helper.make_node(
            "If", ["condition"], ["i"], "choice", then_branch=_branch("a", 100.0), else_branch=_branch("b", 2.0)
        ),
        helper.make_node("Relu", ["i"], ["r"], "active"),
        helper.make_node("Conv", ["r", "v"], ["y"], "second", kernel_shape=[3, 3]),
    ]
    return model(
        nodes,
        [("x", FLOAT, ["n", 3, 8, 8])],
        [("y", FLOAT, ["n", 4, 4, 4])],
        [tensor("w", 6, 3, 3, 3), tensor("v", 4, 6, 3, 3)],
        opset=opset,
    )


def real_if() -> bytes:
    """Return convolution, an If that looks at the data, ReLU, convolution."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", kernel_shape=[3, 3]),
        helper.make_node("ReduceMean", ["c"], ["mean"], "mean", keepdims=0),
        helper.make_node("Greater", ["mean", "zero"], ["condition"], "question"),
        helper.make_node(
            "If", ["condition"], ["i"], "choice", then_branch=_branch("a", 0.5), else_branch=_branch("b", 2.0)
        ),
        helper.make_node("Relu", ["i"], ["r"], "active"),
        helper.make_node("Conv", ["r", "v"], ["y"], "second", kernel_shape=[3, 3]),
    ]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    return model(
        nodes,
        [("x", FLOAT, [1, 3, 8, 8])],
        [("y", FLOAT, [1, 4, 4, 4])],
        [tensor("w", 6, 3, 3, 3), tensor("v", 4, 6, 3, 3), zero],
    )


def nested_ifs() -> bytes:
    """Return an If in an If, twice, with the same names inside."""
    inner_then = helper.make_graph(
        [helper.make_node("Identity", ["scaled"], ["same"])], "inner_then", [], [value("same", FLOAT, ["n", 4])]
    )
    inner_else = helper.make_graph(
        [helper.make_node("Neg", ["scaled"], ["negative"])], "inner_else", [], [value("negative", FLOAT, ["n", 4])]
    )
    choice = helper.make_node("If", ["inner"], ["chosen"], "choice", then_branch=inner_then, else_branch=inner_else)
    outer = [helper.make_node("Mul", ["x", "two"], ["scaled"], "twice"), choice]
    outer_then = helper.make_graph(outer, "outer_then", [], [value("chosen", FLOAT, ["n", 4])])
    other = [helper.make_node("Mul", ["x", "x"], ["scaled"], "twice")]
    outer_else = helper.make_graph(other, "outer_else", [], [value("scaled", FLOAT, ["n", 4])])
    nodes = [
        helper.make_node("If", ["outer"], ["a"], "choice", then_branch=outer_then, else_branch=outer_else),
        helper.make_node("If", ["outer"], ["b"], "other choice", then_branch=outer_then, else_branch=outer_else),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    constants = {"two": np.float32(2), "outer": np.bool_(1), "inner": np.bool_(1)}
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    return model(nodes, [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 4])], initializers)


def several_outputs() -> bytes:
    """Return a body with two heads, one of which also gives the body's features."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "a"], ["scores"]),
        helper.make_node("Gemm", ["flat", "b"], ["box"]),
    ]
    outputs = [("scores", FLOAT, ["n", 5]), ("box", FLOAT, ["n", 4]), ("features", FLOAT, ["n", 6, 6, 6])]
    return model(
        nodes,
        [("x", FLOAT, ["n", 3, 8, 8])],
        outputs,
        [tensor("w", 6, 3, 3, 3), tensor("a", 6, 5), tensor("b", 6, 4)],
    )


def integer_inputs() -> bytes:
    """Return an embedding of int64 ids, an offset in int32, and a bool mask that picks tokens."""
    nodes = [
        helper.make_node("Cast", ["offset"], ["wide"], to=INT64),
        helper.make_node("Add", ["ids", "wide"], ["shifted"]),
        helper.make_node("Gather", ["table", "shifted"], ["tokens"]),
        helper.make_node("Cast", ["mask"], ["kept"], to=FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["column"]),
        helper.make_node("Mul", ["tokens", "column"], ["masked"]),
        helper.make_node("MatMul", ["masked", "w"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["y"], axes=[1], keepdims=0),
    ]
    last = numpy_helper.from_array(np.array([2]), "last")
    inputs = [("ids", INT64, ["n", 7]), ("offset", INT32, ["n", 1]), ("mask", BOOL, ["n", 7])]
    return model(nodes, inputs, [("y", FLOAT, ["n", 5])], [tensor("table", 50, 16), tensor("w", 16, 5), last])


def integer_data(count: int = 40) -> list[Sample]:
    """Return data for :func:`integer_inputs`."""
    random = np.random.default_rng(2)
    return [
        Sample(
            {
                "ids": random.integers(0, 40, 7),
                "offset": random.integers(0, 10, 1).astype(np.int32),
                "mask": random.random(7) < 0.8,
            },
            None,
        )
        for _ in range(count)
    ]


def prelu(opset: int = 11) -> bytes:
    """Return convolution, PReLU with a slope for each channel, convolution."""
    slope = numpy_helper.from_array(np.linspace(-0.5, 0.9, 6, dtype=np.float32).reshape(6, 1, 1), "slope")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("PRelu", ["c", "slope"], ["p"]),
        helper.make_node("Conv", ["p", "v"], ["y"], kernel_shape=[3, 3]),
    ]
    weights = [tensor("w", 6, 3, 3, 3), tensor("v", 4, 6, 3, 3), slope]
    return model(nodes, [("x", FLOAT, ["n", 3, 8, 8])], [("y", FLOAT, ["n", 4, 4, 4])], weights, opset=opset)


def norm_after_relu() -> bytes:
    """Return convolution, ReLU, BatchNormalization, convolution: the norm must not go into the first convolution."""
    random = np.random.default_rng(5)
    statistics = {
        "gamma": random.uniform(0.5, 2, 6),
        "beta": random.standard_normal(6),
        "mean": random.uniform(0.2, 1, 6),
        "variance": random.uniform(0.1, 2, 6),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("BatchNormalization", ["r", *statistics], ["b"]),
        helper.make_node("Conv", ["b", "v"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),  # padding: zero is no mean
    ]
    initializers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in statistics.items()]
    weights = [tensor("w", 6, 3, 3, 3), tensor("v", 4, 6, 3, 3)]
    return model(
        nodes, [("x", FLOAT, ["n", 3, 8, 8])], [("y", FLOAT, ["n", 4, 6, 6])], [*weights, *initializers], opset=12
    )


def dynamic_axes() -> bytes:
    """Return a fully convolutional net with free batch, height and width."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["s"], kernel_shape=[3, 3]),
        helper.make_node("GlobalAveragePool", ["s"], ["pooled"]),
        helper.make_node("Shape", ["pooled"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "two", "zero"], ["rows"]),
        helper.make_node("Reshape", ["pooled", "rows"], ["y"]),
    ]
    numbers = [numpy_helper.from_array(np.array([number]), name) for name, number in (("zero", 0), ("two", 2))]
    weights = [tensor("w", 6, 3, 3, 3), tensor("v", 4, 6, 3, 3)]
    return model(nodes, [("x", FLOAT, ["n", 3, "h", "w"])], [("y", FLOAT, ["n", 4])], [*weights, *numbers])


def custom_operator() -> bytes:
    """Return a graph with an operator of an extension library."""
    node = helper.make_node("BertTokenizer", ["x"], ["y"], domain="ai.onnx.contrib")
    return model([node], [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 4])], domains={"ai.onnx.contrib": 1})


def local_function() -> bytes:
    """Return a graph whose only operator is a function that the file itself defines."""
    body = [helper.make_node("Mul", ["a", "a"], ["squared"]), helper.make_node("Neg", ["squared"], ["b"])]
    function = helper.make_function("ours", "Negate", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    node = helper.make_node("Negate", ["x"], ["y"], domain="ours")
    proto = onnx.load_model_from_string(
        model([node], [("x", FLOAT, ["n", 4])], [("y", FLOAT, ["n", 4])], domains={"ours": 1})
    )
    proto.functions.append(function)
    return proto.SerializeToString()

"""Small graphs that read sequences, made by hand, and what they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.samples import Sample

_GATES = {"LSTM": 4, "GRU": 3}
_STEPS, _INPUTS = 9, 16
_WORDS, _WIDTH = 64, 32


def graph(
    nodes: Sequence[Any], inputs: dict[str, tuple[int, Sequence[int]]], weights: dict[str, np.ndarray], rank: int = 2
) -> bytes:
    """Return a model with a free batch axis and the output ``y``; ``inputs`` have an ONNX type and a shape."""
    make = onnx.helper.make_tensor_value_info
    y = make("y", onnx.TensorProto.FLOAT, ["n", *[None] * (rank - 1)])
    values = [make(name, kind, ["n", *shape]) for name, (kind, shape) in inputs.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = onnx.helper.make_graph(list(nodes), "sequences", values, [y], constants)
    opsets = [onnx.helper.make_opsetid("", 17)]
    data: bytes = onnx.helper.make_model(made, ir_version=9, opset_imports=opsets).SerializeToString()
    return data


def recurrent(operator: str, *, hidden: int = 48, directions: int = 1) -> bytes:
    """Return an LSTM or GRU that gives all its states: float32 n x 9 x 16 to n x 9 x directions x hidden."""
    random = np.random.default_rng(0)
    rows = _GATES[operator] * hidden
    shapes = {"w": (directions, rows, _INPUTS), "r": (directions, rows, hidden), "b": (directions, 2 * rows)}
    weights = {name: random.normal(0, hidden**-0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    make = onnx.helper.make_node
    direction = "forward" if directions == 1 else "bidirectional"
    nodes = [
        make("Transpose", ["input"], ["t"], "to_steps", perm=[1, 0, 2]),
        make(operator, ["t", "w", "r", "b"], ["s"], "recurrent", hidden_size=hidden, direction=direction),
        make("Transpose", ["s"], ["y"], "to_batch", perm=[2, 0, 1, 3]),
    ]
    return graph(nodes, {"input": (onnx.TensorProto.FLOAT, [_STEPS, _INPUTS])}, weights, rank=4)


def embedding(*, tied: bool = False, then_product: bool = False) -> bytes:
    """Return an embedding: int64 n x 9 to n x 9 x 32.

    ``tied``: its mean times its own table, n x 64. ``then_product``: times another weight, n x 9 x 32.
    """
    random = np.random.default_rng(0)
    weights = {"table": random.standard_normal((_WORDS, _WIDTH)).astype(np.float32)}
    make = onnx.helper.make_node
    nodes = [make("Gather", ["table", "input"], ["g" if tied or then_product else "y"], "look_up")]
    if tied:
        nodes.append(make("ReduceMean", ["g"], ["m"], "mean", axes=[1], keepdims=0))
        nodes.append(make("Gemm", ["m", "table"], ["y"], "classify", transB=1))
    if then_product:
        weights["w"] = random.standard_normal((_WIDTH, _WIDTH)).astype(np.float32)
        nodes.append(make("MatMul", ["g", "w"], ["y"], "product"))
    return graph(nodes, {"input": (onnx.TensorProto.INT64, [_STEPS])}, weights, 2 if tied else 3)


def sequences(count: int = 32) -> list[Sample]:
    """Return random sequences of 9 steps with 16 numbers each."""
    random = np.random.default_rng(1)
    return [Sample({"input": random.standard_normal((_STEPS, _INPUTS)).astype(np.float32)}, None) for _ in range(count)]


def tokens(count: int = 32) -> list[Sample]:
    """Return random sequences of 9 token ids below 64."""
    random = np.random.default_rng(2)
    return [Sample({"input": random.integers(0, _WORDS, _STEPS)}, None) for _ in range(count)]

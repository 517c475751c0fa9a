"""Constants and decided If nodes go; what the model computes stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeopt.folding import inline_decided, lift_constants
from edgeopt.nodes import all_nodes, name_nodes
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from tests.optimizer.wild_graphs import FLOAT, constant, decided_if, model, nested_ifs, pictures, real_if

ROWS = [Sample({"x": np.arange(-2, 2, dtype=np.float32) * number}, None) for number in range(1, 6)]


def _outputs(data: bytes, samples: list[Sample]) -> list[np.ndarray]:
    return list(OnnxRuntimeSession(data, threads=1).predict(samples).values())


def test_constants_become_initializers_of_every_kind() -> None:
    """Tensors, numbers and lists of them; a constant that is an output is still computed by a node."""
    nodes = [
        constant("tensor", np.float32([1, 2, 3, 4])),
        helper.make_node("Constant", [], ["number"], value_float=0.5),
        helper.make_node("Constant", [], ["numbers"], value_floats=[4.0, 3.0, 2.0, 1.0]),
        helper.make_node("Constant", [], ["shape"], value_ints=[1, 4]),
        helper.make_node("Mul", ["x", "number"], ["half"]),
        helper.make_node("Sum", ["half", "tensor", "numbers"], ["sum"]),
        helper.make_node("Reshape", ["sum", "shape"], ["y"]),
        constant("z", np.float32([[7]])),
    ]
    original = model(nodes, [("x", FLOAT, [1, 4])], [("y", FLOAT, [1, 4]), ("z", FLOAT, [1, 1])])
    changed = onnx.load_model_from_string(original)
    lift_constants(changed)
    assert ["Mul", "Sum", "Reshape", "Identity"] == [node.op_type for node in changed.graph.node]
    onnx.checker.check_model(changed, full_check=True)
    for expected, actual in zip(_outputs(original, ROWS), _outputs(changed.SerializeToString(), ROWS), strict=True):
        assert np.array_equal(expected, actual)


def test_a_decided_if_is_replaced_by_the_branch_that_is_taken() -> None:
    """Its constants become visible, and the answers stay the same bits."""
    changed = onnx.load_model_from_string(decided_if())
    lift_constants(changed)
    assert 1 == inline_decided(changed)
    onnx.checker.check_model(changed, full_check=True)
    assert "If" not in {node.op_type for node in all_nodes(changed.graph)}
    (expected,), (actual,) = _outputs(decided_if(), pictures()), _outputs(changed.SerializeToString(), pictures())
    assert np.array_equal(expected, actual)


def test_nested_ifs_with_the_same_names_inside() -> None:
    """Two Ifs with equal branches, and branches in branches, keep apart what they call alike."""
    changed = onnx.load_model_from_string(nested_ifs())
    name_nodes(changed)  # or two nodes that come from different branches have one name, which ONNX Runtime refuses
    assert 2 == inline_decided(changed)
    assert 2 == inline_decided(changed)  # the inner ones, which stood in the branches
    assert 0 == inline_decided(changed)
    onnx.checker.check_model(changed, full_check=True)
    (expected,), (actual,) = _outputs(nested_ifs(), ROWS), _outputs(changed.SerializeToString(), ROWS)
    assert np.array_equal(expected, actual)
    assert np.array_equal(4 * ROWS[0].inputs["x"], actual[0])


@pytest.mark.parametrize("taken", [True, False])
def test_a_condition_that_an_input_can_change_is_not_decided(*, taken: bool) -> None:
    """An initializer that is an input as well is a default, which whoever runs the model may replace."""
    changed = onnx.load_model_from_string(nested_ifs())
    changed.graph.input.append(helper.make_tensor_value_info("outer", onnx.TensorProto.BOOL, []))
    changed.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.asarray(taken), "outer"))
    assert 0 == inline_decided(changed)
    assert 0 == inline_decided(onnx.load_model_from_string(real_if()))

"""Graphs are read as they are: every node, its name, what it reads, and what it is set to."""

from __future__ import annotations

import onnx
import pytest

from edgeopt.nodes import all_nodes, attributes, name_nodes, parsed, reads
from edgeopt_contract.errors import ModelError
from tests.optimizer.graphs import convolution_chain
from tests.optimizer.wild_graphs import nested_ifs, real_if


def test_every_node_has_a_name_of_its_own() -> None:
    """Given names stay with the first that has them; nodes in branches count as well; names repeat."""
    changed = onnx.load_model_from_string(nested_ifs())
    name_nodes(changed)
    names = [node.name for node in all_nodes(changed.graph)]
    assert len(names) == len(set(names))
    assert {"choice", "other choice", "twice", "Add/y", "Mul/scaled"} <= set(names)
    again = onnx.load_model_from_string(nested_ifs())
    name_nodes(again)
    assert changed == again
    name_nodes(again)
    assert changed == again


def test_new_names_avoid_those_that_are_there() -> None:
    """A given name stays, even where it is the one that another node would have got."""
    model = parsed(convolution_chain(3))
    model.graph.node[0].name = "Relu/r0"
    names = [node.name for node in name_nodes(model).graph.node]
    assert ["Relu/r0", "Relu/r0/1", "Conv/c1"] == names[:3]
    assert len(names) == len(set(names))


def test_a_node_reads_what_the_graphs_inside_it_read() -> None:
    """An If that looks at an outer tensor only in a branch is its reader all the same."""
    (choice,) = [node for node in parsed(real_if()).graph.node if node.op_type == "If"]
    inside = {name for branch in attributes(choice).values() for node in all_nodes(branch) for name in node.input}
    assert inside
    assert {*choice.input, *inside} == set(reads(choice))


def test_attributes_by_name() -> None:
    """Numbers are numbers, lists are lists."""
    depthwise = parsed(convolution_chain(2)).graph.node[2]
    assert {"group": 6, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]} == attributes(depthwise)


def test_what_is_no_model_is_refused_in_one_line() -> None:
    """Protobuf's own error is not the user's affair."""
    with pytest.raises(ModelError, match=r"^not a valid ONNX model: [^\n]+$"):
        parsed(b"rubbish")

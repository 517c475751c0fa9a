"""The profiler's kernels come back to the nodes of the float graph, fused, renamed and inserted ones too."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeopt.graph import prepare
from edgeopt.models import TorchModel
from edgeopt.nodes import name_nodes
from edgeopt.quantization.float_layers import keep_float
from edgeopt.quantization.islands import islands
from edgeopt.quantization.kernels import dataflow, measure_nodes, saved_ms
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError
from tests.optimizer.edgeopt_zoo import pictures
from tests.optimizer.graphs import convolution_chain
from tests.optimizer.plain_int8 import plain_int8


def _nodes(model: bytes) -> dict[str, str]:
    graph = name_nodes(onnx.load_model_from_string(model)).graph
    return {node.name: node.op_type for node in graph.node}


def test_every_convolution_is_found_again_in_both_forms(images: list[Sample]) -> None:
    """Fused with its ReLU, renamed by the layout's transformer, or as QLinearConv: it is the float graph's node."""
    model = prepare(convolution_chain(6)).model
    nodes = _nodes(model)
    before, after = measure_nodes(model, (model, plain_int8(model, images)), images, runs=4)
    convolutions = {name for name, operator in nodes.items() if operator == "Conv"}
    assert 6 == len(convolutions)
    assert convolutions <= set(before)
    assert convolutions <= set(after)
    assert convolutions == {name for name, time in after.items() if time.integer}
    assert not any(time.integer for time in before.values())
    assert {*before, *after} <= set(nodes)


def test_conversions_count_for_the_node_that_needs_them(images: list[Sample]) -> None:
    """The model's input is quantized for the first convolution, its output dequantized for the last."""
    model = prepare(convolution_chain(3)).model
    names = list(_nodes(model))
    (after,) = measure_nodes(model, (plain_int8(model, images),), images, runs=4)
    assert 3 * 8 * 8 == after[names[0]].conversions[0][0]
    assert 6 * 8 * 8 == after[names[-1]].conversions[-1][0]
    assert after[names[0]].total_us == after[names[0]].kernel_us + after[names[0]].conversion_us


def test_a_node_left_in_float_is_not_an_integer_kernel(images: list[Sample]) -> None:
    """What the recipe leaves in float runs in float, and its times say so."""
    model = prepare(convolution_chain(3)).model
    names = [name for name, operator in _nodes(model).items() if operator == "Conv"]
    int8 = keep_float(plain_int8(model, images, [names[1]]))
    (after,) = measure_nodes(model, (int8,), images, runs=4)
    assert [True, False, True] == [after[name].integer for name in names]


def test_savings_are_the_difference_of_both_and_cover_every_node(images: list[Sample]) -> None:
    """One model against itself saves about nothing: each node's saving is less than the node takes."""
    model = prepare(convolution_chain(6)).model
    (times,) = measure_nodes(model, (model,), images, runs=4)
    saved = saved_ms(model, plain_int8(model, images), images, runs=4)
    assert set(times) <= set(saved)
    assert all(np.isfinite(list(saved.values())))


def _unnamed(model: bytes) -> bytes:
    graph = onnx.load_model_from_string(model)
    for node in graph.graph.node[1::2]:
        node.name = ""
    return bytes(graph.SerializeToString())


def test_graphs_from_torch_with_unnamed_nodes_are_followed() -> None:
    """Exporters inline functions whose nodes have no names; they get the names that the quantizer gives them."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    ).eval()
    samples = [Sample({"input": picture}, None) for picture in pictures()[0][:16]]
    model = prepare(TorchModel(network).to_onnx(samples[0])).model
    model = _unnamed(model)
    before, after = measure_nodes(model, (model, plain_int8(model, samples)), samples, runs=4)
    assert {"Conv", "Gemm"} <= {_nodes(model)[name] for name in before}
    assert "HardSigmoid" in {_nodes(model)[name] for name in after}


def test_the_data_flow_has_each_tensor_with_its_readers_and_size(images: list[Sample]) -> None:
    """From the world into the first layer, from node to node, and out of the last; weights do not flow."""
    model = prepare(convolution_chain(2)).model
    first, relu, last = _nodes(model)
    expected = [(None, (first,), 192), (first, (relu,), 384), (relu, (last,), 384), (last, (None,), 384)]
    actual = [(link.producer, link.consumers, link.elements) for link in dataflow(model, images[0])]
    assert expected == actual


def test_an_if_counts_with_what_is_inside_it() -> None:
    """The nodes of its branches are not the main graph's; its own time contains theirs."""
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    branches = [
        onnx.helper.make_graph(
            [make(operator, ["x"], [f"{operator}d"])], operator, [], [value(f"{operator}d", 1, None)]
        )
        for operator in ("Exp", "Neg")
    ]
    nodes = [
        make("ReduceSum", ["x"], ["sum"], name="sum", keepdims=0),
        make("Greater", ["sum", "zero"], ["positive"], name="compare"),
        make("If", ["positive"], ["y"], name="choose", then_branch=branches[0], else_branch=branches[1]),
    ]
    zero = onnx.numpy_helper.from_array(np.array(0, np.float32), "zero")
    graph = onnx.helper.make_graph(nodes, "if", [value("x", 1, [1, 64])], [value("y", 1, [1, 64])], [zero])
    built = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model = bytes(built.SerializeToString())
    (times,) = measure_nodes(model, (model,), [Sample({"x": np.ones(64, np.float32)}, None)], runs=4)
    assert {"sum", "compare", "choose"} == set(times)


def test_costly_islands_are_nodes_of_the_float_graph(images: list[Sample]) -> None:
    """Whatever this machine finds dear can be left in float by name; quantizing it all away leaves no island."""
    model = prepare(convolution_chain(4)).model
    links = dataflow(model, images[0])
    before, after = measure_nodes(model, (model, plain_int8(model, images)), images, runs=8)
    assert {name for island in islands(before, after, links) for name in island} <= set(_nodes(model))
    assert () == islands(before, before, links)


def test_what_cannot_be_loaded_or_run_is_said(images: list[Sample]) -> None:
    """A broken model and data that do not fit are errors of the model."""
    model = prepare(convolution_chain(1)).model
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        measure_nodes(model, (b"rubbish",), images)
    with pytest.raises(ModelError, match="failed on the data"):
        measure_nodes(model, (model,), [Sample({"z": np.zeros(3, np.float32)}, None)])

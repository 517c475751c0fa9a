"""Convolutions along one dimension become two-dimensional ones, and compute what they did."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.graph import op_types
from edgeopt.planar import has_lines, planar
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError
from tests.optimizer.quantization.rung_models import he, network
from tests.optimizer.wild_graphs import real_if

CHANNELS, LENGTH = 6, 24
SOUND = f"float[n,{CHANNELS},{LENGTH}] x"
SAMPLES = [Sample({"x": row}, None) for row in np.random.default_rng(0).normal(size=(3, CHANNELS, LENGTH)).astype("f4")]
CONV = "Conv<kernel_shape = [3], pads = [1, 1]>"
# Each keeps (channels, length) or changes the length alone, which is what the next one takes; {x} is its input.
STEPS = {
    "dilated": "{y} = Conv<dilations = [2], pads = [2, 2]>({x}, {w})",
    "strided": "{y} = Conv<strides = [2], pads = [2, 0]>({x}, {w}, b)",
    "depthwise": f'{{y}} = Conv<group = {CHANNELS}, auto_pad = "SAME_UPPER">({{x}}, {{d}})',
    "relu": "{y} = Relu({x})",
    "clip": "{y} = Clip({x}, low, high)",
    "normal": "{y} = BatchNormalization({x}, ones, b, b, ones)",
    "number": "{y} = Mul(half, {x})",
    "channels": "{y} = Mul({x}, by_channel)",
    "residual": "{y}a = Sigmoid({x}) {y} = Add({y}a, {x})",
    "max": "{y} = MaxPool<kernel_shape = [2], pads = [0, 1]>({x})",
    "mean": "{y} = AveragePool<kernel_shape = [3], strides = [2], pads = [1, 1], count_include_pad = 1>({x})",
    "joined": "{y}a = Neg({x}) {y}b = Concat<axis = 1>({x}, {y}a) {y} = Conv({y}b, {v})",
    "softmax": "{y} = Softmax<axis = -1>({x})",
    "turned": "{y}a = Transpose<perm = [0, 2, 1]>({x}) {y}b = Relu({y}a) {y} = Transpose<perm = [0, 2, 1]>({y}b)",
    "gated": "{y}a = ReduceMean<axes = [-1]>({x}) {y}b = Sigmoid({y}a) {y} = Mul({x}, {y}b)",
    "pooled": "{y}a = GlobalAveragePool({x}) {y} = Sub({x}, {y}a)",
    "lifted": "{y}a = Unsqueeze({x}, two) {y}b = ReduceMean<axes = [-1, -2]>({y}a) {y}c = Squeeze({y}b, two) "
    "{y} = Add({x}, {y}c)",
    "tall": "{y}a = Unsqueeze({x}, below) {y}b = Tanh({y}a) {y} = Squeeze({y}b, two)",
    "last axis": "{y} = ReduceMax<axes = [-1]>({x})",
}
NUMBERS = {"low": -1.0, "high": 1.0, "half": [[0.5]]}


def chain(names: list[str], end: str = "y = Identity({x})") -> bytes:
    """Return the steps ``names`` one after the other behind a convolution, on sound."""
    nodes, weights = [f"t0 = {CONV}(x, w0)"], {"w0": he(CHANNELS, CHANNELS, 3)}
    for index, name in enumerate(names):
        own = {key: f"{key}{index + 1}" for key in "wdv"}
        nodes.append(STEPS[name].format(x=f"t{index}", y=f"t{index + 1}", **own))
        shapes = {"w": (CHANNELS, CHANNELS, 3), "d": (CHANNELS, 1, 3), "v": (CHANNELS, 2 * CHANNELS, 1)}
        weights |= {own[key]: he(*shape, seed=index) for key, shape in shapes.items()}
    nodes.append(end.format(x=f"t{len(names)}"))
    weights |= {name: np.array(number) for name, number in NUMBERS.items()}
    weights |= {"b": np.linspace(0, 1, CHANNELS), "ones": np.ones(CHANNELS)}
    weights |= {"by_channel": np.linspace(-1, 1, CHANNELS)[:, None]}
    weights |= {"two": np.array([2]), "below": np.array([-2])}
    text = " ".join(nodes)
    read = {name: array for name, array in weights.items() if name in _words(text)}
    model: bytes = network(text, read, SOUND)
    return model


def _words(text: str) -> set[str]:
    return set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())


def answers(model: bytes) -> np.ndarray:
    """Return the output for the samples, by the kernels that really run."""
    return OnnxRuntimeSession(model, threads=1).predict(SAMPLES)["y"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_computes_the_same(data: st.DataObject) -> None:
    """Whatever stands behind the convolution, drawn from a random subset, and inputs and outputs keep their shapes."""
    kinds = data.draw(st.sets(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5))
    names = data.draw(st.lists(st.sampled_from(sorted(kinds)), max_size=8))
    model = chain(names)
    rewritten = planar(model)
    onnx.checker.check_model(onnx.load_model_from_string(rewritten))
    expected = answers(model)
    actual = answers(rewritten)
    assert expected.shape == actual.shape
    np.testing.assert_allclose(expected, actual, rtol=1e-4, atol=1e-5)
    assert not has_lines(rewritten)


def test_one_step_up_and_one_down_are_enough() -> None:
    """Between the model's input and output no tensor changes its form as long as both forms compute alike."""
    rewritten = planar(chain(["relu", "dilated", "residual", "max", "joined", "number", "depthwise", "clip"]))
    operators = [node.op_type for node in onnx.load_model_from_string(rewritten).graph.node]
    assert (1, 1) == (operators.count("Unsqueeze"), operators.count("Squeeze"))


@pytest.mark.parametrize("name", ["gated", "lifted"])
def test_a_mean_over_the_length_becomes_a_pool(name: str) -> None:
    """With its height or without: the blocked layout has GlobalAveragePool, and no ReduceMean."""
    model = chain([name])
    assert "ReduceMean" in op_types(model)
    operators = op_types(planar(model))
    assert "GlobalAveragePool" in operators
    assert "ReduceMean" not in operators


def test_nodes_and_weights_keep_their_names() -> None:
    """Recipes leave nodes in float, and reduce weights, by these."""
    model = chain(["relu", "dilated"])
    before, after = (onnx.load_model_from_string(one).graph for one in (model, planar(model)))
    assert {node.name for node in before.node} <= {node.name for node in after.node}
    assert {item.name for item in before.initializer} <= {item.name for item in after.initializer}


def test_the_same_model_gives_the_same_bytes() -> None:
    """The variant of a bundle is reproducible."""
    model = chain(["residual", "joined", "softmax"])
    assert planar(model) == planar(model)


def test_a_tensor_may_be_wanted_in_both_forms() -> None:
    """By another convolution, by a node that stays flat, and as an output of the model."""
    end = "u = Softmax<axis = 2>({x}) v = Conv({x}, w0) s = Add(u, {x}) y = Concat<axis = 2>(s, v)"
    model = chain(["relu"], end)
    np.testing.assert_allclose(answers(model), answers(planar(model)), rtol=1e-4, atol=1e-5)


def test_what_has_no_such_convolution_is_refused() -> None:
    """Two dimensions, weights that something else reads too, that are computed, or a graph with branches."""
    shared = network(f"a = {CONV}(x, w) c = Neg(w) y = Mul(a, half)", {"w": he(6, 6, 3), "half": np.array(0.5)}, SOUND)
    shared_model = onnx.load_model_from_string(shared)
    shared_model.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, None))
    computed = network(f"a = Neg(w) y = {CONV}(x, a)", {"w": he(6, 6, 3)}, SOUND)
    flat = network("y = Conv<pads = [1, 1, 1, 1]>(x, w)", {"w": he(4, 3, 3, 3)})
    for model in (flat, shared_model.SerializeToString(), computed, real_if()):
        assert not has_lines(model)
        with pytest.raises(ModelError, match="three axes"):
            planar(model)

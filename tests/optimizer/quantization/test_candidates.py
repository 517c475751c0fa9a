"""What is worth trying first, by network and by kind of CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt.calibration.collection import collect
from edgeopt.data import load_samples
from edgeopt.graph import prepare
from edgeopt.models import load_model
from edgeopt.quantization.candidates import GraphFacts, first_recipes
from edgeopt.quantization.facts import facts_of
from edgeopt.quantization.static import quantize_static
from edgeopt.recipe import Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt.targets import Target, read_target
from tests.optimizer.graphs import convolution_chain
from tests.optimizer.wild_graphs import pictures

DEVICES = Path(__file__).parents[3] / "devices"


def device(name: str) -> Target:
    """Return the profile."""
    return read_target(DEVICES / f"{name}.toml")


def recipes(model: bytes, name: str) -> tuple[Recipe, ...]:
    """Return what is tried on the device called ``name``."""
    return first_recipes(facts_of(model), device(name))


@pytest.mark.parametrize("name", ["x86-vnni", "raspberry-pi-5", "raspberry-pi-3", "x86-atom"])
def test_where_nothing_saturates_nothing_is_spared(name: str) -> None:
    """One recipe, all in eight bits; ARM takes signed activations."""
    (only,) = recipes(convolution_chain(12), name)
    assert ((), ()) == (only.reduced_weights, only.float_nodes)
    assert name.startswith("raspberry") == only.signed_activations


class TestAvx2:
    """x86 without VNNI: pairs of products overflow 16 bits."""

    def test_dense_weights_have_seven_bits_and_depthwise_ones_eight(self) -> None:
        """Every second layer of the chain is depthwise."""
        first, *_ = recipes(convolution_chain(4), "x86-avx2")
        assert ("w0", "w2") == first.reduced_weights
        assert not first.signed_activations

    def test_a_deep_network_may_keep_its_stem_in_float(self) -> None:
        """Three convolutions, with what stands between them; their weights need no reducing."""
        model = convolution_chain(12)
        _, stem, _ = recipes(model, "x86-avx2")
        graph = onnx.load_model_from_string(model).graph
        assert 6 == len(stem.float_nodes)  # each with its ReLU
        assert ("w4", "w6", "w8", "w10") == stem.reduced_weights
        assert len(graph.node) > 6

    def test_of_few_convolutions_three_would_be_most_of_the_work(self) -> None:
        """Only the first and the last layer may stay in float."""
        _, ends = recipes(convolution_chain(4), "x86-avx2")
        assert ("Conv/c0", "Conv/y") == ends.float_nodes
        assert ("w2",) == ends.reduced_weights

    def test_of_two_layers_none_is_spared(self) -> None:
        """Nothing would be left in int8."""
        assert 1 == len(recipes(convolution_chain(2), "x86-avx2"))


def test_fragile_operators_get_a_recipe_for_the_products_alone() -> None:
    """Int8 for softmax and normalization ruins a transformer, on every CPU."""
    facts = GraphFacts(op_types=frozenset({"MatMul", "Softmax"}), convolutions=(), reducible=("w",), layers=())
    for name in ("x86-avx2", "x86-vnni", "raspberry-pi-5"):
        *_, last = first_recipes(facts, device(name))
        assert ("Conv", "ConvTranspose", "Gemm", "MatMul") == last.operators


def weights_of(quantized: bytes) -> list[np.ndarray]:
    """Return the weights of the convolutions, in order, as they stand in the quantized file."""
    graph = onnx.load_model_from_string(quantized).graph
    arrays = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    names = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    return [arrays[source.get(name, name)] for name in names]


@pytest.fixture(scope="module")
def chain() -> tuple[bytes, list[Sample]]:
    """Return twelve convolutions and data for them."""
    return prepare(convolution_chain(12)).model, pictures()


class TestWhatTheyBecome:
    """The recipes, built."""

    def test_a_float_stem(self, chain: tuple[bytes, list[Sample]]) -> None:
        """Exactly the first three are float; then dense weights use seven bits and depthwise ones eight."""
        model, samples = chain
        _, stem, _ = recipes(model, "x86-avx2")
        weights = weights_of(quantize_static(model, stem, collect(model, samples).ranges(stem.calibrator)))
        assert 3 * ["float32"] + 9 * ["int8"] == [array.dtype.name for array in weights]
        greatest = [int(np.abs(array.astype(int)).max()) for array in weights[3:]]
        assert [127 if array.shape[1] == 1 else 64 for array in weights[3:]] == greatest

    @pytest.mark.parametrize("name", ["x86-avx2", "x86-vnni", "raspberry-pi-5"])
    def test_each_computes_what_float_computes(self, chain: tuple[bytes, list[Sample]], name: str) -> None:
        """As the device computes it; where this machine is another, simulated."""
        model, samples = chain
        statistics = collect(model, samples)
        expected = OnnxRuntimeSession(model, threads=1).predict(samples)["y"]
        for recipe in recipes(model, name):
            quantized = quantize_static(model, recipe, statistics.ranges(recipe.calibrator))
            session = OnnxRuntimeSession(quantized, threads=1, simulated=name != "x86-avx2")
            assert np.corrcoef(expected.ravel(), session.predict(samples)["y"].ravel())[0, 1] > 0.98

    def test_a_transformer_by_its_matrix_products(self) -> None:
        """Trained on nothing, it still shows what is lost."""
        samples = load_samples("edgeopt_zoo:sequences")
        model = prepare(load_model("edgeopt_zoo:attention").to_onnx(samples[0])).model
        *_, last = recipes(model, "x86-avx2")
        ranges = collect(model, samples[:32]).ranges(last.calibrator)
        outputs = OnnxRuntimeSession(quantize_static(model, last, ranges), threads=1).predict(samples)
        for name, array in OnnxRuntimeSession(model, threads=1).predict(samples).items():
            assert np.corrcoef(array.ravel(), outputs[name].ravel())[0, 1] > 0.98

"""Quantizing: number types, what is worth trying, and what stays in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt import quantizer
from edgeopt.data import load_samples
from edgeopt.graph import op_types, prepare
from edgeopt.models import load_model
from edgeopt.quantizer import Calibrator, Candidate, candidates_for, quantize, scheme_for
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt.targets import read_target
from tests.optimizer.graphs import convolution_chain, old_convolution

DEVICES = Path(__file__).parents[2] / "devices"
MINMAX = Candidate(calibrator=Calibrator.MINMAX)
SPARING = Candidate(calibrator=Calibrator.MINMAX, full_range_depthwise=True, float_stem=3)
AVX2 = scheme_for(read_target(DEVICES / "x86-avx2.toml"))
VNNI = scheme_for(read_target(DEVICES / "x86-vnni.toml"))


@pytest.mark.parametrize(
    ("profile", "activations", "greatest_weight"),
    [("x86-avx2", "UINT8", 64), ("x86-vnni", "UINT8", 127), ("raspberry-pi-5", "INT8", 127)],
)
def test_number_types_in_the_file(images: list[Sample], profile: str, activations: str, greatest_weight: int) -> None:
    """Unsigned activations on x86, signed on ARM; 7-bit weights where products would saturate."""
    scheme = scheme_for(read_target(DEVICES / f"{profile}.toml"))
    graph = onnx.load_model_from_string(quantize(prepare(old_convolution()).model, MINMAX, scheme, images)).graph
    arrays = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}
    points = {arrays[n.input[2]].dtype.name.upper() for n in graph.node if n.op_type == "QuantizeLinear"}
    assert {activations} == points
    (weights,) = (array for array in arrays.values() if array.shape == (6, 3, 3, 3))
    assert np.int8 == weights.dtype
    assert greatest_weight == np.abs(weights.astype(int)).max()


def test_quantizing_twice_gives_the_same_bytes_and_says_nothing(
    images: list[Sample], capfd: pytest.CaptureFixture[str]
) -> None:
    """The variant of a bundle is reproducible, with each calibrator."""
    model = prepare(old_convolution()).model
    for candidate in candidates_for(model, AVX2, images):
        assert quantize(model, candidate, AVX2, images) == quantize(model, candidate, AVX2, images)
    assert ("", "") == tuple(capfd.readouterr())


class TestCandidates:
    """What is worth trying."""

    def test_a_small_convolution_tries_both_calibrators(self, images: list[Sample]) -> None:
        """Histograms are affordable here."""
        names = [candidate.name for candidate in candidates_for(prepare(old_convolution()).model, AVX2, images)]
        assert ["minmax", "percentile"] == names

    def test_histograms_are_left_out_when_they_would_fill_the_memory(
        self, images: list[Sample], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ONNX Runtime keeps every activation of every sample for them."""
        monkeypatch.setattr(quantizer, "_PERCENTILE_BYTES", 1000)
        assert (MINMAX,) == candidates_for(prepare(old_convolution()).model, AVX2, images)

    def test_a_transformer_tries_its_matrix_products_alone(self) -> None:
        """Int8 for softmax and normalization ruins it."""
        samples = load_samples("edgeopt_zoo:sequences")
        model = prepare(load_model("edgeopt_zoo:attention").to_onnx(samples[0])).model
        assert "Softmax" in op_types(model)
        *_, last = candidates_for(model, AVX2, samples)
        assert "minmax, matrix products only" == last.name
        outputs = OnnxRuntimeSession(quantize(model, last, AVX2, samples[:32]), threads=1).predict(samples)
        expected = OnnxRuntimeSession(model, threads=1).predict(samples)
        for name, array in expected.items():
            assert np.corrcoef(array.ravel(), outputs[name].ravel())[0, 1] > 0.98

    def test_where_weights_have_seven_bits_some_are_spared(self, images: list[Sample]) -> None:
        """Depthwise weights may keep eight bits, and the first convolutions of a deep network may stay in float."""
        model = prepare(convolution_chain(12)).model
        names = [candidate.name for candidate in candidates_for(model, AVX2, images)]
        assert "minmax, 8-bit depthwise" in names
        assert "minmax, 8-bit depthwise, first 3 convolutions in float" in names

    def test_a_shallow_network_keeps_no_float_stem(self, images: list[Sample]) -> None:
        """Three of few convolutions would be most of the work."""
        names = [candidate.name for candidate in candidates_for(prepare(convolution_chain(4)).model, AVX2, images)]
        assert [] == [name for name in names if "float" in name]

    def test_with_vnni_nothing_needs_to_be_spared(self, images: list[Sample]) -> None:
        """All weights have eight bits there."""
        names = [candidate.name for candidate in candidates_for(prepare(convolution_chain(12)).model, VNNI, images)]
        assert [] == [name for name in names if "depthwise" in name or "float" in name]


def test_simulation_computes_what_a_cpu_without_saturation_does(images: list[Sample]) -> None:
    """A full-range u8s8 model, simulated, stays close to float also on a machine whose kernels would saturate."""
    model = prepare(old_convolution()).model
    quantized = quantize(model, MINMAX, scheme_for(read_target(DEVICES / "x86-vnni.toml")), images)
    expected = OnnxRuntimeSession(model, threads=1).predict(images)["y"]
    simulated = OnnxRuntimeSession(quantized, threads=1, simulated=True).predict(images)["y"]
    assert np.abs(expected - simulated).mean() < 0.02 * expected.std()


class TestSparing:
    """What a candidate with 8-bit depthwise weights and a float stem becomes."""

    @pytest.fixture
    def weights(self, images: list[Sample]) -> list[np.ndarray]:
        """Return the weights of the convolutions, in order, as they stand in the quantized file."""
        graph = onnx.load_model_from_string(quantize(prepare(convolution_chain(12)).model, SPARING, AVX2, images)).graph
        arrays = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}
        source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        names = [node.input[1] for node in graph.node if node.op_type == "Conv"]
        return [arrays[source.get(name, name)] for name in names]

    def test_the_stem_is_float_and_the_rest_int8(self, weights: list[np.ndarray]) -> None:
        """Exactly the first three."""
        assert 3 * ["float32"] + 9 * ["int8"] == [array.dtype.name for array in weights]

    def test_depthwise_weights_use_eight_bits_and_dense_ones_seven(self, weights: list[np.ndarray]) -> None:
        """The dense kernels saturate without VNNI, the depthwise ones do not."""
        greatest = [int(np.abs(array.astype(int)).max()) for array in weights[3:]]
        assert [array.shape[1] for array in weights[3:]] == [1 if most == 127 else 6 for most in greatest]
        assert {64, 127} == set(greatest)

    def test_it_computes_what_float_computes(self, images: list[Sample]) -> None:
        """Sparing is still quantizing right."""
        model = prepare(convolution_chain(12)).model
        expected = OnnxRuntimeSession(model, threads=1).predict(images)["y"]
        actual = OnnxRuntimeSession(quantize(model, SPARING, AVX2, images), threads=1).predict(images)["y"]
        assert np.corrcoef(expected.ravel(), actual.ravel())[0, 1] > 0.98

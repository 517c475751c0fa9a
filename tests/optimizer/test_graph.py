"""Preparing graphs, and quantizing what was prepared."""

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
from edgeopt.runtime import Session
from edgeopt.samples import Sample
from edgeopt.targets import read_target
from edgeopt_contract.errors import ModelError

DEVICES = Path(__file__).parents[2] / "devices"
MINMAX = Candidate(calibrator=Calibrator.MINMAX)


def _old_convolution(opset: int = 11) -> bytes:
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


@pytest.fixture(scope="module")
def images() -> list[Sample]:
    """Random pictures of three channels."""
    random = np.random.default_rng(1)
    return [Sample({"x": random.standard_normal((3, 8, 8)).astype(np.float32)}, None) for _ in range(24)]


def test_an_old_graph_is_upgraded_and_quantized_per_channel(images: list[Sample]) -> None:
    """Per-channel scales are invalid before opset 13; after the upgrade the int8 model runs and is right."""
    prepared = prepare(_old_convolution())
    assert onnx.load_model_from_string(prepared.model).opset_import[0].version >= 13
    expected = Session(_old_convolution(), threads=1).predict(images)["y"]
    assert np.allclose(expected, Session(prepared.model, threads=1).predict(images)["y"], atol=1e-4)
    scheme = scheme_for(read_target(DEVICES / "x86-avx2.toml"))
    model = quantize(prepared.model, MINMAX, scheme, images)
    onnx.checker.check_model(onnx.load_model_from_string(model))
    scales = [
        i for i in onnx.load_model_from_string(model).graph.initializer if i.name.startswith("w") and "scale" in i.name
    ]
    assert [6] == [numpy_helper.to_array(scale).size for scale in scales]
    actual = Session(model, threads=1).predict(images)["y"]
    assert np.corrcoef(expected.ravel(), actual.ravel())[0, 1] > 0.999


def test_nothing_of_this_machine_stays_in_the_file() -> None:
    """Exporters leave stack traces with paths; equal graphs must give equal bytes on any machine."""
    exported = load_model("edgeopt_zoo:attention").to_onnx(load_samples("edgeopt_zoo:sequences")[0])
    assert b"edgeopt_zoo.py" in exported
    prepared = prepare(exported).model
    assert b"edgeopt_zoo" not in prepared
    model = onnx.load_model_from_string(prepared)
    assert model.ir_version <= 10
    assert {""} == {opset.domain for opset in model.opset_import}
    assert prepared == prepare(exported).model


def test_what_is_no_model_or_too_new_is_refused() -> None:
    """One sentence each."""
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        prepare(b"rubbish")
    with pytest.raises(ModelError, match="uses opset 22, and devices read up to 21"):
        prepare(_old_convolution(22))


@pytest.mark.parametrize(
    ("profile", "activations", "greatest_weight"),
    [("x86-avx2", "UINT8", 64), ("x86-vnni", "UINT8", 127), ("raspberry-pi-5", "INT8", 127)],
)
def test_number_types_in_the_file(images: list[Sample], profile: str, activations: str, greatest_weight: int) -> None:
    """Unsigned activations on x86, signed on ARM; 7-bit weights where products would saturate."""
    scheme = scheme_for(read_target(DEVICES / f"{profile}.toml"))
    graph = onnx.load_model_from_string(quantize(prepare(_old_convolution()).model, MINMAX, scheme, images)).graph
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
    model = prepare(_old_convolution()).model
    scheme = scheme_for(read_target(DEVICES / "x86-avx2.toml"))
    for candidate in candidates_for(model, images):
        assert quantize(model, candidate, scheme, images) == quantize(model, candidate, scheme, images)
    assert ("", "") == tuple(capfd.readouterr())


class TestCandidates:
    """What is worth trying."""

    def test_a_small_convolution_tries_both_calibrators(self, images: list[Sample]) -> None:
        """Histograms are affordable here."""
        names = [candidate.name for candidate in candidates_for(prepare(_old_convolution()).model, images)]
        assert ["minmax", "percentile"] == names

    def test_histograms_are_left_out_when_they_would_fill_the_memory(
        self, images: list[Sample], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ONNX Runtime keeps every activation of every sample for them."""
        monkeypatch.setattr(quantizer, "_PERCENTILE_BYTES", 1000)
        assert (MINMAX,) == candidates_for(prepare(_old_convolution()).model, images)

    def test_a_transformer_tries_its_matrix_products_alone(self) -> None:
        """Int8 for softmax and normalization ruins it."""
        samples = load_samples("edgeopt_zoo:sequences")
        model = prepare(load_model("edgeopt_zoo:attention").to_onnx(samples[0])).model
        assert "Softmax" in op_types(model)
        *_, last = candidates_for(model, samples)
        assert "minmax, matrix products only" == last.name
        scheme = scheme_for(read_target(DEVICES / "x86-avx2.toml"))
        outputs = Session(quantize(model, last, scheme, samples[:32]), threads=1).predict(samples)
        expected = Session(model, threads=1).predict(samples)
        for name, array in expected.items():
            assert np.corrcoef(array.ravel(), outputs[name].ravel())[0, 1] > 0.98


def test_simulation_computes_what_a_cpu_without_saturation_does(images: list[Sample]) -> None:
    """A full-range u8s8 model, simulated, stays close to float also on a machine whose kernels would saturate."""
    model = prepare(_old_convolution()).model
    quantized = quantize(model, MINMAX, scheme_for(read_target(DEVICES / "x86-vnni.toml")), images)
    expected = Session(model, threads=1).predict(images)["y"]
    simulated = Session(quantized, threads=1, simulated=True).predict(images)["y"]
    assert np.abs(expected - simulated).mean() < 0.02 * expected.std()

"""Preparing graphs for quantization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt.data import load_samples
from edgeopt.graph import prepare
from edgeopt.models import load_model
from edgeopt.quantizer import Calibrator, Candidate, quantize, scheme_for
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt.targets import read_target
from edgeopt_contract.errors import ModelError
from tests.optimizer.graphs import old_convolution

DEVICES = Path(__file__).parents[2] / "devices"
MINMAX = Candidate(calibrator=Calibrator.MINMAX)


def test_an_old_graph_is_upgraded_and_quantized_per_channel(images: list[Sample]) -> None:
    """Per-channel scales are invalid before opset 13; after the upgrade the int8 model runs and is right."""
    prepared = prepare(old_convolution())
    assert onnx.load_model_from_string(prepared.model).opset_import[0].version >= 13
    expected = OnnxRuntimeSession(old_convolution(), threads=1).predict(images)["y"]
    assert np.allclose(expected, OnnxRuntimeSession(prepared.model, threads=1).predict(images)["y"], atol=1e-4)
    scheme = scheme_for(read_target(DEVICES / "x86-avx2.toml"))
    model = quantize(prepared.model, MINMAX, scheme, images)
    onnx.checker.check_model(onnx.load_model_from_string(model))
    scales = [
        i for i in onnx.load_model_from_string(model).graph.initializer if i.name.startswith("w") and "scale" in i.name
    ]
    assert [6] == [numpy_helper.to_array(scale).size for scale in scales]
    actual = OnnxRuntimeSession(model, threads=1).predict(images)["y"]
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
        prepare(old_convolution(22))

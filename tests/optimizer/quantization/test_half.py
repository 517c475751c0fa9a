"""Sixteen-bit floats, and what ONNX Runtime cannot do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgeopt.quantization.half import to_half
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from tests.optimizer.sequence_graphs import recurrent, sequences


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_it_halves_the_file_and_keeps_the_answers(operator: str) -> None:
    """Half the bytes, float32 outside, states that differ in the fourth digit."""
    model = recurrent(operator)
    expected = OnnxRuntimeSession(model, threads=1).predict(sequences())["y"]
    small = to_half(model)
    assert len(small) < 0.55 * len(model)
    actual = OnnxRuntimeSession(small, threads=1).predict(sequences())["y"]
    assert np.float32 == actual.dtype
    assert 0 < np.abs(expected - actual).max() < 1e-3


def test_onnxruntime_has_no_bf16_on_cpus() -> None:
    """The day this fails, a newer ONNX Runtime has, and bf16 becomes a precision worth offering."""
    make = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.BFLOAT16
    values = [make("x", kind, [2, 2])], [make("y", kind, [2, 2])]
    product = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "x"], ["y"])], "bf16", *values)
    model = onnx.helper.make_model(product, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def test_converting_twice_gives_the_same_bytes_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The variant of a bundle is reproducible."""
    model = recurrent("LSTM")
    assert to_half(model) == to_half(model)
    assert ("", "") == tuple(capfd.readouterr())

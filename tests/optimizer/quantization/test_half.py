"""Sixteen-bit floats: computed in, stored in, and what ONNX Runtime cannot do."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgeopt.quantization.half import store_half, to_half
from edgeopt.recipe import Precision
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt_contract.errors import ModelError
from tests.optimizer.sequence_graphs import graph, recurrent, sequences


def halves(model: bytes) -> dict[str, np.ndarray]:
    """Return the fp16 weights of ``model``."""
    constants = onnx.load_model_from_string(model).graph.initializer
    return {one.name: numpy_helper.to_array(one) for one in constants if one.data_type == onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
def test_both_halve_the_file_and_keep_the_answers(operator: str) -> None:
    """Computed or only stored in fp16: half the bytes, float32 outside, states that differ in the fourth digit."""
    model = recurrent(operator)
    expected = OnnxRuntimeSession(model, threads=1).predict(sequences())["y"]
    for small in (to_half(model, Precision.FP16), store_half(model)):
        assert len(small) < 0.55 * len(model)
        actual = OnnxRuntimeSession(small, threads=1).predict(sequences())["y"]
        assert np.float32 == actual.dtype
        assert 0 < np.abs(expected - actual).max() < 1e-3


def test_stored_weights_are_the_nearest_halves_and_the_arithmetic_is_in_float() -> None:
    """Nothing but the weights is rounded: float32 with rounded weights gives the very same answers."""
    model = onnx.load_model_from_string(recurrent("GRU"))
    small = store_half(recurrent("GRU"))
    for weight in model.graph.initializer:
        rounded = numpy_helper.to_array(weight).astype(np.float16)
        np.testing.assert_array_equal(rounded, halves(small)[f"{weight.name}_fp16"])
        weight.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), weight.name))
    expected, actual = (
        OnnxRuntimeSession(one, threads=1).predict(sequences())["y"] for one in (model.SerializeToString(), small)
    )
    np.testing.assert_array_equal(expected, actual)


def test_weights_beyond_half_stay_in_float() -> None:
    """A mask's great numbers would become infinite."""
    weight = np.full((16, 16), 1e6, np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "only")
    with pytest.raises(ModelError, match="no weights to store in fp16"):
        store_half(graph([node], {"x": (onnx.TensorProto.FLOAT, [16])}, {"w": weight}))


def test_bf16_is_refused_because_onnxruntime_cannot_run_it() -> None:
    """The day this fails, a newer ONNX Runtime has bf16 kernels for CPUs, and the refusal may go."""
    make = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.BFLOAT16
    values = [make("x", kind, [2, 2])], [make("y", kind, [2, 2])]
    product = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "x"], ["y"])], "bf16", *values)
    model = onnx.helper.make_model(product, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 18)])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="cannot compute in bf16: expected fp16"):
        to_half(model.SerializeToString(), Precision.BF16)


def test_converting_twice_gives_the_same_bytes_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The variant of a bundle is reproducible."""
    model = recurrent("LSTM")
    assert to_half(model, Precision.FP16) == to_half(model, Precision.FP16)
    assert store_half(model) == store_half(model)
    assert ("", "") == tuple(capfd.readouterr())

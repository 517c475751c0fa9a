"""OpenVINO computes in the precision that is asked for, with free axes besides the batch, and tells nobody."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt.runtimes.openvino import OpenVinoSession
from edgeopt.samples import Sample
from edgeopt_contract.errors import MissingExtraError, ModelError

VALUE = onnx.helper.make_tensor_value_info


def _matmul(*, batch: int | str = "n", free: bool = False) -> bytes:
    """Return tokens (3 or any number of rows of 64) times a matrix, and the tokens themselves, doubled."""
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["product"]),
        onnx.helper.make_node("Add", ["x", "x"], ["double"]),
    ]
    rows = "rows" if free else 3
    graph = onnx.helper.make_graph(
        nodes,
        "matmul",
        [VALUE("x", 1, [batch, rows, 64])],
        [VALUE("product", 1, [batch, rows, 64]), VALUE("double", 1, [batch, rows, 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def _samples(rows: int, count: int = 4) -> list[Sample]:
    random = np.random.default_rng(1)
    return [Sample({"x": random.standard_normal((rows, 64)).astype(np.float32)}, None) for _ in range(count)]


def test_float32_is_computed_whatever_the_cpu_has() -> None:
    """The setting reaches the compiled model: where a server has AMX, OpenVINO alone would choose bfloat16."""
    exact = OpenVinoSession(_matmul(), threads=1)._request.get_compiled_model()
    assert "float32" in str(exact.get_property("INFERENCE_PRECISION_HINT"))
    assert 1 == exact.get_property("INFERENCE_NUM_THREADS")
    assert 1 == exact.get_property("NUM_STREAMS")


def test_a_free_axis_besides_the_batch_stays_free() -> None:
    """Sequences of different lengths run one after another in one session."""
    session = OpenVinoSession(_matmul(free=True), threads=1)
    assert {"x": ("float32", (None, 64))} == session.inputs
    for rows in (3, 7, 3):
        outputs = session.predict(_samples(rows))
        assert (4, rows, 64) == outputs["product"].shape
        expected = 2 * np.stack([sample.inputs["x"] for sample in _samples(rows)])
        assert np.array_equal(expected, outputs["double"])


def test_outputs_have_the_order_of_the_model() -> None:
    """OpenVINO sorts them as it likes."""
    assert ["product", "double"] == list(OpenVinoSession(_matmul(), threads=1).predict(_samples(3)))


@pytest.mark.parametrize("batch", [7, 0])
def test_a_batch_that_is_fixed_at_another_number_is_refused(batch: int) -> None:
    """A device gives one sample at a time."""
    with pytest.raises(ModelError, match="expected a first dimension of 1 or of any length"):
        OpenVinoSession(_matmul(batch=batch), threads=1)


def test_nothing_is_reported_to_anyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading and running make no telemetry object and send no event."""
    import openvino_telemetry

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("telemetry")

    for name in ("__init__", "start_session", "send_event", "send_error", "force_shutdown"):
        monkeypatch.setattr(openvino_telemetry.Telemetry, name, refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    OpenVinoSession(_matmul(), threads=1).predict(_samples(3))


def test_a_missing_openvino_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, no traceback."""
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "openvino":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"edgeopt\[openvino\]"):
        OpenVinoSession(_matmul(), threads=1)

"""Bodies of the V2 protocol, held against NumPy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt_agent.http import open_inference
from edgeopt_agent.http.numbers import BYTES_PER_NUMBER, bytes_of, numbers_of
from edgeopt_agent.http.open_inference import DATATYPES, describe_model, read_question, write_answer
from edgeopt_agent.runner.frames import Tensor
from edgeopt_contract.errors import DataError
from edgeopt_contract.manifest import Manifest, TensorSpec
from tests.tiny import tiny_bundle

NUMPY = [dtype for dtype in DATATYPES if dtype != "bfloat16"]
Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A model with two inputs: ``x`` float32 (2, 3), ``n`` int64 of any length; an output ``p`` (3,)."""
    found = tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").manifest
    specs = (
        TensorSpec(name="x", dtype="float32", shape=(2, 3)),
        TensorSpec(name="n", dtype="int64", shape=(-1,)),
    )
    return with_inputs(found, *specs)


def with_inputs(manifest: Manifest, *specs: TensorSpec) -> Manifest:
    """Return ``manifest`` with other inputs."""
    return replace(manifest, inputs=specs)


def entry(kind: str = "x", /, **change: Any) -> dict[str, Any]:
    """A good entry of the inputs."""
    good = {
        "x": {"name": "x", "shape": [1, 2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]},
        "n": {"name": "n", "shape": [1, 2], "datatype": "INT64", "data": [7, 8]},
    }[kind]
    return {key: value for key, value in (good | change).items() if value is not None}


def body(inputs: Any, **rest: Any) -> memoryview:
    """Return a JSON body."""
    return memoryview(json.dumps({"inputs": inputs, **rest}).encode())


@pytest.mark.parametrize("dtype", NUMPY)
@given(data=st.data())
def test_numbers_are_numpys_bytes(dtype: str, data: st.DataObject) -> None:
    """Every number that a dtype holds goes through bytes and back as NumPy does it."""
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=2)))
    raw = bytes_of(DATATYPES[dtype], array.reshape(-1).tolist())
    expected = array.reshape(-1)
    np.testing.assert_array_equal(expected, np.frombuffer(raw, dtype))
    np.testing.assert_array_equal(expected, np.asarray(numbers_of(DATATYPES[dtype], array.tobytes()), dtype))
    assert array.itemsize == BYTES_PER_NUMBER[DATATYPES[dtype]]


@given(st.lists(st.floats(width=32, allow_nan=False, max_value=2.0**127, min_value=-(2.0**127))))
def test_bfloat16_rounds_to_nearest(values: list[float]) -> None:
    """ml_dtypes is the oracle for both directions."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    expected = np.asarray(values, np.float32).astype(ml_dtypes.bfloat16)
    assert expected.tobytes() == bytes_of("BF16", values)
    np.testing.assert_array_equal(expected.astype(np.float32), numbers_of("BF16", expected.tobytes()))


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("FP32", 1e39), ("FP16", 70000.0), ("INT8", 128), ("UINT8", -1), ("INT64", 2**63), ("FP64", "x"), ("BF16", 1e39)],
)
def test_number_that_does_not_fit_is_refused(datatype: str, value: Any) -> None:
    """Nothing becomes infinite or wraps around."""
    with pytest.raises((ValueError, TypeError)):
        bytes_of(datatype, [value])


def test_length_that_is_no_multiple_is_refused() -> None:
    """Seven bytes are no float32."""
    with pytest.raises(ValueError, match="multiple of 4"):
        numbers_of("FP32", bytes(7))


@pytest.mark.parametrize("dtype", [*NUMPY, "bfloat16"])
def test_every_datatype_comes_as_json_and_as_bytes(dtype: str, manifest: Manifest) -> None:
    """Both ways give the same tensor; the binary one without a copy."""
    numbers: list[Any] = [True, False, True] if dtype == "bool" else [1, 2, 3]
    raw = bytes_of(DATATYPES[dtype], numbers)
    model = with_inputs(manifest, TensorSpec(name="x", dtype=dtype, shape=(3,)))
    head = {"name": "x", "datatype": DATATYPES[dtype], "shape": [1, 3]}
    (by_json,) = read_question(model, body([head | {"data": numbers}]), None).tensors
    assert Tensor("x", dtype, (1, 3), raw) == by_json

    text = bytes(body([head | {"parameters": {"binary_data_size": len(raw)}}]))
    whole = memoryview(text + raw)
    (by_bytes,) = read_question(model, whole, len(text)).tensors
    assert (raw, True) == (bytes(by_bytes.data), isinstance(by_bytes.data, memoryview))
    assert whole.obj is by_bytes.data.obj  # type: ignore[attr-defined]  # a view


def test_json_and_binary_inputs_may_be_mixed(manifest: Manifest) -> None:
    """Raw bytes follow in the order of the inputs that have them."""
    raw = np.arange(6, dtype=np.float32).tobytes()
    text = bytes(body([entry("n"), entry(data=None, parameters={"binary_data_size": 24})]))
    n, x = read_question(manifest, memoryview(text + raw), len(text)).tensors
    assert ([7, 8], raw) == (list(numbers_of("INT64", n.data)), bytes(x.data))


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[[1, 2, 3], [4, 5, 6]]]])
def test_data_may_be_flat_or_nested(manifest: Manifest, data: Any) -> None:
    """The protocol allows both."""
    x, _ = read_question(manifest, body([entry(data=data), entry("n")]), None).tensors
    assert [1, 2, 3, 4, 5, 6] == list(numbers_of("FP32", x.data))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shape": [1, 3, 2]}, "expected the shape"),
        ({"shape": [2, 3]}, "expected the shape"),
        ({"shape": []}, "expected the shape"),
        ({"shape": [0, 2, 3], "data": []}, "expected the shape"),
        ({"shape": [1025, 2, 3]}, "1 to 1024 rows"),
        ({"shape": [-1, 2, 3]}, "expected the shape"),
        ({"shape": ["x"]}, "not an inference request"),
        ({"shape": [2, 2, 3]}, "do not have the shape"),
        ({"datatype": "FP64"}, "expected datatype FP32"),
        ({"datatype": "BYTES"}, "BYTES is not served here"),
        ({"name": "y"}, "expected the inputs x, n"),
        ({"data": [1, 2]}, "do not have the shape"),
        ({"data": [[[1, 2], [3, 4], [5, 6]]]}, "do not have the shape"),
        ({"data": [[[1, 2, 3], [4, 5]]]}, "do not have the shape"),
        ({"data": [[1, 2, 3, 4, 5, 6]]}, "expected data of FP32"),
        ({"data": ["a"] * 6}, "expected data of FP32"),
        ({"data": [1e39] * 6}, "expected data of FP32"),
        ({"data": 7}, "expected data of FP32"),
        ({"data": None}, "neither data nor"),
        ({"parameters": {"shared_memory_region": "r"}}, "shared memory"),
        ({"parameters": {"binary_data_size": 24}}, "ends before"),
        ({"parameters": {"binary_data_size": 20}}, "binary_data_size of 24"),
        ({"parameters": {"binary_data_size": -24}}, "binary_data_size of 24"),
        ({"parameters": {"binary_data_size": "24"}}, "binary_data_size of 24"),
    ],
)
def test_input_that_does_not_fit_is_explained(manifest: Manifest, change: dict[str, Any], reason: str) -> None:
    """Each is the caller's to correct."""
    with pytest.raises(DataError, match=reason):
        read_question(manifest, body([entry(**change), entry("n")]), None)


def test_binary_data_must_be_what_was_announced(manifest: Manifest) -> None:
    """Neither too much, nor beside JSON numbers, nor with a header length that cannot be."""
    raw = bytes(24)
    binary = {"binary_data_size": 24}
    text = bytes(body([entry(data=None, parameters=binary), entry("n")]))
    with pytest.raises(DataError, match="4 bytes follow"):
        read_question(manifest, memoryview(text + raw + bytes(4)), len(text))
    both = bytes(body([entry(parameters=binary), entry("n")]))
    with pytest.raises(DataError, match="both data and"):
        read_question(manifest, memoryview(both + raw), len(both))
    for length in (0, len(text) + 25):
        with pytest.raises(DataError, match="Inference-Header-Content-Length"):
            read_question(manifest, memoryview(text + raw), length)


def test_rows_must_agree(manifest: Manifest) -> None:
    """All inputs have as many rows."""
    with pytest.raises(DataError, match="as many rows"):
        read_question(manifest, body([entry(), entry("n", shape=[2, 1])]), None)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b"\xff", b'{"inputs": []}', b'{"inputs": [7]}', b"[" * 100_000, b'{"inputs": 7}'],
)  # fmt: skip
def test_what_is_no_request_is_refused(manifest: Manifest, text: bytes) -> None:
    """Nonsense, and JSON that is nested without end."""
    with pytest.raises(DataError):
        read_question(manifest, memoryview(text), None)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(manifest: Manifest, data: bytes) -> None:
    """Whatever comes is a question or a DataError."""
    for text in (data, b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": ' + data + b"}]}"):
        with pytest.raises(DataError):
            read_question(manifest, memoryview(text), None)


def test_large_json_is_refused(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON that would fill the device's memory is sent back with the advice to send bytes."""
    monkeypatch.setattr(open_inference, "MAX_JSON_BYTES", 100)
    with pytest.raises(DataError, match="send binary tensors"):
        read_question(manifest, body([entry(), entry("n")]), None)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ({}, {"p": False}),
        ({"parameters": {"binary_data_output": True}}, {"p": True}),
        ({"outputs": [{"name": "p"}]}, {"p": False}),
        ({"outputs": [{"name": "p", "parameters": {"binary_data": True}}]}, {"p": True}),
        (
            {
                "outputs": [{"name": "p", "parameters": {"binary_data": False}}],
                "parameters": {"binary_data_output": True},
            },
            {"p": False},
        ),
    ],
)
def test_outputs_are_wanted_as_asked(manifest: Manifest, rest: dict[str, Any], expected: dict[str, bool]) -> None:
    """What is said of one output goes before what is said of all."""
    assert expected == read_question(manifest, body([entry(), entry("n")], **rest), None).outputs


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ({"outputs": [{"name": "q"}]}, "outputs among p"),
        ({"outputs": [{"name": "p"}, {"name": "p"}]}, "each once"),
        ({"outputs": [{"name": "p", "parameters": {"classification": 3}}]}, "classification"),
        ({"outputs": [{"name": "p", "parameters": {"shared_memory_region": "r"}}]}, "shared_memory_region"),
        ({"parameters": {"sequence_id": 7}}, "sequence_id"),
        ({"parameters": {"timeout": -1}}, "timeout"),
        ({"parameters": {"timeout": "soon"}}, "timeout"),
        ({"parameters": {"timeout": True}}, "timeout"),
    ],
)
def test_wish_that_cannot_be_met_is_refused(manifest: Manifest, rest: dict[str, Any], reason: str) -> None:
    """Nothing is ignored that would make the answer another one than was asked for."""
    with pytest.raises(DataError, match=reason):
        read_question(manifest, body([entry(), entry("n")], **rest), None)


def test_id_and_timeout_are_read(manifest: Manifest) -> None:
    """The time limit comes in microseconds; zero is none."""
    question = read_question(manifest, body([entry(), entry("n")], id="q", parameters={"timeout": 1500}), None)
    assert ("q", 0.0015) == (question.id, question.timeout_seconds)
    assert read_question(manifest, body([entry(), entry("n")], parameters={"timeout": 0}), None).timeout_seconds is None


def test_answer_has_json_or_bytes(manifest: Manifest) -> None:
    """Both forms, the raw bytes uncopied after the JSON."""
    question = read_question(manifest, body([entry(), entry("n")], id="q"), None)
    outputs = (Tensor("p", "float32", (1, 3), np.asarray([1, 2, 3], np.float32).tobytes()),)
    (text,), length = write_answer(question, {"model_name": "tiny"}, outputs)
    assert length is None
    expected = {"name": "p", "datatype": "FP32", "shape": [1, 3]}
    assert {"model_name": "tiny", "id": "q", "outputs": [expected | {"data": [1, 2, 3]}]} == json.loads(text)

    binary = read_question(manifest, body([entry(), entry("n")], parameters={"binary_data_output": True}), None)
    (text, raw), length = write_answer(binary, {}, outputs)
    assert {"outputs": [expected | {"parameters": {"binary_data_size": 12}}]} == json.loads(text)
    assert (len(text), True) == (length, raw is outputs[0].data)


def test_nan_is_never_written_as_json(manifest: Manifest) -> None:
    """JSON has no NaN: the caller is told to ask for bytes, and gets them."""
    outputs = (Tensor("p", "float32", (1, 3), np.asarray([1, np.nan, 3], np.float32).tobytes()),)
    question = read_question(manifest, body([entry(), entry("n")]), None)
    with pytest.raises(DataError, match="binary_data"):
        write_answer(question, {}, outputs)


def test_metadata_say_what_to_send(manifest: Manifest, tmp_path: Path) -> None:
    """Open axes are -1, the first axis counts rows."""
    assert {
        "name": "tiny",
        "versions": ["1"],
        "platform": "onnxruntime_fp32",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 2, 3]},
            {"name": "n", "datatype": "INT64", "shape": [-1, -1]},
        ],
        "outputs": [{"name": "p", "datatype": "FP32", "shape": [-1, 3]}],
    } == describe_model(manifest, manifest.variants[0])

"""The Open Inference Protocol (V2) of one model: bodies of requests to tensors, tensors to bodies of answers. Pure.

JSON numbers become raw bytes; binary tensors are slices of the body and are not copied. No NumPy. Names, datatypes and
shapes are checked against the manifest here, so that what reaches the runner fits. What would silently be wrong
(sequences, shared memory, classification, BYTES) is refused. Example::

    question = read_question(manifest, body, header_bytes=None)
    answer = await serving.infer(question.tensors)
    parts, header_bytes = write_answer(question, head, answer.outputs)

https://github.com/open-inference/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and, for
``binary_data``, https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeopt_agent.http.numbers import BYTES_PER_NUMBER, bytes_of, numbers_of
from edgeopt_agent.runner.frames import Buffer, Tensor
from edgeopt_contract.errors import DataError
from edgeopt_contract.manifest import Manifest, TensorSpec, Variant

__all__ = ["DATATYPES", "MAX_JSON_BYTES", "MAX_ROWS", "Question", "describe_model", "read_question", "write_answer"]

MAX_ROWS = 1024
MAX_JSON_BYTES = 8 << 20  # a number of four letters takes 32 bytes while it is read
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "bfloat16": "BF16",
}  # fmt: skip
_KINDS: dict[str, Any] = {"BOOL": bool, "FP16": float, "BF16": float, "FP32": float, "FP64": float}


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[_Output] = []


@dataclass(frozen=True, slots=True)
class Question:
    """What one request asks; ``outputs`` maps each wanted output, in order, to whether it is wanted as raw bytes."""

    tensors: tuple[Tensor, ...]
    outputs: dict[str, bool]
    id: str | None = None
    timeout_seconds: float | None = None


def read_question(manifest: Manifest, body: memoryview, header_bytes: int | None) -> Question:
    """Read the body of an inference request; ``header_bytes`` of it are JSON, ``None``: all of it.

    Raises :class:`DataError`.
    """
    text = body if header_bytes is None else body[:header_bytes]
    if header_bytes is not None and not 0 < header_bytes <= len(body):
        raise DataError(f"Inference-Header-Content-Length is {header_bytes}, the body has {len(body)} bytes")
    if len(text) > MAX_JSON_BYTES:
        raise DataError(f"expected at most {MAX_JSON_BYTES} bytes of JSON, got {len(text)}: send binary tensors")
    try:
        request = msgspec.json.decode(text, type=_Request)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(f"the body is not an inference request: {error}") from error
    if request.parameters.get("sequence_id"):
        raise DataError("sequence_id: the models here keep no state between requests")
    return Question(
        _read_inputs(manifest.inputs, request.inputs, body[len(text) :]),
        _read_outputs(manifest.outputs, request),
        request.id,
        _timeout(request.parameters.get("timeout")),
    )


def _timeout(microseconds: Any) -> float | None:
    """Return the seconds of the parameter ``timeout``, which Triton's clients give in microseconds."""
    if microseconds in (None, 0):
        return None
    if not isinstance(microseconds, int) or isinstance(microseconds, bool) or microseconds < 0:
        raise DataError(f"timeout: expected microseconds, got {microseconds!r}")
    return microseconds / 1e6


def _read_inputs(specs: Sequence[TensorSpec], inputs: Sequence[_Input], binary: memoryview) -> tuple[Tensor, ...]:
    by_name = {spec.name: spec for spec in specs}
    if sorted(by_name) != sorted(entry.name for entry in inputs):
        raise DataError(f"expected the inputs {', '.join(by_name)}, got {', '.join(i.name for i in inputs) or 'none'}")
    tensors, offset = [], 0
    for entry in inputs:
        spec = by_name[entry.name]
        _check(spec, entry)
        size = entry.parameters.get("binary_data_size")
        if size is None:
            data: Buffer = _read_numbers(entry)
        else:
            data = _slice(entry, binary, offset)
            offset += size
        tensors.append(Tensor(spec.name, spec.dtype, tuple(entry.shape), data))
    if offset != len(binary):
        raise DataError(f"{len(binary) - offset} bytes follow the last binary tensor")
    if len({tensor.shape[0] for tensor in tensors}) > 1:
        raise DataError("expected as many rows for each input")
    return tuple(tensors)


def _check(spec: TensorSpec, entry: _Input) -> None:
    """Hold name, datatype and shape against what the model takes; the first axis counts rows."""
    datatype = DATATYPES.get(spec.dtype)
    if entry.datatype == "BYTES" or datatype is None:
        raise DataError(f"input {spec.name}: {entry.datatype} is not served here; the model takes {spec.dtype}")
    if entry.datatype != datatype:
        raise DataError(f"input {spec.name}: expected datatype {datatype}, got {entry.datatype}")
    if "shared_memory_region" in entry.parameters:
        raise DataError(f"input {spec.name}: shared memory is not served here; send the data")
    rows, *rest = entry.shape or [0]
    fits = len(rest) == len(spec.shape) and all(
        size >= 0 and (want < 1 or want == size) for want, size in zip(spec.shape, rest, strict=True)
    )
    if not fits or not 1 <= rows <= MAX_ROWS:
        wanted = ["rows", *("any" if size < 1 else str(size) for size in spec.shape)]
        raise DataError(
            f"input {spec.name}: expected the shape [{', '.join(wanted)}] with 1 to {MAX_ROWS} rows, got {entry.shape}"
        )


def _slice(entry: _Input, binary: memoryview, offset: int) -> memoryview:
    size = entry.parameters["binary_data_size"]
    expected = math.prod(entry.shape) * BYTES_PER_NUMBER[entry.datatype]
    if size != expected or isinstance(size, bool):
        raise DataError(f"input {entry.name}: expected a binary_data_size of {expected}, got {size!r}")
    if offset + size > len(binary):
        raise DataError(f"input {entry.name}: the body ends before its {size} bytes of binary data")
    if memoryview(entry.data):
        raise DataError(f"input {entry.name}: has both data and binary_data_size")
    return binary[offset : offset + size]


def _read_numbers(entry: _Input) -> bytes:
    """Return the raw bytes of JSON numbers, given flat or nested as the shape is."""
    text = memoryview(entry.data)
    if not text:
        raise DataError(f"input {entry.name}: has neither data nor binary_data_size")
    kind: Any = _KINDS.get(entry.datatype, int)
    is_nested = bytes(text[:64]).translate(None, b" \t\r\n").startswith(b"[[")
    shape = entry.shape if is_nested else [math.prod(entry.shape)]
    for _ in shape:
        kind = list[kind]
    try:
        values = [msgspec.json.decode(text, type=kind)]
        for size in shape:
            if any(len(row) != size for row in values):
                raise DataError(f"input {entry.name}: the data do not have the shape {entry.shape}")
            values = [item for row in values for item in row]
        return bytes_of(entry.datatype, values)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DataError(f"input {entry.name}: expected data of {entry.datatype}: {error}") from error


def _read_outputs(specs: Sequence[TensorSpec], request: _Request) -> dict[str, bool]:
    binary = bool(request.parameters.get("binary_data_output", False))
    if not request.outputs:
        return {spec.name: binary for spec in specs}
    known = [spec.name for spec in specs]
    wanted: dict[str, bool] = {}
    for output in request.outputs:
        if output.name not in known or output.name in wanted:
            raise DataError(f"expected outputs among {', '.join(known)}, each once, got {output.name!r}")
        for unserved in ("classification", "shared_memory_region"):
            if output.parameters.get(unserved):
                raise DataError(f"output {output.name}: {unserved} is not served here")
        wanted[output.name] = bool(output.parameters.get("binary_data", binary))
    return wanted


def write_answer(
    question: Question, head: dict[str, Any], outputs: Sequence[Tensor]
) -> tuple[tuple[Buffer, ...], int | None]:
    """Return the parts of the answer's body, and how many bytes of it are JSON if raw bytes follow.

    ``head`` names the model. Raises :class:`DataError` for NaN or infinity, which JSON cannot carry.
    """
    by_name = {tensor.name: tensor for tensor in outputs}
    shown: list[dict[str, Any]] = []
    binary: list[Buffer] = []
    for name, is_binary in question.outputs.items():
        tensor = by_name[name]
        datatype = DATATYPES[tensor.dtype]
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": tensor.shape}
        if is_binary:
            entry["parameters"] = {"binary_data_size": len(tensor.data)}
            binary.append(tensor.data)
        else:
            entry["data"] = _written_numbers(name, numbers_of(datatype, tensor.data))
        shown.append(entry)
    identified = {} if question.id is None else {"id": question.id}
    text = msgspec.json.encode({**head, **identified, "outputs": shown})
    return (text, *binary), len(text) if binary else None


def _written_numbers(name: str, numbers: Sequence[float]) -> msgspec.Raw:
    text = msgspec.json.encode(numbers)
    if b"null" in text:  # what msgspec writes for NaN and infinity
        raise DataError(f"output {name} holds NaN or infinity, which JSON cannot carry: ask for it with binary_data")
    return msgspec.Raw(text)


def describe_model(manifest: Manifest, variant: Variant) -> dict[str, Any]:
    """Return the model's metadata; an open axis is -1, the first axis counts rows."""

    def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [
            {
                "name": spec.name,
                "datatype": DATATYPES.get(spec.dtype, spec.dtype.upper()),
                "shape": [-1, *(size if size > 0 else -1 for size in spec.shape)],
            }
            for spec in specs
        ]

    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": f"{variant.runtime}_{variant.name}",
        "inputs": tensors(manifest.inputs),
        "outputs": tensors(manifest.outputs),
    }

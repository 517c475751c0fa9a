"""Inference for programs on the device: NumPy arrays in, NumPy arrays out, by the agent that serves the model.

It speaks the Open Inference Protocol with binary tensors over one connection that stays open. One client belongs to one
thread. It does not queue: when the agent refuses because too many wait, :class:`BusyError` says so. Example::

    with Client() as client:                          # http://127.0.0.1:8080; or Client("unix:/run/edgeopt.sock")
        client.wait_until_ready()
        answer = client.infer(picture)                # one sample, or a batch with one more axis in front
        answer.outputs["p"].argmax()
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import numpy as np
import numpy.typing as npt

from edgeopt_agent.arrays import fit_inputs
from edgeopt_agent.http.open_inference import DATATYPES
from edgeopt_contract.errors import DataError, UnreachableError, UsageError, WorldError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["Answer", "BusyError", "Client", "InferenceFailedError", "ModelInfo"]

Array = npt.NDArray[Any]
Body = bytes | Sequence[bytes | memoryview] | None
_POLL_SECONDS = 0.1
_JSON_BYTES = "Inference-Header-Content-Length"
_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
_DROPPED = (ConnectionError, http.client.RemoteDisconnected, http.client.CannotSendRequest)


class BusyError(UnreachableError):
    """Nothing serves yet, or too many requests wait: try again after ``retry_seconds``."""

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class InferenceFailedError(WorldError):
    """The agent was there, but the model gave no answer (it failed, or not within the time asked for)."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is served: tensors without the batch axis."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs by name, and who gave them; ``microseconds`` is what the model itself took."""

    outputs: dict[str, Array]
    model: str
    version: str
    bundle: str
    microseconds: float


class Client:
    """Asks the agent at ``http://127.0.0.1:PORT`` or ``unix:PATH``; it connects when it is used."""

    def __init__(self, address: str = "http://127.0.0.1:8080", *, timeout_seconds: float = 60.0) -> None:
        self._connection = _connection_to(address, timeout_seconds)
        self._address = address
        self._can_reconnect = True
        self._model: ModelInfo | None = None

    @classmethod
    def over(cls, connected: socket.socket) -> Self:
        """Return a client on a socket that is connected already and cannot be opened again."""
        client = cls()
        client._connection.sock = connected
        client._address, client._can_reconnect = "the agent that started this process", False
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        self._connection.close()

    # --- asking ---------------------------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Say whether an inference would be answered now. Raises :class:`UnreachableError` when no agent is there."""
        status, _, _ = self._exchange("GET", "/v2/health/ready")
        return status == HTTPStatus.OK

    def wait_until_ready(self, timeout_seconds: float = 60.0) -> None:
        """Return when the agent serves a model. Raises :class:`UnreachableError` after ``timeout_seconds``."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            with contextlib.suppress(UnreachableError):
                if self.is_ready():
                    return
                if not self._can_reconnect and self._connection.sock is None:
                    break
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        raise UnreachableError(f"nothing serves at {self._address} after {timeout_seconds:g} s: is the agent running?")

    def model(self) -> ModelInfo:
        """Return what is served now. Raises :class:`BusyError` when nothing is."""
        index = self._json("POST", "/v2/repository/index", b"{}")
        if not index:
            raise BusyError("no model is installed on this device yet", 1.0)
        found = self._json("GET", f"/v2/models/{quote(index[0]['name'], safe='')}")
        (version,) = found["versions"]
        self._model = ModelInfo(found["name"], version, _specs(found["inputs"]), _specs(found["outputs"]))
        return self._model

    def infer(self, inputs: Any, *, outputs: Sequence[str] = (), model_timeout_seconds: float | None = None) -> Answer:
        """Answer one sample, or a batch with one more axis in front; the outputs have that axis when the inputs do.

        ``inputs`` is an array for a model with one input, or a mapping from names to arrays; what loses nothing is
        cast to the model's dtypes. ``outputs`` names the ones wanted, all by default. After ``model_timeout_seconds``
        the agent gives the request up.

        Raises :class:`DataError` for what does not fit, :class:`BusyError`, :class:`InferenceFailedError` and
        :class:`UnreachableError`.
        """
        known = self._model
        try:
            return self._infer(known or self.model(), inputs, outputs, model_timeout_seconds)
        except DataError:
            if known is None or self.model() == known:
                raise
        return self._infer(self._model or self.model(), inputs, outputs, model_timeout_seconds)  # it was exchanged

    def _infer(self, model: ModelInfo, inputs: Any, outputs: Sequence[str], timeout_seconds: float | None) -> Answer:
        arrays, is_batch = fit_inputs(model.inputs, inputs)
        head: dict[str, Any] = {
            "inputs": [
                {
                    "name": spec.name,
                    "datatype": DATATYPES[spec.dtype],
                    "shape": arrays[spec.name].shape,
                    "parameters": {"binary_data_size": arrays[spec.name].nbytes},
                }
                for spec in model.inputs
            ],
            "outputs": [{"name": name} for name in outputs],
            "parameters": {"binary_data_output": True}
            | ({} if timeout_seconds is None else {"timeout": max(1, round(timeout_seconds * 1e6))}),
        }
        text = json.dumps(head).encode()
        parts: list[bytes | memoryview] = [text, *(arrays[spec.name].data.cast("B") for spec in model.inputs)]
        lengths = {_JSON_BYTES: str(len(text)), "Content-Length": str(sum(len(part) for part in parts))}
        status, headers, data = self._exchange("POST", f"/v2/models/{quote(model.name, safe='')}/infer", parts, lengths)
        if status != HTTPStatus.OK:
            raise _error(status, headers, data)
        answer = _read_answer(data, int(headers.get(_JSON_BYTES.lower(), len(data))), is_batch=is_batch)
        if answer.version != model.version:
            self._model = None  # a rollout came by
        return answer

    # --- the connection -------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, body: Body = None) -> Any:
        status, headers, data = self._exchange(method, path, body)
        if status != HTTPStatus.OK:
            raise _error(status, headers, data)
        return json.loads(data)

    def _exchange(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytearray]:
        """Ask and read the answer; once more when a connection that was open has been dropped in the meantime."""
        was_open = self._connection.sock is not None
        try:
            return self._exchange_once(method, path, body, headers)
        except (*_DROPPED, OSError, http.client.HTTPException) as error:
            self._connection.close()
            if not (was_open and self._can_reconnect and isinstance(error, _DROPPED)):
                raise self._unreachable(error) from error
        try:
            return self._exchange_once(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self._unreachable(error) from error

    def _exchange_once(
        self, method: str, path: str, body: Body, headers: Mapping[str, str] | None
    ) -> tuple[int, Mapping[str, str], bytearray]:
        if self._connection.sock is None and not self._can_reconnect:
            raise ConnectionError("it has gone")
        self._connection.request(method, path, body, dict(headers or {}))
        response = self._connection.getresponse()
        data = bytearray(response.length or 0)
        view = memoryview(data)
        while view and (count := response.readinto(view)):
            view = view[count:]
        if view:
            raise http.client.IncompleteRead(bytes(data))
        response.read()
        return response.status, {name.lower(): value for name, value in response.headers.items()}, data

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(f"{self._address} does not answer: {error!r}; is edgeopt-agent running with --http?")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


def _connection_to(address: str, timeout_seconds: float) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"), timeout_seconds)
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError as error:  # brackets that are not closed, or a port that is none
        raise UsageError(f"expected http://HOST:PORT or unix:PATH, got {address!r} ({error})") from error
    if scheme != "http" or not host:
        raise UsageError(f"expected http://HOST:PORT or unix:PATH, got {address!r}")
    return http.client.HTTPConnection(host, port or 80, timeout=timeout_seconds)


def _specs(tensors: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=t["name"], dtype=_DTYPES.get(t["datatype"], t["datatype"]), shape=tuple(t["shape"][1:]))
        for t in tensors
    )


def _read_answer(data: bytearray, json_bytes: int, *, is_batch: bool) -> Answer:
    head = json.loads(memoryview(data)[:json_bytes].tobytes())
    outputs, offset = {}, json_bytes
    for entry in head["outputs"]:
        size = entry["parameters"]["binary_data_size"]
        array = np.frombuffer(memoryview(data)[offset : offset + size], dtype=_DTYPES[entry["datatype"]])
        shaped = array.reshape(entry["shape"])
        outputs[entry["name"]] = shaped if is_batch else shaped[0]
        offset += size
    told = head["parameters"]
    return Answer(outputs, head["model_name"], head["model_version"], told["bundle"], told["microseconds"])


def _error(status: int, headers: Mapping[str, str], data: bytes | bytearray) -> Exception:
    try:
        reason = str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        reason = f"status {status}: {bytes(data[:200])!r}"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return BusyError(reason, float(headers.get("retry-after", 1)))
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return DataError(reason)
    return InferenceFailedError(reason)

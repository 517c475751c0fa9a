r"""The Open Inference Protocol (V2, JSON subset) over HTTP on loopback, standard library only.

``GET /v2/health/live``, ``GET /v2/health/ready``, ``GET /v2/models/<name>[/ready]``, ``POST /v2/models/<name>/infer``.
When ``queue_limit`` requests wait it answers 503 at once: back-pressure instead of a growing queue. No binary tensors,
no authentication: it listens on 127.0.0.1 only. Speaking HTTP is :mod:`edgeopt_agent.http_server`'s part. Example::

    curl -d '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.1, 0.2]}]}' \
        http://127.0.0.1:8080/v2/models/digits/infer
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_agent.http_server import HttpError, make_server
from edgeopt_agent.log import log_event
from edgeopt_agent.serving import NotServingError, Served, Serving
from edgeopt_contract.errors import DataError, EdgeoptError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["HttpSource"]

Array = npt.NDArray[Any]
_MAX_ROWS = 1024
_TIMEOUT_SECONDS = 120.0
# https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol#tensor-data-types
_DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class HttpSource:
    """Serves HTTP on ``port`` of loopback; 0 takes a free one and logs it."""

    port: int
    queue_limit: int

    async def run(self, serving: Serving) -> None:
        """Answer until cancelled."""
        api = _Api(serving, asyncio.get_running_loop(), self.queue_limit)
        try:
            server = make_server(self.port, api)
        except OSError as error:
            log_event("source_failed", level=logging.ERROR, source=f"http:{self.port}", reason=error)
            return
        log_event("http_listening", port=server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, name="http", daemon=True)
        thread.start()
        try:
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            await asyncio.to_thread(server.shutdown)
            server.server_close()


class _Api:
    """What the paths answer; called on the server's threads."""

    def __init__(self, serving: Serving, loop: asyncio.AbstractEventLoop, queue_limit: int) -> None:
        self._serving = serving
        self._loop = loop
        self._places = threading.BoundedSemaphore(queue_limit)
        self._queue_limit = queue_limit

    def get(self, parts: list[str]) -> dict[str, Any]:
        """Answer ``GET /<parts>``."""
        match parts:
            case ["v2"]:
                return {"name": "edgeopt-agent", "extensions": []}
            case ["v2", "health", "live"]:
                return {"live": True}
            case ["v2", "health", "ready"]:
                self._served()
                return {"ready": True}
            case ["v2", "models", name]:
                return _describe(self._served(name))
            case ["v2", "models", name, "ready"]:
                return {"name": self._served(name).installed.manifest.name, "ready": True}
        raise HttpError(HTTPStatus.NOT_FOUND, f"there is nothing at /{'/'.join(parts)}")

    def post(self, parts: list[str], body: bytes) -> dict[str, Any]:
        """Answer ``POST /<parts>``."""
        match parts:
            case ["v2", "models", name, "infer"]:
                return self._infer(self._served(name), body)
        raise HttpError(HTTPStatus.NOT_FOUND, f"there is nothing to post to at /{'/'.join(parts)}")

    def _served(self, name: str | None = None) -> Served:
        served = self._serving.current
        if served is None:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "no model is installed on this device yet")
        if name is not None and name != served.installed.manifest.name:
            raise HttpError(
                HTTPStatus.NOT_FOUND, f"no model {name!r} here; this device serves {served.installed.manifest.name!r}"
            )
        return served

    def _infer(self, served: Served, body: bytes) -> dict[str, Any]:
        request = _read_request(body)
        rows = _read_rows(request, served.installed.manifest.inputs)
        if not self._places.acquire(blocking=False):
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{self._queue_limit} requests wait already; send fewer at a time"
            )
        try:
            answers = asyncio.run_coroutine_threadsafe(self._infer_rows(rows), self._loop).result(_TIMEOUT_SECONDS)
        except NotServingError as error:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        except DataError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except (EdgeoptError, FutureTimeoutError) as error:
            raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the model did not answer: {error}") from error
        finally:
            self._places.release()
        manifest = served.installed.manifest
        outputs = [_tensor(name, np.stack([row[name] for row in answers])) for name in answers[0]]
        identified = {"id": request["id"]} if isinstance(request.get("id"), str) else {}
        return {"model_name": manifest.name, "model_version": manifest.version, **identified, "outputs": outputs}

    async def _infer_rows(self, rows: list[dict[str, Array]]) -> list[dict[str, Array]]:
        """Answer row by row: a model may have been exported for a batch of one."""
        return [(await self._serving.infer(row)).outputs for row in rows]


def _describe(served: Served) -> dict[str, Any]:
    manifest = served.installed.manifest

    def tensors(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [
            {"name": s.name, "datatype": _DATATYPES.get(s.dtype, s.dtype.upper()), "shape": [-1, *s.shape]}
            for s in specs
        ]

    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": f"{served.installed.variant.runtime}_{served.installed.variant.name}",
        "inputs": tensors(manifest.inputs),
        "outputs": tensors(manifest.outputs),
    }


def _tensor(name: str, array: Array) -> dict[str, Any]:
    datatype = _DATATYPES.get(array.dtype.name, array.dtype.name.upper())
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.reshape(-1).tolist()}


def _read_request(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list) or not request["inputs"]:
        raise HttpError(HTTPStatus.BAD_REQUEST, "expected a JSON object with a list 'inputs'")
    return request


def _read_rows(request: dict[str, Any], specs: tuple[TensorSpec, ...]) -> list[dict[str, Array]]:
    """Return the samples of a request: one dictionary of arrays, without batch dimension, a row."""
    dtypes = {spec.name: spec.dtype for spec in specs}
    batches: dict[str, Array] = {}
    for tensor in request["inputs"]:
        try:
            name, shape = tensor["name"], [int(size) for size in tensor["shape"]]
            array = np.asarray(tensor["data"], dtype=dtypes.get(name)).reshape(shape)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise HttpError(
                HTTPStatus.BAD_REQUEST, f"expected inputs with name, shape, datatype and data that fit: {error!r}"
            ) from error
        if name not in dtypes or array.ndim == 0:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"expected the inputs {', '.join(dtypes)}, got {name!r}")
        batches[name] = array
    counts = {len(array) for array in batches.values()}
    if len(counts) != 1 or not 1 <= min(counts) <= _MAX_ROWS:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"expected 1 to {_MAX_ROWS} rows, as many for each input")
    return [{name: array[row] for name, array in batches.items()} for row in range(counts.pop())]

r"""The Open Inference Protocol (V2) over HTTP for the one model that this device serves: paths, places and deadlines.

``/v2``, ``/v2/health/{live,ready}``, ``/v2/models/NAME[/versions/VERSION][/ready|/infer]``, ``/v2/repository/index``;
JSON and binary tensors. At most ``places`` requests are inside; the next is refused at once with 503 and
``Retry-After``. A caller that goes away, or whose ``timeout`` passes, frees its place, unless the model has begun: then
as soon as that has ended. Bodies are :mod:`edgeopt_agent.http.open_inference`'s part, HTTP is
:mod:`edgeopt_agent.http.server`'s. Example::

    curl -d '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.1, 0.2]}]}' \
        http://127.0.0.1:8080/v2/models/digits/infer
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from edgeopt_agent import AGENT_VERSION
from edgeopt_agent.http.messages import HttpError, Request, Response, json_response
from edgeopt_agent.http.open_inference import Question, describe_model, read_question, write_answer
from edgeopt_agent.inference.served import NotServingError, Served
from edgeopt_agent.inference.serving import Inference, Serving
from edgeopt_contract.errors import DataError, EdgeoptError

__all__ = ["InferenceApi"]

_JSON_BYTES_HEADER = "inference-header-content-length"
_LONGEST_NUMBER = 20  # digits: a longer one costs time to read, and is no length


class InferenceApi:
    """Answers requests; use :meth:`answer` as an :class:`~edgeopt_agent.http.server.HttpServer`'s handler."""

    def __init__(self, serving: Serving, places: int) -> None:
        self._serving = serving
        self._places = places
        self._inside = 0
        self._turn = asyncio.Lock()  # first come, first served; who waits here can leave

    async def answer(self, request: Request) -> Response:
        """Answer ``request``. Raises :class:`HttpError`."""
        match request.segments:
            case ["v2", "repository", "index"]:
                _expect(request, "POST", "GET")
                return json_response(self._index())
            case ["v2", "models", name, "versions", version, "infer"]:
                return await self._infer(request, name, version)
            case ["v2", "models", name, "infer"]:
                return await self._infer(request, name)
        state = self._state(request.segments)
        _expect(request, "GET")
        return json_response(state)

    def _state(self, segments: tuple[str, ...]) -> dict[str, Any]:
        match segments:
            case ["v2"]:
                return {"name": "edgeopt-agent", "version": AGENT_VERSION, "extensions": ["binary_tensor_data"]}
            case ["v2", "health", "live"]:
                return {"live": True}
            case ["v2", "health", "ready"]:
                return {"ready": self._is_ready()}
            case ["v2", "models", name] | ["v2", "models", name, "versions", _] if name:
                served = self._served(name, *segments[4:])
                return describe_model(served.installed.manifest, served.installed.variant)
            case ["v2", "models", name, "ready"] | ["v2", "models", name, "versions", _, "ready"]:
                served = self._served(name, *segments[4:-1])
                return {"name": served.installed.manifest.name, "ready": self._is_ready()}
        raise HttpError(HTTPStatus.NOT_FOUND, f"there is nothing at /{'/'.join(segments)}")

    def _served(self, name: str | None = None, version: str | None = None) -> Served:
        served = self._serving.current
        if served is None:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "no model is installed on this device yet")
        manifest = served.installed.manifest
        if name not in (None, manifest.name):
            raise HttpError(HTTPStatus.NOT_FOUND, f"no model {name!r} here; this device serves {manifest.name!r}")
        if version not in (None, manifest.version):
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                f"{name!r} has no version {version!r} here; this device serves {manifest.version!r}",
            )
        return served

    def _is_ready(self) -> bool:
        """Say yes, or raise :class:`HttpError` (503) while an inference would be refused."""
        if not self._served().is_ready:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "the model's process is being started again")
        self._check_room()
        return True

    def _check_room(self) -> None:
        if self._inside >= self._places:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{self._inside} requests wait already; send fewer at a time"
            )

    def _index(self) -> list[dict[str, str]]:
        served = self._serving.current
        if served is None:
            return []
        manifest, state = served.installed.manifest, "READY" if served.is_ready else "LOADING"
        return [{"name": manifest.name, "version": manifest.version, "state": state, "reason": ""}]

    # --- inference ------------------------------------------------------------------------------------------------

    async def _infer(self, request: Request, name: str, version: str | None = None) -> Response:
        _expect(request, "POST")
        served = self._served(name, version)
        self._check_room()
        try:
            question = read_question(served.installed.manifest, memoryview(request.body), _json_bytes(request))
        except DataError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        inference = await self._ask(question)
        now = self._serving.current
        if now and now.installed.digest == inference.bundle:
            served = now  # a switch came between question and answer
        head = {
            "model_name": served.installed.manifest.name,
            "model_version": served.installed.manifest.version,
            "parameters": {"bundle": inference.bundle, "microseconds": round(inference.microseconds, 1)},
        }
        try:
            parts, json_bytes = write_answer(question, head, inference.outputs)
        except DataError as error:
            raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from error
        if json_bytes is None:
            return Response(HTTPStatus.OK, parts)
        headers = (("Inference-Header-Content-Length", str(json_bytes)),)
        return Response(HTTPStatus.OK, parts, headers, "application/octet-stream")

    async def _ask(self, question: Question) -> Inference:
        """Wait for the turn and for the answer. Raises :class:`HttpError`."""
        self._inside += 1
        running: asyncio.Task[Inference] | None = None
        try:
            async with asyncio.timeout(question.timeout_seconds):
                await self._turn.acquire()
                running = asyncio.create_task(self._serving.infer(question.tensors))
                running.add_done_callback(self._leave)
                return await asyncio.shield(running)  # to cut an exchange with the runner short would end the runner
        except TimeoutError as error:
            raise HttpError(
                HTTPStatus.GATEWAY_TIMEOUT, f"no answer within the timeout of {question.timeout_seconds:g} s"
            ) from error
        except NotServingError as error:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
        except DataError as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, str(error)) from error
        except EdgeoptError as error:
            raise HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the model did not answer: {error}") from error
        finally:
            if running is None:
                self._inside -= 1  # its turn never came

    def _leave(self, running: asyncio.Task[Inference]) -> None:
        """Free the place of an inference that has ended, whether or not somebody still waits for it."""
        self._inside -= 1
        self._turn.release()
        if not running.cancelled():
            running.exception()  # looked at, for nobody else may


def _expect(request: Request, *methods: str) -> None:
    if request.method not in methods:
        path = "/".join(request.segments)
        raise HttpError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"/{path}: expected {' or '.join(methods)}, got {request.method}",
            [("Allow", ", ".join(methods))],
        )


def _json_bytes(request: Request) -> int | None:
    """Return how much of the body is JSON; ``None`` when all of it is. Raises :class:`HttpError` (400)."""
    text = request.headers.get(_JSON_BYTES_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER):
        raise HttpError(HTTPStatus.BAD_REQUEST, f"Inference-Header-Content-Length: expected a number, got {text!r}")
    return int(text)

"""HTTP/1.1 with JSON bodies on loopback, standard library only: limits, errors and keep-alive.

What the paths mean is the :class:`Api`'s part. Example::

    server = make_server(0, api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

__all__ = ["Api", "HttpError", "make_server"]

_MAX_BODY_BYTES = 64 << 20
_IDLE_SECONDS = 30  # a client that says nothing does not hold a thread for ever


class HttpError(Exception):
    """A request that gets another answer than 200."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api(Protocol):
    """What answers; called on the server's threads. Raises :class:`HttpError`."""

    def get(self, parts: list[str]) -> dict[str, Any]:
        """Answer ``GET /<parts>``."""
        ...

    def post(self, parts: list[str], body: bytes) -> dict[str, Any]:
        """Answer ``POST /<parts>``."""
        ...


def make_server(port: int, api: Api) -> ThreadingHTTPServer:
    """Return a server bound to ``port`` of 127.0.0.1 (0: a free one). Raises ``OSError`` when it is taken."""

    class Handler(_JsonHandler):
        answers = api

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


class _JsonHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    answers: Api

    def do_GET(self) -> None:
        self._answer(lambda: self.answers.get(self._parts()))

    def do_POST(self) -> None:
        self._answer(lambda: self.answers.post(self._parts(), self._body()))

    def _parts(self) -> list[str]:
        return [part for part in self.path.partition("?")[0].split("/") if part]

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            raise HttpError(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
        if int(length) > _MAX_BODY_BYTES:
            self.close_connection = True
            raise HttpError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {_MAX_BODY_BYTES} bytes, got {length}"
            )
        return self.rfile.read(int(length))

    def _answer(self, respond: Callable[[], dict[str, Any]]) -> None:
        status, answer = HTTPStatus.OK, {}
        try:
            answer = respond()
        except HttpError as error:
            status, answer = error.status, {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        """Requests are counted, not logged."""

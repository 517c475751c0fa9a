"""What an HTTP server and what answers its requests say to each other. Pure.

Example::

    raise HttpError(HTTPStatus.NOT_FOUND, "there is nothing at /v3")
    return json_response({"ready": True})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

__all__ = [
    "HttpError",
    "HttpLimits",
    "Payload",
    "Request",
    "Response",
    "error_response",
    "is_local_name",
    "json_response",
    "segments_of",
]

Payload = bytes | bytearray | memoryview
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
_RETRY_SECONDS = "1"


class HttpError(Exception):
    """A request that gets another answer than 200."""

    def __init__(self, status: HTTPStatus, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = tuple(headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """How much one caller, and all callers together, may take.

    ``held_bytes`` bounds the bodies of all connections together; ``idle_seconds`` the wait for the next request on a
    connection that stays open.
    """

    body_bytes: int = 32 << 20
    held_bytes: int = 64 << 20
    connections: int = 64
    head_seconds: float = 10.0
    body_seconds: float = 60.0
    write_seconds: float = 30.0
    idle_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request: ``segments`` are the parts of the path, percent-decoded; header names are in lower case."""

    method: str
    segments: tuple[str, ...]
    headers: Mapping[str, str]
    body: Payload = b""


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; ``parts`` follow each other in the body and are not joined before they are written."""

    status: HTTPStatus
    parts: tuple[Payload, ...]
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"

    @property
    def size(self) -> int:
        """The length of the body in bytes."""
        return sum(memoryview(part).nbytes for part in self.parts)


def json_response(answer: Any) -> Response:
    """Return ``answer`` as JSON with status 200."""
    return Response(HTTPStatus.OK, (msgspec.json.encode(answer),))


def error_response(error: HttpError) -> Response:
    """Return ``{"error": …}``; with ``Retry-After`` where trying again helps."""
    headers = error.headers
    if error.status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers = (*headers, ("Retry-After", _RETRY_SECONDS))
    return Response(error.status, (msgspec.json.encode({"error": str(error)}),), headers)


def segments_of(target: str) -> tuple[str, ...]:
    """Return the parts of a request's target, percent-decoded one by one; the query is not used.

    Raises :class:`HttpError` (400) for what is not UTF-8 or not a target.
    """
    try:
        path = urlsplit(target).path if "://" in target.partition("?")[0] else target.partition("?")[0]
        return tuple(unquote(part, errors="strict") for part in path.split("/") if part)
    except ValueError as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the path is not one: {error}") from error


def is_local_name(authority: str) -> bool:
    """Say whether ``authority`` (``host[:port]``) names this machine; the port may be a tunnel's."""
    host, separator, port = authority.strip().lower().rpartition(":")
    if not separator or not port.isdigit():
        host = authority.strip().lower()
    return host in _LOCAL_NAMES

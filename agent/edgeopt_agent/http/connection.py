"""One HTTP connection: reads requests in turn, has them answered, writes the answers.

h11 reads heads and chunked bodies. It is given a fresh state for each request and never sees a body of known length,
which is received in place: 600 KB cost one copy instead of four. A caller that goes away while its request is being
answered cancels it. Example: see :mod:`edgeopt_agent.http.server`, which makes them.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol

import h11

from edgeopt_agent.http.messages import (
    HttpError,
    HttpLimits,
    Payload,
    Request,
    Response,
    error_response,
    is_local_name,
    segments_of,
)
from edgeopt_agent.log import log_event

__all__ = ["Connection", "Owner"]

_HEAD_BYTES = 16 << 10
_EARLY_BYTES = 64 << 10  # of the next request, while this one is being answered
_JOINED_BYTES = 64 << 10  # a small answer leaves in one packet
_LINGER_SECONDS = 2.0  # so that a caller that is still sending reads why it was refused
_GZIP_OR_ZLIB = 47  # zlib's window bits: the largest window, and the kind of header found out


class Owner(Protocol):
    """The server that a connection belongs to."""

    handler: Callable[[Request], Awaitable[Response]]
    limits: HttpLimits
    scratch: bytearray

    @property
    def is_full(self) -> bool:
        """Whether this connection is one too many."""
        ...

    def enter(self, connection: Connection) -> None:
        """Remember the connection."""
        ...

    def leave(self, connection: Connection) -> None:
        """Forget the connection."""
        ...

    def hold(self, size: int) -> None:
        """Reserve bytes for a body. Raises :class:`HttpError`."""
        ...

    def release(self, size: int) -> None:
        """Give reserved bytes back."""
        ...


class Connection(asyncio.BufferedProtocol):
    """One connection; ``is_local`` when it cannot be a browser's, ``may_idle`` when it may be silent for ever."""

    def __init__(self, owner: Owner, *, is_local: bool = False, may_idle: bool = False) -> None:
        self._owner = owner
        self._is_local = is_local
        self._may_idle = may_idle
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None
        self._answering: asyncio.Task[None] | None = None
        self._early = bytearray()
        self._held = 0
        self._lingers = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._forget_request()

    def _forget_request(self) -> None:
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        self._request: Request | None = None
        self._body: bytearray | None = None
        self._filled = 0
        self._is_chunked = False

    # --- asyncio's calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._owner.enter(self)
        if self._owner.is_full:
            self._refuse(HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open; close some"))
        elif not self._may_idle:
            self._give(self._owner.limits.head_seconds)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio gives it
        """Say where the next bytes go: into the body that is awaited, or into scratch memory."""
        if self._body is not None and not self._is_chunked and self._filled < len(self._body):
            return memoryview(self._body)[self._filled :]
        return memoryview(self._owner.scratch)

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        if self._lingers:
            return
        if self._answering:
            self._keep_early(self._owner.scratch[:nbytes])
        elif self._body is not None and not self._is_chunked:
            self._filled += nbytes
            if self._filled == len(self._body):
                self._answer_with(self._body)
        else:
            self._read(self._owner.scratch[:nbytes])

    def eof_received(self) -> None:
        """Take the end of what the caller sends for the end of its interest."""

    def pause_writing(self) -> None:
        """Note that the caller reads more slowly than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Note that it has caught up."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why does not matter
        """Cancel what was being answered and give back what was held."""
        if self._timer:
            self._timer.cancel()
        if self._answering:
            self._answering.cancel()
        self._release()
        self._owner.leave(self)

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport:
            self._transport.abort()

    # --- reading --------------------------------------------------------------------------------------------------

    def _keep_early(self, data: bytes | bytearray) -> None:
        self._early += data
        if len(self._early) > _EARLY_BYTES and self._transport:
            self._transport.pause_reading()

    def _read(self, data: bytes | bytearray) -> None:
        """Give bytes of a head or of a chunked body to h11, and follow what it makes of them."""
        if self._may_idle and self._deadline is None:
            self._give(self._owner.limits.head_seconds)
        try:
            self._http.receive_data(bytes(data))
            self._follow()
        except h11.RemoteProtocolError as error:
            self._refuse(HttpError(HTTPStatus(error.error_status_hint), f"this is not HTTP/1.1: {error}"))
        except HttpError as error:
            self._refuse(error)

    def _follow(self) -> None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.Request):
                self._begin(event)
                if not self._is_chunked:
                    self._receive_in_place()
                    return
            elif isinstance(event, h11.Data):
                self._hold(len(event.data))
                assert self._body is not None
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert self._body is not None
                self._early += self._http.trailing_data[0]
                self._answer_with(self._body)
                return
            else:
                return

    def _begin(self, head: h11.Request) -> None:
        """Judge a request by its head, before any of its body is taken. Raises :class:`HttpError`."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in head.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._check_caller(headers)
        segments = segments_of(head.target.decode("latin-1"))
        self._is_chunked = "transfer-encoding" in headers
        size = 0 if self._is_chunked else int(headers.get("content-length", "0"))
        self._hold(size)
        self._body = bytearray(size)
        self._request = Request(head.method.decode("ascii"), segments, headers)
        self._give(self._owner.limits.body_seconds)
        if self._http.they_are_waiting_for_100_continue:
            self._write([self._http.send(h11.InformationalResponse(status_code=100, headers=[]))])

    def _check_caller(self, headers: dict[str, str]) -> None:
        """Refuse what a browser sends on behalf of a page from elsewhere."""
        if self._is_local:
            return
        host, origin = headers.get("host"), headers.get("origin")
        if host is not None and not is_local_name(host):
            raise HttpError(HTTPStatus.MISDIRECTED_REQUEST, f"expected the host localhost or 127.0.0.1, got {host!r}")
        if origin is not None and not is_local_name(origin.partition("://")[2]):
            raise HttpError(HTTPStatus.FORBIDDEN, f"pages from {origin!r} may not ask this device")

    def _receive_in_place(self) -> None:
        """Take what h11 has of the body, and the rest from the socket without h11."""
        assert self._body is not None
        came = self._http.trailing_data[0]
        self._filled = min(len(came), len(self._body))
        self._body[: self._filled] = came[: self._filled]
        self._early += came[self._filled :]
        if self._filled == len(self._body):
            self._answer_with(self._body)

    def _hold(self, size: int) -> None:
        if self._held + size > self._owner.limits.body_bytes:
            limit = self._owner.limits.body_bytes
            raise HttpError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"expected a body of at most {limit} bytes, got {self._held + size}; send fewer rows at a time",
            )
        self._owner.hold(size)
        self._held += size

    def _release(self) -> None:
        self._owner.release(self._held)
        self._held = 0

    # --- answering ------------------------------------------------------------------------------------------------

    def _answer_with(self, body: bytearray) -> None:
        self._give(None)
        self._answering = self._loop.create_task(self._answer(body))

    async def _answer(self, body: Payload) -> None:
        assert self._request is not None
        request = self._request
        try:
            body = self._unpacked(request.headers.get("content-encoding", "identity"), body)
            response = await self._owner.handler(
                Request(request.method, request.segments, request.headers, memoryview(body))
            )
        except HttpError as error:
            response = error_response(error)
        except Exception as error:  # a fault of ours must not leave the caller without an answer
            log_event("http_failed", level=logging.ERROR, reason=f"{type(error).__name__}: {error}")
            response = error_response(HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "the agent failed; see its log"))
        self._body, body = None, b""
        self._release()
        self._send(response)
        if not self._writable.is_set():
            self._give(self._owner.limits.write_seconds)
            await self._writable.wait()
        self._start_over()

    def _unpacked(self, encoding: str, body: Payload) -> Payload:
        """Return ``body`` without its content encoding, bounded. Raises :class:`HttpError` (400, 413, 415)."""
        if encoding == "identity":
            return body
        if encoding not in ("gzip", "deflate"):
            raise HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected gzip or deflate, got {encoding!r}")
        unpacker = zlib.decompressobj(wbits=_GZIP_OR_ZLIB)
        try:
            unpacked = unpacker.decompress(body, self._owner.limits.body_bytes + 1)
        except zlib.error as error:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the body is not {encoding}: {error}") from error
        self._release()  # the packed form is not needed any more
        self._hold(len(unpacked))
        if not unpacker.eof or unpacker.unused_data:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the {encoding} body is cut off, or something follows it")
        return unpacked

    def _send(self, response: Response, *, close: bool = False) -> None:
        head = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(response.size)),
            *response.headers,
            *([("Connection", "close")] if close else []),
        ]
        phrase = response.status.phrase.encode("ascii")
        parts: list[Payload] = [
            self._http.send(h11.Response(status_code=response.status, headers=head, reason=phrase)) or b""
        ]
        for part in response.parts:
            parts += self._http.send_with_data_passthrough(h11.Data(data=part)) or []  # type: ignore[arg-type]  # h11 passes on what is like bytes
        self._http.send(h11.EndOfMessage())
        self._write(parts)

    def _write(self, parts: list[Payload]) -> None:
        assert self._transport is not None
        if sum(len(part) for part in parts) <= _JOINED_BYTES:
            parts = [b"".join(parts)]
        for part in parts:
            self._transport.write(part)

    def _start_over(self) -> None:
        """Wait for the next request, or end when one of both sides wants that."""
        assert self._transport is not None
        self._answering = None
        if self._http.our_state is not h11.DONE:
            self._give(_LINGER_SECONDS)
            self._transport.close()
            return
        self._forget_request()
        self._transport.resume_reading()
        self._give(None if self._may_idle else self._owner.limits.idle_seconds)
        if self._early:
            early, self._early = self._early, bytearray()
            self._read(early)

    def _refuse(self, error: HttpError) -> None:
        """Answer without having read everything: say why, then take no more."""
        assert self._transport is not None
        self._release()
        self._body = None
        self._lingers = True
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(error_response(error), close=True)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._give(_LINGER_SECONDS)

    def _give(self, seconds: float | None) -> None:
        """Drop the connection in ``seconds`` if nothing happens; ``None`` takes that back."""
        if seconds is None:
            self._deadline = None
            return
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._wake_at(self._deadline)

    def _wake_at(self, when: float) -> None:
        """Look at the deadline then. A timer for each deadline would cost a request more than this one does."""
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._wake_at(self._deadline)
        else:
            self.abort()

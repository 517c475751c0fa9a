"""A small HTTP/1.1 client for downloads: GET with Range and a bearer, over one connection, in pieces.

h11 does the protocol, asyncio the sockets; it is cancelled like any task. It follows no redirection, keeps no cookie
and decompresses nothing. Example::

    async with HttpDownload(HttpAccess(server="http://10.0.0.1:8000", bearer=…, ca=…)) as download:
        async with download.get("blocks/ca53…") as pieces:
            async for piece in pieces: …
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import h11

from edgeopt_contract.errors import UnreachableError

__all__ = ["HttpAccess", "HttpDownload", "Part"]

_CONNECT_SECONDS = 20.0
_SILENCE_SECONDS = 45.0  # TCP may need twice an outage of 14 s to go on after it
_PIECE_BYTES = 64 * 1024
_AHEAD_BYTES = 32 * 1024  # a kill costs what was received and not yet written
_PROBLEM_BYTES = 4096
_OK, _PARTIAL = 200, 206
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAccess:
    """Where the fleet is, as whom to ask, and which CA (PEM) to believe where the address is ``https``."""

    server: str
    bearer: str = field(repr=False)
    ca: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The bytes from ``first`` to ``last`` of a file of ``size`` bytes whose entity tag is ``tag``."""

    first: int
    last: int
    size: int
    tag: str

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Ask for this part of exactly this file (RFC 9110, sections 13.1.5 and 14.2)."""
        return [("Range", f"bytes={self.first}-{self.last}"), ("If-Range", f'"{self.tag}"')]

    def is_answered_by(self, response: h11.Response) -> bool:
        """Say whether the body of ``response`` is this part."""
        if response.status_code == _OK:  # the whole file: also an answer, where all of it was asked for
            return self.first == 0 and self.last == self.size - 1
        expected = f"bytes {self.first}-{self.last}/{self.size}".encode("ascii")
        return response.status_code == _PARTIAL and (b"content-range", expected) in response.headers


class HttpDownload:
    """One connection to the fleet; made when it is entered, closed when it is left."""

    def __init__(self, access: HttpAccess) -> None:
        self._access = access
        self._url = urlsplit(access.server)
        self._protocol = h11.Connection(h11.CLIENT)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        url = self._url
        if url.scheme not in _PORTS or url.hostname is None:
            raise UnreachableError(f"expected a server like https://fleet.example, got {self._access.server!r}")
        context = ssl.create_default_context(cadata=self._access.ca) if url.scheme == "https" else None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                self._reader, self._writer = await asyncio.open_connection(
                    url.hostname, url.port or _PORTS[url.scheme], ssl=context, limit=_AHEAD_BYTES
                )
        except (OSError, ValueError) as error:  # TimeoutError, ssl.SSLError and gaierror are OSErrors
            raise UnreachableError(f"no fleet answers at {self._access.server}: {error or 'time-out'}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    @contextlib.asynccontextmanager
    async def get(self, path: str, part: Part | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET ``/api/v1/<path>``, or ``part`` of it, and give its body in pieces.

        Raises :class:`UnreachableError` when something else comes, the connection is lost, or nothing comes for long.
        """
        try:
            response = await self._ask(path, part)
            good = part.is_answered_by(response) if part else response.status_code == _OK
            if not good:
                raise UnreachableError(f"{path}: {await self._explain(response)}")
            yield self._body()
            self._protocol.start_next_cycle()
        except (OSError, h11.ProtocolError) as error:
            reason = f"silent for {_SILENCE_SECONDS:.0f} s" if isinstance(error, TimeoutError) else error
            raise UnreachableError(f"{path}: the download was cut off: {reason}") from error

    async def _ask(self, path: str, part: Part | None) -> h11.Response:
        headers = [
            ("Host", self._url.netloc),
            ("Authorization", f"Bearer {self._access.bearer}"),
            ("Accept-Encoding", "identity"),
            *(part.headers if part else ()),
        ]
        target = f"{self._url.path.rstrip('/')}/api/v1/{path}"
        request = self._protocol.send(h11.Request(method="GET", target=target, headers=headers))
        end = self._protocol.send(h11.EndOfMessage())
        self._writer.write((request or b"") + (end or b""))
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the connection was closed before an answer")

    async def _body(self) -> AsyncIterator[bytes]:
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise h11.RemoteProtocolError("the connection was closed in the middle")

    async def _next_event(self) -> h11.Event:
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    self._protocol.receive_data(await self._reader.read(_PIECE_BYTES))
            elif isinstance(event, h11.Event):
                return event
            else:
                raise h11.RemoteProtocolError("the server wants to speak another protocol")

    async def _explain(self, response: h11.Response) -> str:
        """Return the fleet's own words, as far as they are few."""
        text = bytearray()
        async for piece in self._body():
            text += piece
            if len(text) > _PROBLEM_BYTES:
                break
        return f"{response.status_code} {text[:_PROBLEM_BYTES].decode('utf-8', 'replace')}".strip()

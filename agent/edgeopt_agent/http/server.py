"""HTTP/1.1 on the event loop: limits, deadlines, keep-alive and who may call. What paths mean is the handler's part.

h11 reads heads and chunked bodies; a body of known length goes from the socket straight to its place. One process, no
threads, and nothing that a caller can make grow: connections, heads, bodies (each, and all together) and every wait
are bounded. It serves the machine it runs on: no TLS, no authentication; a ``Host`` or ``Origin`` that is not this
machine's name is refused, so that a web page cannot reach it through a browser (DNS rebinding). Example::

    server = HttpServer(answer, HttpLimits())     # async def answer(request) -> Response
    port = await server.listen(0)
    ...
    await server.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

from edgeopt_agent.http.connection import Connection
from edgeopt_agent.http.messages import HttpError, HttpLimits, Request, Response
from edgeopt_contract.errors import UsageError

__all__ = ["HttpServer"]

_LOCAL = "127.0.0.1"
_SCRATCH_BYTES = 16 << 10  # a head and the beginning of a body; more would be copied more often


class HttpServer:
    """Accepts connections and hands each request to ``handler``, which raises :class:`HttpError` to refuse it."""

    def __init__(self, handler: Callable[[Request], Awaitable[Response]], limits: HttpLimits) -> None:
        self.handler = handler
        self.limits = limits
        self._connections: set[Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._held_bytes = 0
        self._socket_path: Path | None = None
        self.scratch = bytearray(_SCRATCH_BYTES)  # one for all: what comes in is taken out in the same step

    # --- listening ------------------------------------------------------------------------------------------------

    async def listen(self, port: int) -> int:
        """Listen on ``port`` of 127.0.0.1 (0: a free one) and return it. Raises ``OSError`` when it is taken."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), _LOCAL, port)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket that only this user may use; one left over by a killed agent is replaced.

        Raises :class:`UsageError` for a path that is too long or not a socket, or that cannot be used.
        """
        listener = _bound(path)
        loop = asyncio.get_running_loop()
        self._socket_path = path
        self._servers.append(await loop.create_unix_server(lambda: Connection(self, is_local=True), sock=listener))

    async def adopt(self, connected: socket.socket) -> None:
        """Serve a socket that is connected already, such as one end of a pair; it may be silent for ever."""
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: Connection(self, is_local=True, may_idle=True), connected)

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.abort()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        if self._socket_path:
            with contextlib.suppress(OSError):  # whoever removed it meant it
                self._socket_path.unlink()

    # --- what connections count against ---------------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether a further connection is one too many."""
        return len(self._connections) > self.limits.connections

    def enter(self, connection: Connection) -> None:
        """Remember ``connection``."""
        self._connections.add(connection)

    def leave(self, connection: Connection) -> None:
        """Forget ``connection``."""
        self._connections.discard(connection)

    def hold(self, size: int) -> None:
        """Reserve ``size`` bytes for a body. Raises :class:`HttpError` (413, 503)."""
        if size > self.limits.body_bytes:
            raise HttpError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"expected a body of at most {self.limits.body_bytes} bytes, got {size}; send fewer rows at a time",
            )
        if self._held_bytes + size > self.limits.held_bytes:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"the bodies of other requests take {self._held_bytes} of {self.limits.held_bytes} bytes; try again",
            )
        self._held_bytes += size

    def release(self, size: int) -> None:
        """Give back what :meth:`hold` reserved."""
        self._held_bytes -= size


def _bound(path: Path) -> socket.socket:
    """Return a listening socket at ``path`` that only this user may use."""
    if path.exists() and not path.is_socket():
        raise UsageError(f"{path} is there and is not a socket: choose another path")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise UsageError(f"a socket cannot be made at {path} (at most 107 characters): {error}") from error
    path.chmod(0o600)
    return listener

"""Answers HTTP until the process is told to end.

Example::

stop = stop_on_signals()
with contextlib.closing(listen("127.0.0.1", 8080)) as listener:
    await answer(app, listener, stop, pair=None)
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from edgeopt_contract.errors import UsageError

__all__ = ["answer", "free_port", "listen", "stop_on_signals"]

_SHUTDOWN_SECONDS = 3  # for answers that have been begun


def free_port(host: str) -> int:
    """Return a TCP port that is free on ``host`` at this moment."""
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise UsageError(f"cannot listen on {host}: {error.strerror}; give an address of this machine") from error
        return int(probe.getsockname()[1])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises :class:`UsageError` when the port is taken."""
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}; stop what listens there, or change fleet.toml"
        ) from error


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


class _Web(uvicorn.Server):
    """uvicorn without its own signal handling: a signal ends the whole process, not only its web part."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def answer(app: ASGIApp, listener: socket.socket, stop: asyncio.Event, pair: Path | None) -> None:
    """Answer until ``stop``, with TLS when there is a ``pair`` (certificate and key); then end what was begun."""
    pem = None if pair is None else str(pair)
    web = _Web(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=pem,
            ssl_keyfile=pem,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
    )

    async def end() -> None:
        await stop.wait()
        web.should_exit = True

    watcher = asyncio.create_task(end())
    try:
        await web.serve(sockets=[listener])
    finally:
        watcher.cancel()

"""Where inference requests come from: HTTP on loopback, a Unix socket, a Python iterable, or a folder.

``http[:PORT]``      the Open Inference Protocol on 127.0.0.1
``unix:PATH``        the same on a socket that only this user may use
``module:factory``   an iterable of inputs or ``(inputs, label)``; the label is not used on the device
``folder:PATH``      files dropped there; results beside them in ``PATH/results``

The last two run in a process of their own (:mod:`edgeopt_agent.inference.feeding`), which asks over a socket pair: a
camera that crashes does not take the agent down, and the agent carries neither NumPy nor the user's modules. A source
that fails is logged and ends. Example::

    for source in make_sources(config):
        group.create_task(source.run(serving))
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edgeopt_agent.config import AgentConfig
from edgeopt_agent.http.api import InferenceApi
from edgeopt_agent.http.messages import HttpLimits
from edgeopt_agent.http.server import HttpServer
from edgeopt_agent.inference.serving import Serving
from edgeopt_agent.log import log_event
from edgeopt_contract.errors import EdgeoptError, UsageError

__all__ = ["FeedSource", "HttpSource", "Source", "UnixSource", "make_sources"]

_DEFAULT_HTTP_PORT = 8080
_END_SECONDS = 3.0
_LONGEST_LINE = 4096


class Source(Protocol):
    """Something that asks for inferences."""

    async def run(self, serving: Serving) -> None:
        """Ask until cancelled, or until there is nothing more to ask."""
        ...


def make_sources(config: AgentConfig) -> list[Source]:
    """Return the sources that ``config`` names. Raises :class:`UsageError` for one that cannot be made."""
    return [_make_source(text, config) for text in config.sources]


def _make_source(text: str, config: AgentConfig) -> Source:
    kind, separator, rest = text.partition(":")
    if kind == "http":
        port = rest or str(_DEFAULT_HTTP_PORT)
        if not port.isdigit() or int(port) > 65535:
            raise UsageError(f"--source {text}: expected a port from 0 to 65535, got {port!r}")
        return HttpSource(int(port), config.queue_limit)
    if kind == "unix":
        return UnixSource(Path(rest), config.queue_limit)
    if not separator or not kind or not rest:
        raise UsageError(f"--source: expected module:factory, folder:PATH, unix:PATH or http, got {text!r}")
    return FeedSource(text, config.interval_seconds, repeat=config.repeat)


@dataclass(frozen=True, slots=True)
class HttpSource:
    """Serves HTTP on ``port`` of loopback; 0 takes a free one and logs it."""

    port: int
    places: int

    async def run(self, serving: Serving) -> None:
        """Answer until cancelled."""
        server = HttpServer(InferenceApi(serving, self.places).answer, HttpLimits())
        try:
            log_event("http_listening", port=await server.listen(self.port))
            await asyncio.get_running_loop().create_future()  # until cancelled
        except OSError as error:
            log_event("source_failed", level=logging.ERROR, source=f"http:{self.port}", reason=error)
        finally:
            await server.close()


@dataclass(frozen=True, slots=True)
class UnixSource:
    """Serves HTTP on a Unix socket at ``path``."""

    path: Path
    places: int

    async def run(self, serving: Serving) -> None:
        """Answer until cancelled."""
        server = HttpServer(InferenceApi(serving, self.places).answer, HttpLimits())
        try:
            await server.listen_unix(self.path)
            log_event("http_listening", path=self.path)
            await asyncio.get_running_loop().create_future()  # until cancelled
        except (EdgeoptError, OSError) as error:
            log_event("source_failed", level=logging.ERROR, source=f"unix:{self.path}", reason=error)
        finally:
            await server.close()


class FeedSource:
    """A child process that takes items and asks for each, one after the other; at its end it idles, or repeats."""

    def __init__(self, text: str, interval_seconds: float = 0.0, *, repeat: bool = False) -> None:
        """Start the process and wait until it has imported what it needs. Raises :class:`UsageError` if it cannot."""
        self.text = text
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "edgeopt_agent.inference.feeding", "--socket", str(theirs.fileno())]
        command += ["--interval", str(interval_seconds), *(["--repeat"] if repeat else []), text]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C in a terminal is the agent's business alone
        )
        theirs.close()
        assert self._process.stdout is not None
        told = _event(self._process.stdout.readline())
        if told.get("event") != "ready":
            self._end()
            raise UsageError(f"--source {text}: {told.get('reason', 'its process ended while it was started')}")

    async def run(self, serving: Serving) -> None:
        """Answer what the process asks, and log what it tells, until it ends."""
        server = HttpServer(InferenceApi(serving, 1).answer, HttpLimits())
        reader = asyncio.StreamReader(limit=_LONGEST_LINE)
        loop = asyncio.get_running_loop()
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout)
        try:
            await server.adopt(self._socket)
            while line := await reader.readline():
                told = _event(line)
                level = logging.getLevelNamesMapping().get(told.pop("level", ""), logging.INFO)
                log_event(told.pop("event", "source_talks"), level=level, source=self.text, **told)
            code = await asyncio.to_thread(self._process.wait)
            if code:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                log_event("source_failed", level=logging.ERROR, source=self.text, reason=f"its process ended: {how}")
        finally:
            pipe.close()
            await server.close()
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        """End the process, by force if it does not listen."""
        self._socket.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _event(line: bytes) -> dict[str, Any]:
    """Return what a line of the process says; the line itself when it is not one of ours."""
    try:
        return msgspec.json.decode(line, type=dict[str, Any]) if line else {}
    except msgspec.MsgspecError:
        return {"event": "source_talks", "text": line}

"""One runner process: start, ask with a time limit, end. What dies or hangs is killed and reported as a crash.

It does not decide how often to start again: :mod:`edgeopt_agent.serving` does. Example::

    runner = RunnerProcess(RunnerOptions(threads=1, infer_timeout_seconds=30))
    loaded = await runner.load(path)
    answer = await runner.infer({"x": batch})
    await runner.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeopt_agent.runner.frames import (
    HEADER_BYTES,
    Answer,
    Failed,
    Infer,
    Load,
    Loaded,
    Reply,
    Request,
    Tensor,
    body_length,
    decode_frame,
    encode_frame,
)
from edgeopt_contract.errors import ModelError, WorldError

__all__ = ["RunnerCrashError", "RunnerOptions", "RunnerProcess"]

_LOAD_TIMEOUT_SECONDS = 120.0
_STOP_TIMEOUT_SECONDS = 2.0
_ENDED = "it ended"


class RunnerCrashError(WorldError):
    """The runner died, hung or talked nonsense; it has been killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """How runners are started and how long they may take."""

    threads: int = 1
    memory_bytes: int | None = None
    infer_timeout_seconds: float = 30.0


class RunnerProcess:
    """A child process with one model. One request at a time; the caller queues."""

    def __init__(self, options: RunnerOptions) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def load(self, path: Path) -> Loaded:
        """Start the process if need be and load ``path``.

        Raises :class:`ModelError` when the runtime refuses the file, :class:`RunnerCrashError` when it takes the
        process down.
        """
        if self.pid is None:
            await self._start()
        reply = await self._ask(Load(str(path), self._options.threads), _LOAD_TIMEOUT_SECONDS)
        if isinstance(reply, Failed):
            raise ModelError(f"{path.name} cannot be loaded: {reply.reason}")
        if not isinstance(reply, Loaded):
            raise await self._crash("it answered a request that was not made")
        return reply

    async def infer(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Answer:
        """Run the model on a batch. Raises :class:`ModelError` or :class:`RunnerCrashError`."""
        request = Infer([Tensor.of(name, array) for name, array in inputs.items()])
        reply = await self._ask(request, self._options.infer_timeout_seconds)
        if isinstance(reply, Failed):
            raise ModelError(f"the model failed on an input: {reply.reason}")
        if not isinstance(reply, Answer):
            raise await self._crash("it answered a request that was not made")
        return reply

    async def stop(self) -> None:
        """End the process: politely by closing its input, then by killing it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
                    await process.wait()
            except TimeoutError:
                _kill(process)
        await process.wait()

    async def _start(self) -> None:
        limit = self._options.memory_bytes
        arguments = ["--memory-bytes", str(limit)] if limit else []
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edgeopt_agent.runner",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is the agent's business alone
        )

    async def _ask(self, request: Request, timeout_seconds: float) -> Reply:
        process = self._process
        if process is None or process.returncode is not None:
            raise await self._crash("it is not running")
        try:
            async with asyncio.timeout(timeout_seconds):
                return await _exchange(process, request)
        except TimeoutError as error:
            raise await self._crash(f"no answer within {timeout_seconds:g} s") from error
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            raise await self._crash(_ENDED) from error
        except asyncio.CancelledError:
            _kill(process)  # half an exchange: the next reply would belong to this request
            raise

    async def _crash(self, what: str) -> RunnerCrashError:
        """Kill what is left and return the error that says how it ended."""
        process, self._process = self._process, None
        if process is None:
            return RunnerCrashError(f"the runner crashed: {what}")
        if what != _ENDED:
            _kill(process)
            await process.wait()
            return RunnerCrashError(f"the runner crashed: {what}")
        try:  # a signal now would race with the end itself, and asyncio would lose how it ended
            async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
                code = await process.wait()
        except TimeoutError:
            _kill(process)
            code = await process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return RunnerCrashError(f"the runner crashed: {what} ({how})")


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself in this moment
        process.kill()


async def _exchange(process: asyncio.subprocess.Process, request: Request) -> Reply:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(encode_frame(request))
    await process.stdin.drain()
    length = body_length(await process.stdout.readexactly(HEADER_BYTES))
    reply: Reply = decode_frame(Reply, await process.stdout.readexactly(length))
    return reply

"""One runner process: start, ask with limits of time and memory, end. What breaks a limit is killed: a crash.

A request may take ``infer_timeout_seconds`` for each run of the model: while runs are counted it is at work, not
hanging. The memory is limited twice: the kernel refuses the child more data than its limit (``RLIMIT_DATA``), and the
agent looks at the resident memory and at what the machine has left, so that the kernel's OOM killer, whose first choice
the child is (``oom_score_adj``), has nothing to choose. It does not decide how often to start again:
:mod:`edgeopt_agent.inference.served` does. Example::

    runner = RunnerProcess(RunnerOptions(threads=1, infer_timeout_seconds=30))
    loaded = await runner.load(Load(path=…, runtime="onnxruntime", …))
    answer, outputs = await runner.infer([Tensor("x", "float32", (4,), data)])
    await runner.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgeopt_agent.device.machine import available_memory, resident_memory
from edgeopt_agent.inference.channel import Channel
from edgeopt_agent.runner.frames import (
    Answer,
    Blame,
    Compared,
    Failed,
    Load,
    Loaded,
    Reply,
    Request,
    SelfTest,
    SelfTested,
    Settle,
    Settled,
    Tensor,
)
from edgeopt_contract.errors import BundleError, DataError, EdgeoptError, ModelError, StorageError, WorldError

__all__ = ["RunnerCrashError", "RunnerOptions", "RunnerProcess"]

T = TypeVar("T")
_STOP_TIMEOUT_SECONDS = 2.0
_LOOK_SECONDS = 0.1  # how often a request under way is looked at
_ENDED = "it ended"
_NONSENSE = "it answered a request that was not made"
_MIB = 1 << 20


class RunnerCrashError(WorldError):
    """The runner died, hung, took too much memory or talked nonsense; it has been killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """How runners are started and what they may take.

    ``memory_bytes`` limits one runner; ``reserve_bytes`` is what the whole machine must have left while one works.
    """

    threads: int = 1
    nice: int = 0
    oom_score: int = 500  # which process the kernel ends first when memory ends, from -1000 (never) to 1000
    memory_bytes: int | None = None
    reserve_bytes: int = 16 * _MIB
    infer_timeout_seconds: float = 30.0
    load_timeout_seconds: float = 120.0


class RunnerProcess:
    """A child process with one model. One request at a time; the caller queues.

    ``progress`` gives a number that grows with every run of the model.
    """

    def __init__(self, options: RunnerOptions, progress: Callable[[], int] = lambda: 0) -> None:
        self._options = options
        self._progress = progress
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def load(self, request: Load) -> Loaded:
        """Start the process if need be and load a model.

        Raises :class:`ModelError` when the runtime refuses the file, :class:`BundleError` when its profile cannot be
        read, :class:`StorageError` when its counts cannot be mapped, :class:`RunnerCrashError` when it takes the
        process down.
        """
        if self.pid is None:
            await self._start()
        reply = await self._ask(request, self._options.load_timeout_seconds)
        if isinstance(reply, Failed):
            raise await self._failure(reply, f"{request.path.rpartition('/')[2]} cannot be loaded")
        if not isinstance(reply, Loaded):
            raise await self._crash(_NONSENSE)
        return reply

    async def infer(self, tensors: Sequence[Tensor]) -> tuple[Answer, tuple[Tensor, ...]]:
        """Run the model. Raises :class:`DataError`, :class:`ModelError` or :class:`RunnerCrashError`."""
        reply, outputs = await self._within(self._options.infer_timeout_seconds, lambda channel: channel.infer(tensors))
        if isinstance(reply, Failed):
            raise await self._failure(reply, "the model failed on an input")
        if not isinstance(reply, Answer):
            raise await self._crash(_NONSENSE)
        return reply, outputs

    async def compare(self, tensors: Sequence[Tensor], expected: Sequence[Tensor], microseconds: float) -> Compared:
        """Run the model, compare with ``expected``, which took ``microseconds``. Raises as :meth:`infer`."""
        reply = await self._within(
            self._options.infer_timeout_seconds, lambda channel: channel.compare(tensors, expected, microseconds)
        )
        if isinstance(reply, Failed):
            raise await self._failure(reply, "the model failed on an input")
        if not isinstance(reply, Compared):
            raise await self._crash(_NONSENSE)
        return reply

    async def test(self, request: SelfTest) -> SelfTested:
        """Run the self-test. Raises :class:`BundleError`, :class:`ModelError` or :class:`RunnerCrashError`."""
        reply = await self._ask(request, self._options.infer_timeout_seconds)
        if isinstance(reply, Failed):
            raise await self._failure(reply, "the model failed on a golden input")
        if not isinstance(reply, SelfTested):
            raise await self._crash(_NONSENSE)
        return reply

    async def settle(self) -> None:
        """Return once everything that was answered is counted. Raises :class:`RunnerCrashError`."""
        reply = await self._ask(Settle(), self._options.infer_timeout_seconds)
        if not isinstance(reply, Settled):
            raise await self._crash(_NONSENSE)

    async def ended(self) -> RunnerCrashError:
        """Return when the process that runs now has ended, with how it ended."""
        process = self._process
        if process is None:
            return RunnerCrashError("the runner crashed: it is not running")
        return RunnerCrashError(f"the runner crashed: {_ENDED} ({_how(await process.wait())})")

    async def stop(self) -> None:
        """End the process: politely by closing its input, then by killing it."""
        process, self._process = self._process, None
        self._hang_up()
        if process is None:
            return
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_SECONDS):
                await process.wait()
        except TimeoutError:
            _kill(process)
            await process.wait()

    async def _start(self) -> None:
        options, channel = self._options, Channel.open()
        arguments = ["--nice", str(options.nice), "--oom-score", str(options.oom_score)]
        if options.memory_bytes:
            arguments += ["--memory-bytes", str(options.memory_bytes)]
        for descriptor in channel.inherited:
            arguments += ["--shared", str(descriptor)]
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edgeopt_agent.runner",
                *arguments,
                stdin=channel.requests,
                stdout=channel.replies,
                pass_fds=channel.inherited,
                start_new_session=True,  # Ctrl-C in a terminal is the agent's business alone
            )
        finally:
            try:
                await channel.connect()
            except BaseException:  # cancelled halfway, as by a switch to another bundle: nobody may speak through it
                channel.close()
                raise
            self._channel = channel

    async def _ask(self, request: Request, timeout_seconds: float) -> Reply:
        return await self._within(timeout_seconds, lambda channel: channel.ask(request))

    async def _within(self, timeout_seconds: float, exchange: Callable[[Channel], Awaitable[T]]) -> T:
        """Have one exchange with the process. Raises :class:`RunnerCrashError`."""
        process, channel = self._process, self._channel
        if process is None or channel is None or process.returncode is not None:
            raise await self._crash("it is not running")
        watch = _Watch(process, self._options, self._progress, timeout_seconds)
        try:
            return await exchange(channel)
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            raise await self._crash(watch.verdict or _ENDED) from error
        except asyncio.CancelledError:
            _kill(process)  # half an exchange: the next reply would belong to this request
            raise
        finally:
            watch.end()

    async def _failure(self, reply: Failed, doing: str) -> EdgeoptError:
        """Return the error that ``reply`` is; what ran out of memory is ended, for it may not run well any more."""
        if reply.blame is Blame.MEMORY:
            return await self._crash(f"{doing}: {reply.reason}")
        if reply.blame is Blame.INPUT:
            return DataError(reply.reason)
        if reply.blame is Blame.DISK:
            return StorageError(reply.reason)
        if reply.blame is Blame.BUNDLE:
            return BundleError(reply.reason)
        return ModelError(f"{doing}: {reply.reason}")

    async def _crash(self, what: str) -> RunnerCrashError:
        """Kill what is left and return the error that says how it ended."""
        process, self._process = self._process, None
        self._hang_up()
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
        return RunnerCrashError(f"the runner crashed: {what} ({_how(code)})")

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


class _Watch:
    """Looks at a process while it works on one request, and kills it when it breaks a limit: ``verdict`` says which."""

    def __init__(
        self, process: asyncio.subprocess.Process, options: RunnerOptions, progress: Callable[[], int], seconds: float
    ) -> None:
        self.verdict = ""
        self._process = process
        self._options = options
        self._progress = progress
        self._seconds = seconds
        self._runs = -1
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._pause = min(_LOOK_SECONDS, seconds)
        self._timer = self._loop.call_later(self._pause, self._look)

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        self._since += self._loop.time() - self._timer.when()  # the event loop was late: the answer may be there unread
        self.verdict = self._judge()
        if self.verdict:
            _kill(self._process)
        else:
            self._timer = self._loop.call_later(self._pause, self._look)

    def _judge(self) -> str:
        runs, now = self._progress(), self._loop.time()
        if runs != self._runs:
            self._since = now if self._runs >= 0 else self._since
            self._runs = runs
        if now - self._since >= self._seconds:
            return f"no answer within {self._seconds:g} s"
        resident, limit = resident_memory(self._process.pid), self._options.memory_bytes
        if limit is not None and resident > limit:
            return f"it took {resident // _MIB} MiB of memory, {limit // _MIB} are allowed"
        left = available_memory()
        if left is not None and left < self._options.reserve_bytes < resident:
            return f"it took {resident // _MIB} MiB of memory, the machine has only {left // _MIB} MiB left"
        return ""


def _how(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself in this moment
        process.kill()

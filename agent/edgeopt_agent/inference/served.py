"""One bundle and the runner that has it loaded: it answers, is started again when it crashes, and is tested.

Requests are answered one after the other. While the runner is away they are refused at once, and it is started again
after pauses that grow (full jitter); what it answers then is tested with the golden inputs before anybody else gets an
answer. Which bundle answers is :mod:`edgeopt_agent.inference.serving`'s part. Example::

    served = Served(installed, options, counts, on_change=lambda served: …)
    await served.start()
    answer, outputs = await served.infer([Tensor("x", "float32", (4,), data)])
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import msgspec

from edgeopt_agent.inference.health import Health, HealthLimits
from edgeopt_agent.inference.supervisor import RunnerCrashError, RunnerOptions, RunnerProcess
from edgeopt_agent.log import log_event
from edgeopt_agent.mqtt.backoff import full_jitter
from edgeopt_agent.reports.counts import ROWS, RUNS, Counts
from edgeopt_agent.runner.frames import Answer, Champion, Load, SelfTest, Tensor
from edgeopt_agent.tasks import end_tasks
from edgeopt_agent.update.slots import Installed
from edgeopt_contract.errors import BundleError, EdgeoptError, ModelError, StorageError, WorldError
from edgeopt_contract.manifest import Role

__all__ = ["BusyError", "NotServingError", "RestartingError", "Served", "ServedOptions"]

_R = TypeVar("_R")
_RESTART_BASE_SECONDS = 0.05
_RESTART_CAP_SECONDS = 30.0


class NotServingError(WorldError):
    """Nothing can answer now. The request was not tried, and is not counted."""


class BusyError(NotServingError):
    """As many requests wait as may."""


class RestartingError(NotServingError):
    """The runner is away and will be back: it crashed, or an update needs its memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedOptions:
    """How runners are started, what is still healthy, and how many requests may wait for one."""

    runner: RunnerOptions
    limits: HealthLimits = field(default_factory=HealthLimits)
    queue_limit: int = 16


class Served:
    """See the module."""

    def __init__(
        self,
        installed: Installed,
        options: ServedOptions,
        counts: Counts,
        on_change: Callable[[Served], None] = lambda _: None,
        champion: Champion | None = None,
    ) -> None:
        self.installed = installed
        self._champion = champion
        self.counts = counts
        self.health = Health(options.limits)
        self.is_ready = False
        self.is_paused = False
        self._options = options
        self._on_change = on_change
        self._away = "it has not been started"
        self._runner = RunnerProcess(options.runner, self._progress)
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._rows = counts.cell(ROWS)
        self._recovery: asyncio.Task[None] | None = None
        self._guard: asyncio.Task[None] | None = None
        self._random = Random()  # noqa: S311  # spreads restarts; nothing secret depends on it

    @property
    def slot(self) -> str:
        """The slot that the bundle lies in."""
        return self.installed.directory.name

    @property
    def runner_pid(self) -> int | None:
        """The process id of the runner while it lives."""
        return self._runner.pid

    async def start(self) -> None:
        """Load the model and check that the loading process read the right bytes.

        Raises :class:`~edgeopt_contract.errors.ModelError`, :class:`RunnerCrashError` or :class:`BundleError`.
        """
        await self._load()
        self._set_ready()

    async def infer(self, tensors: Sequence[Tensor]) -> tuple[Answer, tuple[Tensor, ...]]:
        """Run the model and count; a request that fails is counted as errors.

        Raises :class:`BusyError` or :class:`RestartingError` at once, and what the runner raised. To cancel it ends the
        runner: who waits for others lets it run to its end (``asyncio.shield``).
        """
        return await self._count(tensors, lambda: self._runner.infer(tensors), lambda answer: answer[0].nonfinite)

    async def compare(self, tensors: Sequence[Tensor], expected: Sequence[Tensor], microseconds: float) -> None:
        """Run the model and count how well it agrees with the champion's answer. Raises as :meth:`infer`."""
        await self._count(
            tensors,
            lambda: self._runner.compare(tensors, expected, microseconds),
            lambda compared: compared.nonfinite,
        )

    async def _count(
        self, tensors: Sequence[Tensor], exchange: Callable[[], Awaitable[_R]], nonfinite_of: Callable[[_R], int]
    ) -> _R:
        if self.is_paused or not self.is_ready:
            raise self._refusal()
        if self._waiting >= self._options.queue_limit:
            raise BusyError(f"{self._waiting} requests wait already; send fewer at a time")
        self._waiting += 1
        try:
            async with self._lock:
                self._refuse_while_away()  # it may have crashed while this request waited
                try:
                    answer = await exchange()
                except EdgeoptError as error:
                    self._count_errors(self._rows_of(tensors))
                    self._failed(error)
                    raise
                rows = self._rows_of(tensors)
                self._rows += rows
                self._answered(rows, nonfinite_of(answer))
                return answer
        finally:
            self._waiting -= 1

    async def self_test(self) -> list[str]:
        """Run the golden inputs and return what is wrong; nothing when the test passed.

        One sample at a time, as requests come. Raises as :meth:`infer` does, or :class:`BundleError`.
        """
        async with self._lock:
            self._refuse_while_away()
            try:
                return await self._test()
            except RunnerCrashError as error:
                self._crashed(error)
                raise

    async def drain(self) -> None:
        """Return when every request that came before has its answer and is counted.

        It gives up starting a crashed runner again; what that did not count, nobody will.
        """
        if self._recovery is not None:
            await end_tasks([self._recovery])
        while self._waiting:
            async with self._lock:
                await asyncio.sleep(0)
        await self.settle()

    async def settle(self) -> None:
        """Return when every answer that was given is counted, or the runner that gave it has ended."""
        async with self._lock:
            if self.runner_pid is not None:
                with contextlib.suppress(RunnerCrashError):  # its guard notices
                    await self._runner.settle()

    async def pause(self, reason: str) -> None:
        """End the runner for a while; requests that come from now on are refused with ``reason``."""
        self.is_paused, self._away = True, reason
        await self.drain()
        self.is_ready = False
        self._on_change(self)
        await self._end()

    async def suspend(self, reason: str) -> None:
        """End the runner for a while, at once; a request under way must have been cancelled by whoever made it."""
        self.is_paused, self.is_ready, self._away = True, False, reason
        await self._end()

    def resume(self) -> None:
        """Start the runner again, in the background, after :meth:`pause` or :meth:`suspend`."""
        self.is_paused = False
        self._recovery = asyncio.create_task(self._recover())

    async def stop(self) -> None:
        """End the runner."""
        self.is_ready, self._away = False, "it was ended"
        await self._end()

    async def _end(self) -> None:
        await end_tasks([task for task in (self._recovery, self._guard) if task is not None])
        await self._runner.stop()

    async def _load(self) -> None:
        installed, entry = self.installed, self.installed.model
        request = Load(
            path=str((installed.directory / entry.path).absolute()),
            runtime=installed.variant.runtime,
            threads=self._options.runner.threads,
            inputs=installed.manifest.inputs,
            outputs=tuple(spec.name for spec in installed.manifest.outputs),
            variant=installed.variant.name,
            golden=str(installed.path_with(Role.GOLDEN).absolute()),
            profile=str(installed.path_with(Role.PROFILE).absolute()),
            counts=str(self.counts.mapped.absolute()),
            champion=self._champion,
        )
        try:
            loaded = await self._runner.load(request)
        except StorageError as error:  # its counts cannot be mapped: that keeps no bundle from answering
            log_event("counts_in_memory", level=logging.ERROR, reason=error)
            self.counts.move_to_memory()
            loaded = await self._runner.load(msgspec.structs.replace(request, counts=str(self.counts.mapped)))
        if loaded.sha256 != entry.sha256:
            raise BundleError(f"{entry.path}: expected SHA-256 {entry.sha256[:12]}…, loaded {loaded.sha256[:12]}…")

    async def _test(self) -> list[str]:
        tested = await self._runner.test(SelfTest(self.installed.variant.tolerance))
        if tested.divergence is not None:
            self.counts.gauges["golden_divergence"] = round(tested.divergence, 4)
        limit = self._options.limits.latency_us
        median = sorted(tested.microseconds)[len(tested.microseconds) // 2]
        if limit is not None and median > limit:
            return [*tested.problems, f"too slow: expected a golden input within {limit:g} µs, got {median:.0f} µs"]
        return tested.problems

    def _refusal(self) -> RestartingError:
        return RestartingError(f"{self.installed.manifest.name} cannot answer now: {self._away}; try again later")

    def _refuse_while_away(self) -> None:
        if not self.is_ready:
            raise self._refusal()

    def _rows_of(self, tensors: Sequence[Tensor]) -> int:
        """Return how many samples a request has: a tensor with one axis more than the signature is a batch."""
        ranks = {spec.name: len(spec.shape) for spec in self.installed.manifest.inputs}
        first = tensors[0] if tensors else None
        rank = ranks.get(first.name, next(iter(ranks.values()), 0)) if first else 0
        return max(1, first.shape[0]) if first and len(first.shape) == rank + 1 else 1

    def _count_errors(self, asked: int) -> None:
        """Count what was asked and not counted as rows: a runner may die between counting and answering."""
        try:
            rows = self.counts.cell(ROWS)
            self.counts.add_errors(max(0, asked - (rows - self._rows)))
            self._rows = rows
        except StorageError as error:
            log_event("not_counted", level=logging.ERROR, reason=error)

    def _progress(self) -> int:
        """Return how often the model ran: a long request is no hang while this grows."""
        return self.counts.cell(RUNS)

    def _set_ready(self) -> None:
        self.is_ready = True
        self._guard = asyncio.create_task(self._notice_end())
        self._on_change(self)

    async def _notice_end(self) -> None:
        """Start the runner again when it dies while nobody asks; a request under way notices by itself."""
        error = await self._runner.ended()
        async with self._lock:
            if self.is_ready and self._runner.pid is None:
                self._crashed(error)

    def _answered(self, rows: int, nonfinite: int) -> None:
        before = self.health.fault
        self.health.answered(rows, nonfinite)
        if self.health.fault != before:
            self._on_change(self)

    def _failed(self, error: EdgeoptError) -> None:
        if isinstance(error, RunnerCrashError):
            self._crashed(error)
        elif isinstance(error, ModelError):
            self.health.failed(str(error))
            self._on_change(self)

    def _crashed(self, error: EdgeoptError) -> None:
        """Refuse requests from now on and start the runner again in the background."""
        self._note_crash(error)
        if self._recovery is None or self._recovery.done():
            self._recovery = asyncio.create_task(self._recover())

    def _note_crash(self, error: EdgeoptError) -> None:
        self.health.crashed(str(error))
        crashes = self.health.crashes
        self.is_ready = False
        self._away = f"its runner is being started again after {crashes} crash(es) in a row ({error})"
        log_event("runner_crashed", level=logging.WARNING, slot=self.slot, crashes=crashes, reason=error)
        self._on_change(self)

    async def _recover(self) -> None:
        """Start the runner until it passes its test again."""
        while not self.is_ready:
            await asyncio.sleep(
                full_jitter(
                    self.health.crashes,
                    base_seconds=_RESTART_BASE_SECONDS,
                    cap_seconds=_RESTART_CAP_SECONDS,
                    random=self._random,
                )
            )
            try:
                async with self._lock:
                    await self._load()
                    if problems := await self._test():
                        raise BundleError("self-test after a restart: " + "; ".join(problems))
            except (EdgeoptError, OSError) as error:
                await self._runner.stop()
                self._note_crash(RunnerCrashError(f"the runner could not be started again: {error}"))
            else:
                self._set_ready()

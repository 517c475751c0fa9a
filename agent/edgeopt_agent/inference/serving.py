"""What answers right now: one bundle with its runner, a candidate beside it, and the counts of both.

During a switch the old runner answers until the new one has passed. A bundle that is at fault is told to ``on_fault``,
and the life cycle decides. It does not move the pointer on disk. Example::

    serving = Serving(options, clerk, clerk.do_now(Books, clerk.spool, data, time.time), on_fault=…)
    await serving.start(slots.open("a"))
    reply = await serving.infer([Tensor("x", "float32", (4,), data)])
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from edgeopt_agent.inference.health import latency_fault
from edgeopt_agent.inference.served import NotServingError, Served, ServedOptions
from edgeopt_agent.log import log_event
from edgeopt_agent.reports.books import Books
from edgeopt_agent.reports.clerk import Clerk
from edgeopt_agent.reports.counts import Counts
from edgeopt_agent.reports.monitor import Mark, Window
from edgeopt_agent.runner.frames import Tensor
from edgeopt_agent.update.slots import Installed
from edgeopt_contract.errors import EdgeoptError

__all__ = ["Beside", "Inference", "Serving", "ServingOptions"]

_LAST_ANSWERS_SECONDS = 2.0  # a request under way when the agent is told to end has so long to be answered
_NO_ROOM = "an update is being tested, and this device has no memory for two models at once"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """How runners are treated."""

    served: ServedOptions
    one_runner: bool = False  # the device's memory does not hold two: an update stops the old one first


@dataclass(frozen=True, slots=True)
class Inference:
    """The answer to one request, by the bundle with this digest; the outputs have a batch dimension if it had one."""

    bundle: str
    outputs: tuple[Tensor, ...]
    microseconds: float


class Beside(Protocol):
    """A challenger, which sees what was answered."""

    counts: Counts

    def saw(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], microseconds: float) -> None:
        """Take notice of an answer; at once, and without ever raising."""

    async def give_way(self) -> None:
        """Leave its memory to a candidate."""

    def champion_changed(self, running: str | None) -> None:
        """Take notice that another bundle answers now."""


class Serving:
    """The bundle that answers, and the ones beside it during an update."""

    def __init__(
        self, options: ServingOptions, clerk: Clerk, books: Books, on_fault: Callable[[str], None] = lambda _: None
    ) -> None:
        self._options = options
        self._clerk = clerk
        self._books = books  # touched on the clerk's thread only
        self.on_fault = on_fault
        self.current: Served | None = None
        self.candidate: Served | None = None
        self.beside: Beside | None = None  # answers nobody
        self._standby: Served | None = None
        self._serves = asyncio.Event()
        self._switched: Mark | None = None

    # --- answering ------------------------------------------------------------------------------------------------

    @property
    def running(self) -> str | None:
        """The digest of the bundle that answers now."""
        return self.current.installed.digest if self.current else None

    async def wait_until_serving(self) -> None:
        """Return when there is a bundle whose runner is not being started again."""
        await self._serves.wait()

    async def infer(self, tensors: Sequence[Tensor]) -> Inference:
        """Answer one sample (the rank of the signature) or a batch of samples (one axis more).

        Raises :class:`~edgeopt_agent.inference.served.NotServingError` at once when nothing can answer now,
        :class:`~edgeopt_contract.errors.DataError` when the inputs do not fit, or what the runner raised. Every failure
        but the first is counted as errors of the bundle, one for each sample. To cancel it ends the runner.
        """
        served = self.current
        if served is None:
            raise NotServingError("no bundle is installed on this device yet; roll one out to it")
        answer, outputs = await served.infer(tensors)
        if self.beside is not None:
            self.beside.saw(tensors, outputs, answer.microseconds)
        return Inference(served.installed.digest, outputs, answer.microseconds)

    def since_switch(self) -> tuple[int, int, int]:
        """Return requests, failed requests and runner crashes since the last switch."""
        window = self._since_switch()
        if self.current is None or window is None:
            return 0, 0, 0
        return window.rows + window.errors, window.errors, self.current.health.crashes_in_all

    def bake_fault(self) -> str:
        """Say why the bundle that answers is at fault since the last switch; empty when it is not."""
        window = self._since_switch()
        if self.current is None or window is None:
            return ""
        return self.current.health.fault or latency_fault(window.latency, self._options.served.limits)

    async def test_daily(self, seconds: float) -> None:
        """Test the bundle that answers with its golden inputs, every ``seconds``, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            served = self.current
            if served is None:
                continue
            try:
                problems = await served.self_test()
            except EdgeoptError as error:
                log_event("self_test_not_run", level=logging.WARNING, reason=error)
                continue
            log_event("self_test", bundle=served.installed.digest, problems="; ".join(problems) or None)
            if problems and served is self.current:
                self.on_fault("daily self-test: " + "; ".join(problems))

    def _since_switch(self) -> Window | None:
        if self.current is None or self._switched is None:
            return None
        counts = self.current.counts
        return Window.since(self._switched, counts.layout, counts.snapshot(), end=self._switched.at)

    def _served_changed(self, served: Served) -> None:
        """Take notice of a runner that crashed, answers again, or gives answers that it should not."""
        if served is not self.current:
            return
        self._let_wait()
        if served.health.fault:
            log_event("bundle_at_fault", level=logging.ERROR, slot=served.slot, reason=served.health.fault)
            self.on_fault(served.health.fault)

    def _let_wait(self) -> None:
        """Let callers of :meth:`wait_until_serving` wait, or go on."""
        if self.current is not None and self.current.is_ready:
            self._serves.set()
        else:
            self._serves.clear()

    # --- switching ------------------------------------------------------------------------------------------------

    async def start(self, installed: Installed) -> None:
        """Load ``installed`` and let it answer. Raises as :meth:`Served.start`."""
        await self.load_candidate(installed)
        await self.promote()
        await self.commit()

    async def load_candidate(self, installed: Installed) -> Served:
        """Start a second runner on ``installed``; the current one goes on answering, if there is memory for both."""
        await self.drop_candidate()
        if self.beside:
            await self.beside.give_way()
        if self.current and self._options.one_runner:
            await self.current.pause(_NO_ROOM)
        counts = await self._clerk.do(self._books.open, installed)
        candidate = Served(installed, self._options.served, counts, self._served_changed)
        try:
            await candidate.start()
        except BaseException:
            await self._end(candidate)
            await self.drop_candidate()
            raise
        self.candidate = candidate
        return candidate

    async def drop_candidate(self) -> None:
        """End the second runner, if there is one."""
        candidate, self.candidate = self.candidate, None
        if candidate:
            await self._end(candidate)
        if self.current and self.current.is_paused:
            self.current.resume()

    async def promote(self) -> None:
        """Let the candidate answer from now on; the old runner is kept until :meth:`commit` or :meth:`go_back`."""
        assert self.candidate is not None  # the caller loaded it
        promoted, self.candidate = self.candidate, None
        if self._standby:
            await self._end(self._standby)
        self._standby = self.current
        await self._switch_to(promoted)

    async def go_back(self, slot: str | None) -> bool:
        """Let the kept runner answer again if it is the one of ``slot``; say whether that slot answers now."""
        await self.drop_candidate()
        standby, self._standby = self._standby, None
        if self.current and self.current.slot == slot:
            if standby:
                await self._end(standby)
            return True
        failed = self.current
        if standby and (standby.slot != slot or not standby.is_ready):
            await self._end(standby)
            standby = None
        await self._switch_to(standby)
        if failed:
            await self._end(failed)
        return standby is not None

    async def commit(self) -> None:
        """End the runner that was kept in case the switch had to be undone."""
        standby, self._standby = self._standby, None
        if standby:
            await self._end(standby)

    async def _switch_to(self, served: Served | None) -> None:
        switched = await self._clerk.do(self._books.begin, served.counts) if served else None
        old, self.current = self.current, served
        self._switched = switched
        self._let_wait()
        if old:
            await old.drain()  # its last answers belong to its window
            self._clerk.do(self._books.tell, old.counts)  # not awaited: the new bundle answers already
        log_event("serves", bundle=self.running, slot=served.slot if served else None)
        if self.beside:
            self.beside.champion_changed(self.running)

    async def _end(self, served: Served) -> None:
        await served.stop()
        await self._clerk.do(self._books.retire, served.counts)

    # --- telling --------------------------------------------------------------------------------------------------

    async def close_window(self) -> None:
        """Number the counts so far and begin a new window; while the spool is full the window stays open.

        It waits for nobody: features of an answer that has just left may be counted in the next window.
        """
        current, beside = self.current, self.beside
        await self._clerk.do(
            self._books.tell_all, current.counts if current else None, beside.counts if beside else None
        )

    async def stop(self) -> None:
        """Keep the last window and end all runners."""
        current, self.current = self.current, None
        self._serves.clear()
        if current:
            with suppress(TimeoutError):  # then the request ends with its runner, and is counted as an error
                async with asyncio.timeout(_LAST_ANSWERS_SECONDS):
                    await current.drain()
        for served in (self.candidate, self._standby, current):
            if served:
                await self._end(served)
        if current:
            await self._clerk.do(
                self._books.tell, current.counts
            )  # now that its runner has ended, its last answers are counted
        await self._clerk.do(self._books.close)

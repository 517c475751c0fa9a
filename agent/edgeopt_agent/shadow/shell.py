"""Carries a shadow through: event → step → save → act. All deciding is in :mod:`edgeopt_agent.shadow.lifecycle`.

An update has priority: while one is under way nothing is fetched, tested or started here. Example::

    shadowing = Shadowing(parts, on_change=…)
    shadowing.receive(payload)                      # an order, or nothing: end what there is
    await shadowing.run()
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from edgeopt_agent.delivery.fetching import Delivery
from edgeopt_agent.device.gauges import read_strain
from edgeopt_agent.inference.served import ServedOptions
from edgeopt_agent.inference.serving import Serving
from edgeopt_agent.log import log_event
from edgeopt_agent.reports.books import Books
from edgeopt_agent.reports.clerk import Clerk
from edgeopt_agent.shadow.challenger import Challenger
from edgeopt_agent.shadow.lifecycle import Happened, Trial, step
from edgeopt_agent.shadow.record import Records
from edgeopt_agent.shadow.room import why_wait
from edgeopt_agent.shadow.transitions import TRANSITIONS, UNDER_WAY, Command, Event, State
from edgeopt_agent.tasks import end_tasks
from edgeopt_agent.trust.checker import Trust
from edgeopt_agent.update.lifecycle import retry_pause_seconds
from edgeopt_agent.update.slots import SHADOW, Installed, Slots
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError, ContractError, EdgeoptError, MessageError, StorageError
from edgeopt_contract.messages import Shadow

__all__ = ["Parts", "Shadowing"]

_T = TypeVar("_T")
_LOOK_SECONDS = 1.0
_DISK_RETRY_SECONDS = 2.0
_STEADY_SECONDS = 60.0
_TRIED_AGAIN = (Command.EXAMINE, Command.FETCH)
_READS_BLOCKS = (State.OFFERED, State.DOWNLOADING, State.VERIFYING)  # an update, out of the challenger's files


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a shadow works with; ``updating`` is the state of the device's update."""

    records: Records
    serving: Serving
    slots: Slots
    delivery: Delivery
    trust: Trust
    clerk: Clerk
    books: Books
    options: ServedOptions
    one_runner: bool
    updating: Callable[[], State]
    strain: Callable[[], dict[str, float]] = read_strain


class Shadowing:
    """See the module."""

    def __init__(self, parts: Parts, on_change: Callable[[], None]) -> None:
        self._parts = parts
        self._on_change = on_change
        self._events: asyncio.Queue[Happened] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None
        self._challenger: Challenger | None = None
        self._quiet, self._busy = asyncio.Event(), asyncio.Event()
        self._began = time.monotonic()
        self.trial = parts.records.load()

    # --- what comes in --------------------------------------------------------------------------------------------

    def receive(self, payload: bytes) -> None:
        """Take an order from the broker. What is malformed never becomes a shadow."""
        if not payload:
            self._events.put_nowait(Happened(event=Event.WITHDRAWN, detail="the fleet withdrew it"))
            return
        try:
            order = decode(Shadow, payload)
        except MessageError as error:
            log_event("shadow_refused", level=logging.ERROR, reason=error)
            return
        self._events.put_nowait(Happened(event=Event.OFFERED, order=order))

    def update_changed(self) -> None:
        """Give way to an update, or go on when it is over."""
        state = self._parts.updating()
        is_busy = state in (
            State.OFFERED, State.DOWNLOADING, State.VERIFYING, State.SELF_TEST, State.ACTIVATING, State.BAKING
        )  # fmt: skip
        if is_busy:
            self._quiet.clear()
            self._busy.set()
        else:
            self._busy.clear()
            self._quiet.set()

    # --- the loop -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up what was cut off, and handle events until cancelled."""
        self.update_changed()
        if not self.trial.is_under_way:
            await self._clear()
        self._events.put_nowait(Happened(event=Event.RESTARTED))
        look = asyncio.create_task(self._look())
        try:
            while True:
                await self._apply(await self._events.get())
        finally:
            await end_tasks([look])
            await self._stop_work()
            await self._stop_challenger()

    def ends_on_purpose(self) -> None:
        """Remember that this agent was told to end: such a start is not held against the challenger."""
        before = self.trial
        self.trial, _ = step(before, Happened(event=Event.STEADY), time.time())
        if self.trial != before:
            with suppress(StorageError):
                self._parts.records.save(self.trial, None, report=False)

    async def _apply(self, happened: Happened) -> None:
        trial, commands = step(self.trial, happened, time.time())
        if trial == self.trial and not commands:
            return
        await self._save(trial, report=Command.REPORT in commands)
        if Command.REPORT in commands:
            log_event("shadow", job=trial.job, state=trial.state, detail=trial.detail or None)
        self.trial = trial
        for command in commands:
            if command is Command.TAKE_PENDING:
                await self._apply(Happened(event=Event.OFFERED, order=trial.pending))
            elif command is not Command.REPORT:
                await self._stop_work()
                self._work = asyncio.create_task(self._do(command, trial))
        if Command.REPORT in commands:
            self._on_change()

    async def _save(self, trial: Trial, *, report: bool) -> None:
        """Save before acting. While the disk refuses, nothing else happens to this shadow."""
        while True:
            try:
                self._parts.records.save(trial, self._parts.serving.running, report=report)
            except StorageError as error:
                log_event("not_saved", level=logging.ERROR, reason=error)
                await asyncio.sleep(_DISK_RETRY_SECONDS)
            else:
                return

    async def _look(self) -> None:
        """Look now and then whether its time is over, and whether there is room for it."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.update_changed()
            order = self.trial.order
            if order is None or self.trial.state not in UNDER_WAY:
                continue
            if time.time() >= order.until:
                self._events.put_nowait(Happened(event=Event.EXPIRED, job=order.job, detail=self._why_expired()))
            if self._challenger is None or not self._challenger.has_begun:
                continue
            self._challenger.tick()
            if reason := self._why_wait(self._challenger):
                await self._challenger.pause(reason)
            else:
                self._challenger.resume()
            if reason != self.trial.paused:
                event = Event.PAUSED if reason else Event.RESUMED
                self._events.put_nowait(Happened(event=event, detail=reason))
            if self.trial.starts and time.monotonic() - self._began >= _STEADY_SECONDS:
                self._events.put_nowait(Happened(event=Event.STEADY))

    def _why_expired(self) -> str:
        return "" if self.trial.state is State.SHADOWING else f"its time was over while {self.trial.state}"

    def _why_wait(self, challenger: Challenger) -> str:
        if self._parts.updating() in (State.SELF_TEST, State.ACTIVATING):
            return "an update is being tested"
        return why_wait(self._parts.strain(), runs=not challenger.is_paused, needs_bytes=challenger.needs_bytes)

    async def _stop_work(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            await end_tasks([work])

    # --- the work -------------------------------------------------------------------------------------------------

    async def _do(self, command: Command, trial: Trial) -> None:
        """Carry out ``command`` and queue what came of it, marked with its job so that a stale answer is seen."""
        try:
            if command in _TRIED_AGAIN:
                await asyncio.sleep(retry_pause_seconds(trial.retries))
            happened = await self._actions[command](self, trial)
        except ContractError as error:
            refused = command in _TRIED_AGAIN
            happened = Happened(event=Event.REFUSED if refused else Event.FAULT, detail=str(error))
        except StorageError as error:
            may_pass = (trial.state, Event.DISK_REFUSED) in TRANSITIONS
            happened = Happened(event=Event.DISK_REFUSED if may_pass else Event.FAULT, detail=str(error))
        except EdgeoptError as error:
            happened = Happened(event=Event.FAULT, detail=str(error))
        except Exception as error:  # a shadow must end in a state, whatever a bundle makes a library raise
            log_event("unexpected", level=logging.ERROR, trace=True, command=command)
            happened = Happened(event=Event.FAULT, detail=f"{type(error).__name__}: {error}")
        if command is Command.END and happened.event is not Event.SETTLED:
            happened = Happened(event=Event.SETTLED, detail=happened.detail)  # the next start removes the rest
        self._events.put_nowait(replace(happened, job=trial.job))

    async def _examine(self, trial: Trial) -> Happened:
        assert trial.order is not None
        if self._parts.one_runner:
            return Happened(event=Event.REFUSED, detail="this device runs one model at a time (one-runner)")
        await self._between_updates(lambda: self._verify(trial))
        if self._parts.serving.running == trial.order.bundle:
            return Happened(event=Event.REFUSED, detail="it is what serves here: there is nothing to compare")
        return Happened(event=Event.ACCEPTED)

    async def _verify(self, trial: Trial) -> int:
        """Return how long the manifest may be when the bundle is trusted. Raises :class:`SignatureError`."""
        assert trial.order is not None

        async def say_why(reason: str) -> None:
            self.trial = replace(self.trial, detail=reason)
            await self._save(self.trial, report=True)
            self._on_change()

        running = self._parts.serving.running
        return (await self._parts.trust.check(trial.order.bundle, running, say_why, beside=True)).length

    async def _fetch(self, trial: Trial) -> Happened:
        assert trial.order is not None
        bundle = trial.order.bundle

        async def fetch() -> str:
            limit = await self._verify(trial)  # again after a restart: it may be revoked by now
            if await asyncio.to_thread(self._parts.slots.holds, SHADOW, bundle):
                return "all of it is on the device already"
            return str(await self._parts.delivery.fetch(bundle, limit))

        return Happened(event=Event.FETCHED, detail=await self._between_updates(fetch))

    async def _assemble(self, trial: Trial) -> Happened:
        assert trial.order is not None
        await _to_its_end(asyncio.to_thread(self._put_together, trial.order.bundle))
        return Happened(event=Event.VERIFIED)

    def _put_together(self, bundle: str) -> None:
        """Fill the challenger's place. Raises :class:`StorageError`, also when an update took blocks away."""
        slots, delivery = self._parts.slots, self._parts.delivery
        try:
            if not slots.holds(SHADOW, bundle):
                slots.fill(SHADOW, delivery.manifest_bytes(bundle), delivery.read)
        except BundleError as error:
            raise StorageError(str(error)) from error
        delivery.clear()

    async def _test(self, trial: Trial) -> Happened:
        return await self._between_updates(lambda: self._start(trial))

    async def _start(self, trial: Trial) -> Happened:
        """Start the challenger's runner and test it, when there is room."""
        assert trial.order is not None
        await self._stop_challenger()  # of an attempt that an update cut off
        parts, current = self._parts, self._parts.serving.current
        assert current is not None  # between updates something serves
        installed, champion = await asyncio.to_thread(parts.slots.open, SHADOW), current.installed
        if champion.digest == installed.digest:
            return Happened(event=Event.OVERTAKEN, detail="it serves by now")
        if trial.champion not in ("", champion.digest):
            return Happened(event=Event.OVERTAKEN, detail="another bundle serves than the one it was compared with")
        if installed.manifest.inputs != champion.manifest.inputs:
            return Happened(event=Event.REFUSED, detail="it takes other inputs than what serves")
        challenger = await self._make(installed, champion, trial.order.job)
        await _until(lambda: not why_wait(parts.strain(), runs=False, needs_bytes=challenger.needs_bytes))
        problems = await challenger.start()
        if problems:
            return Happened(event=Event.FAULT, detail="self-test: " + "; ".join(problems))
        return Happened(event=Event.PASSED, champion=champion.digest)

    async def _make(self, installed: Installed, champion: Installed, job: str) -> Challenger:
        counts = await self._parts.clerk.do(self._parts.books.open, installed, job)
        self._challenger = Challenger(installed, champion, counts, self._parts.options)
        self._parts.serving.beside = self._challenger  # from now on it gives way
        return self._challenger

    async def _run(self, trial: Trial) -> Happened:
        assert trial.order is not None
        if self._challenger is None:  # resumed after a restart
            happened = await self._between_updates(lambda: self._start(trial))
            if happened.event is not Event.PASSED:
                return happened if happened.event is Event.OVERTAKEN else replace(happened, event=Event.FAULT)
        assert self._challenger is not None
        self._challenger.begin(trial.order.share)
        return await self._challenger.ended

    async def _end(self, _: Trial) -> Happened:
        await self._stop_challenger()
        await _until(lambda: self._parts.updating() not in _READS_BLOCKS)
        await self._clear()
        return Happened(event=Event.SETTLED)

    async def _clear(self) -> None:
        """Leave nothing of a challenger on the disk; what cannot be removed now is removed at the next start."""
        with suppress(StorageError):
            await _to_its_end(asyncio.to_thread(self._parts.slots.remove, SHADOW))
            await _to_its_end(asyncio.to_thread(self._parts.delivery.clear))

    async def _stop_challenger(self) -> None:
        """End the runner and tell what it counted, so that the last window comes before the last report."""
        challenger, self._challenger = self._challenger, None
        self._parts.serving.beside = None
        if challenger is not None:
            await challenger.stop()
            await self._parts.clerk.do(self._parts.books.tell, challenger.counts, if_empty=False)
            await self._parts.clerk.do(self._parts.books.retire, challenger.counts)

    async def _between_updates(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Return what ``work`` returns; an update ends it, and it begins again when that is over."""
        while True:
            await self._quiet.wait()
            await self._parts.serving.wait_until_serving()
            if not self._quiet.is_set():
                continue
            task, disturbed = asyncio.ensure_future(work()), asyncio.create_task(self._busy.wait())
            try:
                await asyncio.wait({task, disturbed}, return_when=asyncio.FIRST_COMPLETED)
                if task.done() and (self._quiet.is_set() or task.exception() is None):  # else it may be the update's
                    return task.result()
            finally:
                await end_tasks([task, disturbed])

    _actions: dict[Command, Callable[[Shadowing, Trial], Awaitable[Happened]]] = {  # noqa: RUF012  # a constant
        Command.EXAMINE: _examine,
        Command.FETCH: _fetch,
        Command.ASSEMBLE: _assemble,
        Command.TEST: _test,
        Command.RUN: _run,
        Command.END: _end,
    }


async def _until(is_met: Callable[[], bool]) -> None:
    while True:
        if is_met():
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def _to_its_end(work: Awaitable[_T]) -> _T:
    """Return what ``work`` returns, and when cancelled not before it has ended: a thread cannot be cancelled."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return task.result()

"""Carries an update through: event → step → save → act. All deciding is in :mod:`edgeopt_agent.update.lifecycle`.

One task at a time does the work of the state that was entered; entering another state cancels it. Beside it, a
committed bundle that does not start is tried again and again. Example::

    updater = Updater(Parts(journal, serving, slots, delivery, trust), on_change=…)
    await updater.start()                       # serves what is committed, resumes what was cut off
    updater.receive_desired(payload)            # trusted first, beside whatever is under way
    await updater.run()
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from edgeopt_agent.delivery.fetching import Delivery
from edgeopt_agent.inference.serving import Serving
from edgeopt_agent.inference.supervisor import RunnerCrashError
from edgeopt_agent.log import log_event
from edgeopt_agent.tasks import end_tasks
from edgeopt_agent.trust.checker import Trust
from edgeopt_agent.update.door import Door
from edgeopt_agent.update.journal import Journal
from edgeopt_agent.update.lifecycle import (
    FINAL,
    TRANSITIONS,
    Command,
    Event,
    Happened,
    State,
    Update,
    bake_fault,
    is_let_in,
    retry_pause_seconds,
    step,
    switch_wait_seconds,
)
from edgeopt_agent.update.slots import Slots
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import (
    BundleError,
    ContractError,
    EdgeoptError,
    MessageError,
    ModelError,
    StorageError,
)
from edgeopt_contract.messages import Desired

__all__ = ["Parts", "Updater"]

_BAKE_LOOK_SECONDS = 0.1
_DISK_RETRY_SECONDS = 2.0
_STEADY_SECONDS = 60.0  # an agent that has run for so long is not what takes the device down
_WINDOW_LOOK_SECONDS = 30.0  # the wall clock may be set meanwhile
_SERVE_FIRST_SECONDS, _SERVE_LONGEST_SECONDS = 1.0, 300.0
_WAITS = (Command.EXAMINE, Command.FETCH, Command.AWAIT)  # for others, so they end at the deadline
_TRIED_AGAIN = (Command.EXAMINE, Command.FETCH)  # when the disk refused; ASSEMBLE comes after FETCH once more
_TAKES_RUNNERS = (Command.TEST, Command.SWITCH, Command.RESTORE)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the updater works with."""

    journal: Journal
    serving: Serving
    slots: Slots
    delivery: Delivery
    trust: Trust


class Updater:
    """See the module."""

    def __init__(self, parts: Parts, on_change: Callable[[], None]) -> None:
        self._parts = parts
        self._on_change = on_change
        self._events: asyncio.Queue[Happened] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None
        self._serve: asyncio.Task[None] | None = None
        self._trusted: tuple[str, str | None] = ("", None)  # what this process verified, and what ran then
        self._door = Door(parts.trust, parts.journal, lambda: parts.serving.running, self._let_in, on_change)
        self.update = parts.journal.load()
        parts.serving.on_fault = self._serving_fault

    # --- what comes in --------------------------------------------------------------------------------------------

    def receive_desired(self, payload: bytes) -> None:
        """Take a desired state from the broker. What is malformed never becomes an update."""
        if not payload:
            self._door.send_away()
            self._events.put_nowait(Happened(Event.WITHDRAWN, detail="the fleet withdrew it"))
            return
        try:
            desired = decode(Desired, payload)
        except MessageError as error:
            log_event("desired_refused", level=logging.ERROR, reason=error)
            return
        if is_let_in(self.update, desired, self._parts.serving.running):
            self._door.send_away()
            self._events.put_nowait(Happened(Event.OFFERED, desired=desired))
        else:
            self._door.knock(desired)

    def _let_in(self, desired: Desired, running: str | None) -> None:
        self._trusted = (desired.bundle, running)
        self._events.put_nowait(Happened(Event.OFFERED, desired=desired))

    def _serving_fault(self, reason: str) -> None:
        if self.update.state in (State.ACTIVATING, State.BAKING, *FINAL):
            self._events.put_nowait(Happened(Event.FAULT, job=self.update.job, detail=reason))

    # --- the loop -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve the committed bundle and take up what was cut off."""
        self._parts.slots.prepare()
        await self._adopt()
        if self.update.state in FINAL or self.update.state is State.IDLE:
            self._parts.slots.point_to(self.update.committed)
        reason = await self._serve_committed()
        self._events.put_nowait(Happened(Event.RESTARTED, serving=not reason, detail=reason))
        self.take_order()

    async def run(self) -> None:
        """Handle events until cancelled."""
        steady = asyncio.get_running_loop().call_later(_STEADY_SECONDS, self._events.put_nowait, Happened(Event.STEADY))
        try:
            while True:
                await self._apply(await self._events.get())
        finally:
            steady.cancel()
            await self._door.close()
            await self._stop_work()
            await self._stop_serve()

    def ends_on_purpose(self) -> None:
        """Remember that this agent was told to end: such a start is not held against the bundle."""
        before = self.update
        self.update, _ = step(before, Happened(Event.STEADY), time.time())
        if self.update != before:
            with suppress(StorageError):
                self._parts.journal.save(self.update)

    def take_order(self) -> None:
        """Look whether somebody at the device has given an order."""
        if self._parts.journal.is_ordered_back():
            self._events.put_nowait(Happened(Event.ORDERED_BACK, detail="ordered at the device"))

    async def _apply(self, happened: Happened) -> None:
        now = time.time()
        update, commands = step(self.update, happened, now, time.localtime(now).tm_gmtoff)
        if update == self.update and not commands:
            self._forget_order(happened)
            return
        await self._save(update, report=Command.REPORT in commands)
        if update.state is not self.update.state or update.job != self.update.job or Command.REPORT in commands:
            log_event("update", job=update.job, state=update.state, result=update.result, detail=update.detail or None)
        self.update = update
        self._forget_order(happened)
        for command in commands:
            if command is Command.TAKE_PENDING:
                await self._apply(Happened(Event.OFFERED, desired=update.pending))
            elif command is Command.SERVE:
                await self._stop_serve()
                self._serve = asyncio.create_task(self._keep_serving())
            elif command is not Command.REPORT:
                await self._stop_work()
                if command in _TAKES_RUNNERS:
                    await self._stop_serve()
                self._work = asyncio.create_task(self._do(command, update))
        if Command.REPORT in commands:
            self._on_change()

    def _forget_order(self, happened: Happened) -> None:
        """Forget the order once it is carried out or cannot be; given twice it goes back only once."""
        if happened.event is Event.ORDERED_BACK:
            with suppress(StorageError):  # it is seen again at the next start, and changes nothing then
                self._parts.journal.forget_order()

    async def _save(self, update: Update, *, report: bool) -> None:
        """Save before acting. While the disk refuses, nothing else happens."""
        while True:
            try:
                if report:
                    self._parts.journal.save_and_report(update, self._parts.serving.running)
                else:
                    self._parts.journal.save(update)
            except StorageError as error:
                log_event("not_saved", level=logging.ERROR, reason=error)
                await asyncio.sleep(_DISK_RETRY_SECONDS)
            else:
                return

    async def _stop_work(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            await end_tasks([work])

    async def _stop_serve(self) -> None:
        serve, self._serve = self._serve, None
        if serve is not None:
            await end_tasks([serve])

    # --- the work -------------------------------------------------------------------------------------------------

    async def _do(self, command: Command, update: Update) -> None:
        """Carry out ``command`` and queue what came of it, marked with its job so that a stale answer is seen."""
        deadline = update.desired.deadline if update.desired and command in _WAITS else None
        timeout = asyncio.timeout(None if deadline is None else max(0.0, deadline - time.time()))
        try:
            async with timeout:
                if command in _TRIED_AGAIN:
                    await asyncio.sleep(retry_pause_seconds(update.retries))
                happened = await self._actions[command](self, update)
        except ContractError as error:
            refused = Event.REFUSED if command in (Command.EXAMINE, Command.FETCH) else Event.FAULT
            happened = Happened(refused, detail=str(error))
        except StorageError as error:
            may_pass = (update.state, Event.DISK_REFUSED) in TRANSITIONS
            happened = Happened(Event.DISK_REFUSED if may_pass else Event.FAULT, detail=str(error))
        except EdgeoptError as error:
            happened = Happened(Event.FAULT, detail=str(error))
        except TimeoutError as error:
            passed = f"the deadline passed while {update.state}"
            late = Happened(Event.EXPIRED, detail=f"{passed}: {update.detail}" if update.retries else passed)
            happened = late if timeout.expired() else Happened(Event.FAULT, detail=f"a time-out: {error}")
        except Exception as error:  # an update must end in a state, whatever a bundle makes a library raise
            log_event("unexpected", level=logging.ERROR, trace=True, command=command)
            happened = Happened(Event.FAULT, detail=f"{type(error).__name__}: {error}")
        if happened.event is Event.FAULT and update.state in FINAL:
            happened = Happened(Event.SETTLED, detail=happened.detail, serving=self._parts.serving.running is not None)
        self._events.put_nowait(replace(happened, job=update.job))

    async def _examine(self, update: Update) -> Happened:
        assert update.desired is not None
        current = self._parts.serving.current
        detail = ""
        if current is not None and current.installed.digest == update.desired.bundle:
            problems = await current.self_test()
            if not problems:
                return Happened(Event.ALREADY_RUNNING)
            detail = "it runs already, but fails its self-test: " + "; ".join(problems)
        if self._trusted != (update.desired.bundle, self._parts.serving.running):
            await self._verify(update)  # resumed, or let in while something else ran here
        return Happened(Event.ACCEPTED, detail=detail)

    async def _verify(self, update: Update) -> None:
        """Return when the bundle may be installed here. Raises :class:`SignatureError` when it may not."""
        assert update.desired is not None
        bundle, running = update.desired.bundle, self._parts.serving.running
        await self._parts.trust.check(bundle, running, self._say_why)
        self._trusted = (bundle, running)

    async def _say_why(self, reason: str) -> None:
        """Let the fleet know why this device waits for other metadata."""
        self.update = replace(self.update, detail=reason)
        await self._save(self.update, report=True)
        self._on_change()

    async def _fetch(self, update: Update) -> Happened:
        assert update.desired is not None
        bundle = update.desired.bundle
        if bundle != self._trusted[0]:  # resumed: what was trusted before the restart may be revoked by now
            await self._verify(update)
        if await asyncio.to_thread(self._parts.slots.holds, update.target, bundle):
            return Happened(Event.FETCHED, detail="all of it is on the device already")
        limit = self._parts.trust.manifest_limit(bundle)
        return Happened(Event.FETCHED, detail=str(await self._parts.delivery.fetch(bundle, limit)))

    async def _assemble(self, update: Update) -> Happened:
        assert update.desired is not None
        parts, bundle = self._parts, update.desired.bundle
        if not await asyncio.to_thread(parts.slots.holds, update.target, bundle):
            manifest = parts.delivery.manifest_bytes(bundle)
            await asyncio.to_thread(parts.slots.fill, update.target, manifest, parts.delivery.read)
        await asyncio.to_thread(parts.delivery.clear)
        return Happened(Event.VERIFIED)

    async def _await(self, update: Update) -> Happened:
        assert update.desired is not None
        while True:
            now = time.time()
            wait = switch_wait_seconds(update.desired, now, time.localtime(now).tm_gmtoff)
            if not wait:
                return Happened(Event.OPENED)
            await asyncio.sleep(min(wait, _WINDOW_LOOK_SECONDS))

    async def _test(self, update: Update) -> Happened:
        installed = await asyncio.to_thread(self._parts.slots.open, update.target)
        try:
            problems = await (await self._parts.serving.load_candidate(installed)).self_test()
        except (ModelError, RunnerCrashError) as error:
            if not await asyncio.to_thread(self._parts.slots.exclude, installed, str(error)):
                raise
            await self._parts.serving.drop_candidate()
            why = f"the variant {installed.variant.name} does not run on this board, the next one is taken: {error}"
            return Happened(Event.UNSUITABLE, detail=why)
        if problems:
            return Happened(Event.FAULT, detail="self-test: " + "; ".join(problems))
        return Happened(Event.PASSED)

    async def _switch(self, update: Update) -> Happened:
        parts = self._parts
        if parts.serving.candidate is None:  # resumed after a restart
            await parts.serving.load_candidate(await asyncio.to_thread(parts.slots.open, update.target))
        parts.slots.point_to(update.target)
        await parts.serving.promote()
        assert parts.serving.current is not None
        problems = await parts.serving.current.self_test()
        if problems:
            return Happened(Event.FAULT, detail="self-test after activation: " + "; ".join(problems))
        await parts.serving.commit()
        return Happened(Event.ACTIVATED)

    async def _watch(self, update: Update) -> Happened:
        assert update.desired is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + update.desired.bake_seconds
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(left, _BAKE_LOOK_SECONDS))
            fault = bake_fault(*self._parts.serving.since_switch()) or self._parts.serving.bake_fault()
            if fault:
                return Happened(Event.FAULT, detail=fault)
        return Happened(Event.BAKED)

    async def _commit(self, _: Update) -> Happened:
        await self._parts.serving.commit()
        await asyncio.to_thread(self._parts.slots.tidy)
        await asyncio.to_thread(self._parts.delivery.clear)
        return Happened(Event.SETTLED, serving=self._parts.serving.running is not None)

    async def _restore(self, update: Update) -> Happened:
        parts = self._parts
        parts.slots.point_to(update.committed)
        if not await parts.serving.go_back(update.committed) and update.committed is not None:
            reason = await self._serve_committed()
            if reason:
                return Happened(Event.SETTLED, serving=False, detail=f"the committed bundle does not start: {reason}")
        if update.state is not State.SUPERSEDED:  # that one may be offered again
            await asyncio.to_thread(parts.delivery.clear)
        return Happened(Event.SETTLED, serving=parts.serving.running is not None)

    async def _keep_serving(self) -> None:
        """Try until the committed bundle answers. Another runner is not disturbed: its command ends this task."""
        pause = _SERVE_FIRST_SECONDS
        while self._parts.serving.running is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _SERVE_LONGEST_SECONDS)
            await self._serve_committed()
        self._events.put_nowait(Happened(Event.SERVES))
        self._on_change()

    async def _serve_committed(self) -> str:
        """Let the committed bundle answer; return why it does not, or an empty text."""
        slot = self.update.committed
        if slot is None:
            return ""
        try:
            await self._parts.serving.start(await asyncio.to_thread(self._parts.slots.open, slot))
        except (EdgeoptError, OSError) as error:
            log_event("committed_bundle_not_started", level=logging.ERROR, slot=slot, reason=error)
            return str(error)
        return ""

    async def _adopt(self) -> None:
        """Commit to what the pointer names when the journal is new: the file was lost, the bundle was not."""
        pointed_to = self._parts.slots.pointed_to
        if self.update != Update() or pointed_to is None:
            return
        try:
            await asyncio.to_thread(self._parts.slots.open, pointed_to)
        except BundleError as error:
            log_event("slot_not_adopted", level=logging.ERROR, slot=pointed_to, reason=error)
        else:
            self.update = Update(committed=pointed_to)
            self._parts.journal.save(self.update)

    _actions: dict[Command, Callable[[Updater, Update], Awaitable[Happened]]] = {  # noqa: RUF012  # a constant
        Command.EXAMINE: _examine,
        Command.FETCH: _fetch,
        Command.ASSEMBLE: _assemble,
        Command.AWAIT: _await,
        Command.TEST: _test,
        Command.SWITCH: _switch,
        Command.WATCH: _watch,
        Command.COMMIT: _commit,
        Command.RESTORE: _restore,
    }

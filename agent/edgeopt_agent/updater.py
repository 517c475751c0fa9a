"""Carries an update through: event → step → save → act. All deciding is in :mod:`edgeopt_agent.lifecycle`.

One task at a time does the work of the state that was entered; entering another state cancels it. Example::

    updater = Updater(Parts(journal, serving, slots, delivery, verifier), on_change=…)
    await updater.start()                       # serves what is committed, resumes what was cut off
    updater.receive_desired(payload)
    await updater.run()
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from edgeopt_agent.delivery import Delivery
from edgeopt_agent.journal import Journal
from edgeopt_agent.lifecycle import FINAL, Command, Event, Happened, State, Update, bake_fault, step
from edgeopt_agent.log import log_event
from edgeopt_agent.serving import Serving
from edgeopt_agent.slots import Slots
from edgeopt_agent.tasks import end_tasks
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError, EdgeoptError, MessageError, SignatureError, StorageError
from edgeopt_contract.messages import Desired
from edgeopt_contract.signing import BundleVerifier

__all__ = ["Parts", "Updater"]

_BAKE_LOOK_SECONDS = 0.1
_DISK_RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the updater works with."""

    journal: Journal
    serving: Serving
    slots: Slots
    delivery: Delivery
    verifier: BundleVerifier


class Updater:
    """See the module."""

    def __init__(self, parts: Parts, on_change: Callable[[], None]) -> None:
        self._parts = parts
        self._on_change = on_change
        self._events: asyncio.Queue[Happened] = asyncio.Queue()
        self._work: asyncio.Task[None] | None = None
        self._refused_job = ""
        self.update = parts.journal.load()
        parts.serving.on_fault = self._serving_fault

    # --- what comes in --------------------------------------------------------------------------------------------

    def receive_desired(self, payload: bytes) -> None:
        """Take a desired state from the broker. What is malformed or not signed never becomes an update."""
        if not payload:
            self._events.put_nowait(Happened(Event.WITHDRAWN, detail="the fleet withdrew it"))
            return
        try:
            desired = decode(Desired, payload)
        except MessageError as error:
            log_event("desired_refused", level=logging.ERROR, reason=error)
            return
        try:
            self._parts.verifier.verify(desired)
        except SignatureError as error:
            self._refuse(desired, str(error))
            return
        self._events.put_nowait(Happened(Event.OFFERED, desired=desired))

    def _refuse(self, desired: Desired, reason: str) -> None:
        log_event("desired_refused", level=logging.ERROR, job=desired.job, reason=reason)
        if desired.job == self._refused_job:
            return  # said once; the broker repeats a retained message at every reconnect
        self._refused_job = desired.job
        try:
            self._parts.journal.report_refusal(desired, reason, self._parts.serving.running, time.time())
        except StorageError as error:
            log_event("not_saved", level=logging.ERROR, reason=error)

    def _serving_fault(self, reason: str) -> None:
        if self.update.state in (State.ACTIVATING, State.BAKING, State.CONFIRMED):
            self._events.put_nowait(Happened(Event.FAULT, job=self.update.job, detail=reason))

    # --- the loop -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Serve the committed bundle and take up what was cut off."""
        self._parts.slots.prepare()
        await self._adopt()
        if self.update.state in FINAL or self.update.state is State.IDLE:
            self._parts.slots.point_to(self.update.committed)
        if not await self._serve_committed() and self.update.state is State.CONFIRMED:
            self._serving_fault("the confirmed bundle could not be started")
        self._events.put_nowait(Happened(Event.RESTARTED))

    async def run(self) -> None:
        """Handle events until cancelled."""
        try:
            while True:
                await self._apply(await self._events.get())
        finally:
            await self._stop_work()

    async def _apply(self, happened: Happened) -> None:
        update, commands = step(self.update, happened, time.time())
        if update == self.update and not commands:
            return
        await self._save(update, report=Command.REPORT in commands)
        if update.state is not self.update.state or update.job != self.update.job or Command.REPORT in commands:
            log_event("update", job=update.job, state=update.state, result=update.result, detail=update.detail or None)
        self.update = update
        for command in commands:
            if command is Command.TAKE_PENDING:
                await self._apply(Happened(Event.OFFERED, desired=update.pending))
            elif command is not Command.REPORT:
                await self._stop_work()
                self._work = asyncio.create_task(self._do(command, update))
        if Command.REPORT in commands:
            self._on_change()

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

    # --- the work -------------------------------------------------------------------------------------------------

    async def _do(self, command: Command, update: Update) -> None:
        """Carry out ``command`` and queue what came of it, marked with its job so that a stale answer is seen."""
        try:
            happened = await self._actions[command](self, update)
        except (BundleError, MessageError) as error:
            refused = Event.REFUSED if command is Command.FETCH else Event.FAULT
            happened = Happened(refused, detail=str(error))
        except EdgeoptError as error:
            happened = Happened(Event.FAULT, detail=str(error))
        except Exception as error:  # an update must end in a state, whatever a bundle makes a library raise
            logging.getLogger("edgeopt_agent").exception("event=unexpected command=%s", command)
            happened = Happened(Event.FAULT, detail=f"{type(error).__name__}: {error}")
        if happened.event is Event.FAULT and update.state in FINAL:
            happened = Happened(Event.SETTLED, detail=happened.detail, serving=self._parts.serving.running is not None)
        self._events.put_nowait(replace(happened, job=update.job))

    async def _examine(self, update: Update) -> Happened:
        assert update.desired is not None
        current = self._parts.serving.current
        if current is None or current.installed.digest != update.desired.bundle:
            return Happened(Event.ACCEPTED)
        problems = await current.self_test()
        if problems:
            return Happened(Event.ACCEPTED, detail="it runs already, but fails its self-test: " + "; ".join(problems))
        return Happened(Event.ALREADY_RUNNING)

    async def _fetch(self, update: Update) -> Happened:
        assert update.desired is not None
        bundle, deadline = update.desired.bundle, update.desired.deadline
        if await asyncio.to_thread(self._parts.slots.holds, update.target, bundle):
            return Happened(Event.FETCHED, detail="all of it is on the device already")
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.time())):
                counts = await self._parts.delivery.fetch(bundle)
        except TimeoutError:
            return Happened(Event.FAULT, detail="the deadline passed while downloading")
        except ExceptionGroup as group:  # the workers of one delivery fail together, by the same disk
            raise group.exceptions[0] from group
        return Happened(Event.FETCHED, detail=str(counts))

    async def _assemble(self, update: Update) -> Happened:
        assert update.desired is not None
        parts, bundle = self._parts, update.desired.bundle
        if not await asyncio.to_thread(parts.slots.holds, update.target, bundle):
            manifest = parts.delivery.manifest_bytes(bundle)
            await asyncio.to_thread(parts.slots.fill, update.target, manifest, parts.delivery.read)
        await asyncio.to_thread(parts.delivery.clear)
        return Happened(Event.VERIFIED)

    async def _load(self, update: Update) -> Happened:
        installed = await asyncio.to_thread(self._parts.slots.open, update.target)
        await self._parts.serving.load_candidate(installed)
        return Happened(Event.LOADED)

    async def _test(self, _: Update) -> Happened:
        candidate = self._parts.serving.candidate
        if candidate is None:
            return Happened(Event.FAULT, detail="the candidate is gone")
        problems = await candidate.self_test()
        if problems:
            return Happened(Event.FAULT, detail="self-test: " + "; ".join(problems))
        return Happened(Event.PASSED)

    async def _switch(self, update: Update) -> Happened:
        parts = self._parts
        if parts.serving.candidate is None:  # resumed after a restart
            await self._load(update)
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
            fault = bake_fault(*self._parts.serving.since_switch())
            if fault:
                return Happened(Event.FAULT, detail=fault)
        return Happened(Event.BAKED)

    async def _commit(self, _: Update) -> Happened:
        await self._parts.serving.commit()
        await asyncio.to_thread(self._parts.delivery.clear)
        return Happened(Event.SETTLED, serving=self._parts.serving.running is not None)

    async def _restore(self, update: Update) -> Happened:
        parts = self._parts
        parts.slots.point_to(update.committed)
        serving = await parts.serving.go_back(update.committed)
        if not serving:
            serving = await self._serve_committed()
        detail = "" if serving or update.committed is None else "the committed bundle could not be started"
        return Happened(Event.SETTLED, serving=serving, detail=detail)

    async def _serve_committed(self) -> bool:
        """Let the committed bundle answer; say whether it does."""
        slot = self.update.committed
        if slot is None:
            return False
        try:
            await self._parts.serving.start(await asyncio.to_thread(self._parts.slots.open, slot))
        except (EdgeoptError, OSError) as error:
            log_event("committed_bundle_not_started", level=logging.ERROR, slot=slot, reason=error)
            return False
        return True

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
        Command.LOAD: _load,
        Command.TEST: _test,
        Command.SWITCH: _switch,
        Command.WATCH: _watch,
        Command.COMMIT: _commit,
        Command.RESTORE: _restore,
    }

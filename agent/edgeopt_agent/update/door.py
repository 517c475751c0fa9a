"""Where an offer waits until it is trusted, beside whatever update is under way, which it does not touch.

The newest one only. What is refused is reported once and goes no further; what other metadata could make trusted waits
here, up to its deadline. Nothing is kept on the disk: after a restart the retained desired state comes again. What an
offer that was let in leads to is decided in :mod:`edgeopt_agent.update.lifecycle`. Example::

    door = Door(trust, journal, lambda: serving.running, let_in=updater.let_in, on_report=outbox.wake)
    door.knock(desired)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from edgeopt_agent.log import log_event
from edgeopt_agent.tasks import end_tasks
from edgeopt_agent.trust.checker import Trust
from edgeopt_agent.update.journal import Journal
from edgeopt_agent.update.lifecycle import Update, retry_pause_seconds
from edgeopt_agent.update.transitions import State
from edgeopt_contract.errors import EdgeoptError, StorageError
from edgeopt_contract.messages import Desired, Result

__all__ = ["Door"]

_REFUSED_KEPT = 16  # so that the same offer, which the broker repeats every few minutes, is reported once


class Door:
    """See the module. ``let_in`` gets a trusted offer, and what ran on the device when it was found to be trusted."""

    def __init__(
        self,
        trust: Trust,
        journal: Journal,
        running: Callable[[], str | None],
        let_in: Callable[[Desired, str | None], None],
        on_report: Callable[[], None],
    ) -> None:
        self._trust = trust
        self._journal = journal
        self._running = running
        self._let_in = let_in
        self._on_report = on_report
        self._waiting: Desired | None = None
        self._refused: deque[Desired] = deque(maxlen=_REFUSED_KEPT)
        self._checks: set[asyncio.Task[None]] = set()

    def knock(self, desired: Desired) -> None:
        """Let ``desired`` wait in place of whatever waited; the same one, or one refused already, changes nothing."""
        if desired == self._waiting:
            return
        self.send_away()
        if desired in self._refused:
            return
        self._waiting = desired
        check = asyncio.create_task(self._check(desired))
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    def send_away(self) -> None:
        """Forget who waits: the fleet wants something else."""
        self._waiting = None
        for check in self._checks:
            check.cancel()

    async def close(self) -> None:
        """Return when nothing is checked any more."""
        self._waiting = None
        await end_tasks(self._checks)

    async def _check(self, desired: Desired) -> None:
        timeout = asyncio.timeout(None if desired.deadline is None else max(0.0, desired.deadline - time.time()))
        try:
            async with timeout:
                running = await self._trusted(desired)
        except EdgeoptError as error:
            self._refuse(desired, str(error))
        except TimeoutError as error:
            late = "the deadline passed before it was trusted"
            self._refuse(desired, late if timeout.expired() else f"a time-out: {error}")
        except Exception as error:  # an offer must come to an answer, whatever it makes a library raise
            logging.getLogger("edgeopt_agent").exception("event=unexpected offer=%s", desired.job)
            self._refuse(desired, f"{type(error).__name__}: {error}")
        else:
            if self._waiting is desired:
                self._waiting = None
                self._let_in(desired, running)

    async def _trusted(self, desired: Desired) -> str | None:
        """Return what runs here when ``desired`` is trusted by a device that runs that.

        A disk that refuses is waited for: nothing depends on this offer. Raises :class:`SignatureError`.
        """

        async def say_why(reason: str) -> None:
            self._report(desired, State.OFFERED, reason)

        tries = 0
        while True:
            running = self._running()
            try:
                await self._trust.check(desired.bundle, running, say_why)
            except StorageError as error:
                tries += 1
                if tries == 1:
                    await say_why(str(error))
                await asyncio.sleep(retry_pause_seconds(tries))
            else:
                if running == self._running():
                    return running

    def _refuse(self, desired: Desired, reason: str) -> None:
        """Report that ``desired`` goes no further. If that cannot be written it is checked when it comes again."""
        if self._waiting is not desired:
            return
        self._waiting = None
        log_event("offer_refused", level=logging.WARNING, job=desired.job, bundle=desired.bundle[:12], reason=reason)
        if self._report(desired, State.REJECTED, reason):
            self._refused.append(desired)

    def _report(self, desired: Desired, state: State, reason: str) -> bool:
        """Number a report about an offer that is no update of this device; say whether that worked."""
        running = self._running()
        result = None
        if state is State.REJECTED:
            result = Result.RUNS_NOTHING if running is None else Result.RUNS_OLD_UNTOUCHED
        try:
            told = Update(state=state, desired=desired, result=result, detail=reason, at=time.time())
            self._journal.report(told, running)
        except StorageError as error:
            log_event("not_reported", level=logging.ERROR, reason=error)
            return False
        self._on_report()
        return True

"""Does the work of the roles that this process holds, and only as long as it holds them.

Each tenure of a role gets a database that checks its lease in every transaction, and makes all that it works with
anew; when the lease is lost the work is cancelled and thrown away. Leases are prolonged on a thread of their own, so
that work that keeps the database busy does not lose them. A process that ends hands them back, and a standby begins
at once.
Example::

    roles = Roles(leases, signals, metrics, {Role.ROLLOUTS: work})   # async def work(guarded): …
    task = group.create_task(roles.run())
    task.cancel()                            # ends the work and hands the roles back
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.leases import Lease, Role
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.signals import News, Signals
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.leases import LeaseLostError, Leases

__all__ = ["Roles", "Work"]

Work = Callable[[Database], Awaitable[None]]  # until cancelled; each transaction checks the lease

_LOG = logging.getLogger(__name__)
_RENEWALS = 3  # in the time of a lease
_STOP_SECONDS = 5.0  # for the work to finish what it has begun
_PAUSE_SECONDS = 2.0  # at least, after work that failed, so that another process may try
_PAUSE_LOOKS = 1.5  # at least, of a standby that hears no signal (SQLite): else both might always ask at one moment


@dataclass(slots=True)
class _Tenure:
    lease: Lease
    task: asyncio.Task[None]
    renewed: float  # on the clock of the roles


class Roles:
    """Takes roles, works, and hands them back; ``note`` says what a lease is to tell of this process.

    ``clock`` gives seconds that only grow.
    """

    def __init__(
        self,
        leases: Leases,
        signals: Signals,
        metrics: Metrics,
        works: Mapping[Role, Work],
        *,
        note: Callable[[Role], str] = lambda _role: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._leases = leases
        self._signals = signals
        self._metrics = metrics
        self._works = works
        self._note = note
        self._clock = clock
        self._tenures: dict[Role, _Tenure] = {}
        self._paused: dict[Role, float] = {}
        self._serial = Serial()
        self._period = leases.seconds / _RENEWALS  # between two looks
        for role in works:
            metrics.lease_held.labels(role=role).set(0)

    @property
    def held(self) -> frozenset[Role]:
        """The roles that this process has now."""
        return frozenset(self._tenures)

    async def run(self) -> None:
        """Take, prolong and work until cancelled; then end the work and hand back what is held."""
        try:
            while True:
                started = self._clock()
                await self._renew()
                for role in self._works:
                    if role not in self._tenures and self._paused.get(role, 0.0) <= self._clock():
                        await self._acquire(role)
                if not any(tenure.task.done() for tenure in self._tenures.values()):
                    await self._signals.wait(News.LEASES, max(self._period - (self._clock() - started), 0.05))
        finally:
            await self._stop()

    async def _stop(self) -> None:
        tenures = dict(self._tenures)
        await asyncio.gather(*(self._end(role, "released") for role in tenures))
        try:
            await self._serial(self._leases.release, [tenure.lease for tenure in tenures.values()])
        except StorageError as error:  # they expire
            _LOG.warning("could not hand the roles back: %s", error)
        else:
            if tenures:
                await self._signals.send(News.LEASES)
        self._serial.close()

    async def _renew(self) -> None:
        """Prolong what is held; end what is not ours any more, and what the database could not be asked about."""
        for role, tenure in list(self._tenures.items()):
            if tenure.task.done():
                await self._failed(role, tenure)
        if not self._tenures:
            return
        asked = self._clock()
        try:
            mine = [replace(tenure.lease, note=self._note(role)) for role, tenure in self._tenures.items()]
            kept = await self._serial(self._leases.renew, mine)
        except StorageError as error:
            _LOG.warning("could not prolong leases: %s", error)
            kept = {}
            asked = 0.0
        for role, tenure in list(self._tenures.items()):
            if role in kept:
                tenure.lease, tenure.renewed = kept[role], asked
            elif asked or self._clock() - tenure.renewed > self._leases.seconds:
                await self._end(role, "lost")

    async def _acquire(self, role: Role) -> None:
        try:
            lease = await self._serial(self._leases.acquire, role)
        except StorageError as error:
            _LOG.warning("could not ask for the role %s: %s", role, error)
            return
        if lease is None:
            return
        task = asyncio.create_task(self._work(role, self._leases.guarded(lease)), name=f"role {role}")
        task.add_done_callback(lambda _: self._signals.wake(News.LEASES))  # work that ends by itself is noticed at once
        self._tenures[role] = _Tenure(lease, task, self._clock())
        self._metrics.lease_held.labels(role=role).set(1)
        self._metrics.lease_changes.labels(role=role, change="taken").inc()
        _LOG.info("took the role %s (epoch %d)", role, lease.epoch, extra={"event": "role.taken", "role": role})

    async def _work(self, role: Role, guarded: Database) -> None:
        await self._works[role](guarded)

    async def _failed(self, role: Role, tenure: _Tenure) -> None:
        """Take note of work that ended by itself, hand the role back, and leave it to others for a moment."""
        error = None if tenure.task.cancelled() else tenure.task.exception()
        await self._end(role, "lost" if isinstance(error, LeaseLostError) else "failed")
        if isinstance(error, LeaseLostError):
            return
        self._paused[role] = self._clock() + max(_PAUSE_SECONDS, _PAUSE_LOOKS * self._period)
        self._metrics.role_failures.labels(role=role).inc()
        _LOG.error("the work of the role %s ended: %r", role, error, exc_info=error, extra={"event": "role.failed"})
        try:
            await self._serial(self._leases.release, [tenure.lease])
        except StorageError as lasting:  # it expires
            _LOG.warning("could not hand the role %s back: %s", role, lasting)
        await self._signals.send(News.LEASES)

    async def _end(self, role: Role, change: str) -> None:
        tenure = self._tenures.pop(role, None)
        if tenure is None:
            return
        tenure.task.cancel()
        _, slow = await asyncio.wait([tenure.task], timeout=_STOP_SECONDS)
        if slow:
            _LOG.error("the work of the role %s does not end; its writes are refused from now on", role)
        elif not tenure.task.cancelled():
            tenure.task.exception()  # taken note of
        self._metrics.lease_held.labels(role=role).set(0)
        self._metrics.lease_changes.labels(role=role, change=change).inc()
        _LOG.info("%s the role %s", change, role, extra={"event": f"role.{change}", "role": role})

"""The work of each role, wired together anew for every tenure.

Each takes the database that checks the role's lease and works until it is cancelled. Nothing is kept between tenures.
Example::

    duties = Duties(site, addresses)
    Roles(leases, signals, metrics, duties.works())
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edgeopt_fleet.config import FleetConfig, Home
from edgeopt_fleet.drift import DriftRules
from edgeopt_fleet.ingest import Ingest
from edgeopt_fleet.leases import Role
from edgeopt_fleet.link import BrokerAddress, Link, until_one_fails
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.roles import Work
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.signals import News, Signals
from edgeopt_fleet.store.alerts import Alerts
from edgeopt_fleet.store.announcements import Announcements
from edgeopt_fleet.store.bundles import Bundles
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.inbox import Inbox
from edgeopt_fleet.store.outbox import Outbox
from edgeopt_fleet.store.retention import Retention
from edgeopt_fleet.store.rollouts import Rollouts
from edgeopt_fleet.store.shadow_outbox import ShadowOutbox
from edgeopt_fleet.store.shadows import Shadows
from edgeopt_fleet.tuf.renewal import Renewal
from edgeopt_fleet.tuf.repository import Repository
from edgeopt_fleet.watch import CONNECTED
from edgeopt_fleet.worker import Worker

__all__ = ["Duties", "Site"]

_LOG = logging.getLogger(__name__)
_SWITCH_SECONDS = 0.0002  # the thread that stores keeps the one that hears and answers waiting no longer than this
_PUBLISH_SECONDS = 0.5  # how late an order of another process is published when its signal is lost
_TIDY_SECONDS = 3600.0
_RENEW_SECONDS = 1.0  # also how soon a change by 'edgeopt-fleet keys' is published


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all parts of one process share."""

    home: Home
    config: FleetConfig
    database: Database
    serial: Serial
    signals: Signals
    metrics: Metrics


class Duties:
    """Makes the work of the roles; knows whether this process hears the devices."""

    def __init__(self, site: Site, addresses: Sequence[BrokerAddress], identifier: str) -> None:
        self._site = site
        self._addresses = addresses
        self._identifier = identifier
        self._link: Link | None = None
        site.metrics.broker_connected.set_function(lambda: float(bool(self.hears())))

    def hears(self) -> bool | None:
        """Say whether this process hears the devices; None when that is another one's work."""
        return None if self._link is None else self._link.connected

    def note(self, role: Role) -> str:
        """Return what the lease of ``role`` is to say of this process."""
        return CONNECTED if role is Role.INGEST and self.hears() else ""

    def works(self) -> Mapping[Role, Work]:
        """Return the work of every role that the settings allow here."""
        works: dict[Role, Work] = {
            Role.INGEST: self._ingest,
            Role.ROLLOUTS: self._rollouts,
            Role.DRIFT: self._drift,
            Role.TUF: self._tuf,
            Role.RETENTION: self._retention,
        }
        allowed = self._site.config.roles or works
        return {role: work for role, work in works.items() if role in allowed}

    async def announce(self, devices: Collection[str]) -> None:
        """Wake whoever publishes; what is new is marked in the database already."""
        del devices
        await self._site.signals.send(News.DESIRED)

    async def _ingest(self, database: Database) -> None:
        """Hold the connection to the broker: take in, acknowledge, publish; at the end finish what was taken in."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        site = self._site
        bundles = Bundles(database, site.home.blocks, Repository(database, site.home.keys))
        outbox = Outbox(database, bundles, Repository(database, site.home.keys))
        ingest = Ingest(Inbox(database), site.metrics)
        link = Link(
            self._addresses, outbox, site.serial, ingest.receive, identifier=self._identifier, metrics=site.metrics
        )
        announcements, shadows = Announcements(database), ShadowOutbox(database)

        async def publish() -> None:
            if not link.connected:
                return  # the next connection publishes everything, and the next look clears the marks
            waiting = await site.serial.read(announcements.waiting)
            orders = await site.serial.read(shadows.waiting)
            await link.announce(waiting.keys())
            if orders:
                await link.announce_shadows({device for _, device in orders})
            if link.connected:
                await site.serial(announcements.done, waiting)
                await site.serial(shadows.done, orders)

        self._link = link
        connection = asyncio.create_task(link.run())  # it outlives the others, for the last acknowledgements
        try:
            await until_one_fails(
                _ended(connection),
                ingest.run(link.acknowledge),
                site.signals.repeat(publish, News.DESIRED, _PUBLISH_SECONDS),
            )
        finally:
            link.stop_hearing()
            try:
                await ingest.drain(link.acknowledge)
            finally:
                self._link = None
                connection.cancel()
                await asyncio.gather(connection, return_exceptions=True)

    async def _rollouts(self, database: Database) -> None:
        """Move rollouts and shadows on."""
        site = self._site
        worker, shadows = Worker(Rollouts(database), site.serial, self.announce), Shadows(database)

        async def tick() -> None:
            await worker.tick()
            now, changed = time.time(), set[str]()
            for name in await site.serial(shadows.unsettled, now):
                changed |= await site.serial(shadows.advance, name, now)
            if changed:
                await self.announce(changed)

        await site.signals.repeat(tick, News.ROLLOUTS, site.config.tick_seconds)

    async def _drift(self, database: Database) -> None:
        """Look for drift."""
        site = self._site
        alerts = Alerts(database, DriftRules())

        async def look() -> None:
            await site.serial(alerts.look, time.time())

        await site.signals.repeat(look, None, site.config.drift_look_seconds)

    async def _retention(self, database: Database) -> None:
        """Roll up and delete what is old, a few rows at a time."""
        site = self._site
        retention = Retention(database, site.home.blocks, site.config.keep)

        async def tidy() -> None:
            steps = retention.steps(time.time())
            while (step := await site.serial(next, steps, None)) is not None:
                _LOG.info("retention: %d %s", step.rows, step.what)

        await site.signals.repeat(tidy, None, _TIDY_SECONDS)

    async def _tuf(self, database: Database) -> None:
        """Sign metadata again before they expire."""
        site = self._site
        renewal = Renewal(Repository(database, site.home.keys), site.serial, self.announce)
        await site.signals.repeat(renewal.look, News.METADATA, _RENEW_SECONDS)


async def _ended(task: asyncio.Task[None]) -> None:
    """Wait for ``task`` without ending it when the wait is cancelled."""
    await asyncio.shield(task)

"""Looks at the fleet from time to time, so that questions about it cost nothing; and says whether a process is ready.

A process is ready when what it is there for is done: it reaches the database, each role that it may do is held, by it
or by another one, and if it holds the role that hears the devices, the broker too. What only others can do is told,
but does not make this one unready: else one broken worker would take all API processes out of the balancer. Example::

    part = Part(owner=leases.owner, duties=works, held=lambda: roles.held, hears=duties.hears)
    watch = Watch(database, serial, metrics, part)
    group.create_task(watch.run())
    watch.readiness().ready
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.leases import Lease, Role
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.census import Census, Expiries, count, expiries
from edgeopt_fleet.store.database import Database

__all__ = ["CONNECTED", "Check", "Part", "Readiness", "Watch"]

CONNECTED = "connected"  # what the holder of the ingest role notes in its lease

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_EXPIRIES_SECONDS = 60.0
_STALE_SECONDS = 10.0  # a look that takes longer means that the database hangs


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What this process does itself; by default nothing, as a process that only answers the API.

    ``owner`` is its name in leases, ``duties`` the roles that it may do, and ``held`` gives those that it does now.
    ``hears`` says whether it hears the devices; None when that is another one's work.
    """

    owner: str = ""
    duties: Collection[Role] = ()
    held: Callable[[], Collection[Role]] = tuple
    hears: Callable[[], bool | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``needed`` when this process cannot work without it."""

    name: str
    ok: bool
    detail: str
    needed: bool = False


@dataclass(frozen=True, slots=True)
class Readiness:
    """Everything that was looked at."""

    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        """Whether all that is needed is there."""
        return all(check.ok for check in self.checks if check.needed)


class Watch(Collector):
    """Keeps the newest census, and gives it to Prometheus."""

    def __init__(
        self,
        database: Database,
        serial: Serial,
        metrics: Metrics,
        part: Part,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._serial = serial
        self._part = part
        self._clock = clock
        self._looked = -_STALE_SECONDS
        self._failure = "it was not asked yet"
        self.census: Census | None = None
        self.expiries: Expiries | None = None
        self._expiries_at = -_EXPIRIES_SECONDS
        metrics.registry.register(self)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Look once; a database that fails is noted."""
        try:
            self.census = await self._serial.read(count, self._database)
            if self._clock() - self._expiries_at >= _EXPIRIES_SECONDS:
                self.expiries = await self._serial.read(expiries, self._database)
                self._expiries_at = self._clock()
        except StorageError as error:
            if not self._failure:
                _LOG.warning("the database does not answer: %s", error, extra={"event": "database.lost"})
            self._failure = str(error)
        else:
            self._failure = ""
            self._looked = self._clock()

    def is_connected(self) -> bool:
        """Say whether the fleet, in whatever process, hears its devices."""
        own = self._part.hears()
        if own is not None:
            return own
        holder = self._holder(Role.INGEST)
        return bool(holder and holder.note == CONNECTED and self._is_fresh())

    def readiness(self) -> Readiness:
        """Say what this process has of what it needs, and how the roles are held."""
        fresh = self._is_fresh()
        failure = self._failure or ("" if fresh else "it does not answer")
        checks = [Check("database", fresh and not failure, failure or "answers", needed=True)]
        own = self._part.hears() is not None or Role.INGEST in self._part.held()
        connected = self.is_connected()
        checks.append(Check("broker", connected, _told(own, connected), needed=own))
        for role in Role:
            holder = self._holder(role) if fresh else None
            told = f"held by {holder.owner} (epoch {holder.epoch})" if holder else "held by nobody that is known"
            checks.append(Check(f"role {role}", holder is not None, told, needed=role in self._part.duties))
        return Readiness(tuple(checks))

    def _holder(self, role: Role) -> Lease | None:
        """Return the lease of whoever does the work of ``role``.

        One in this process's own name that it does not hold is its predecessor's, which ended a moment ago.
        """
        holder = self.census and self.census.holder(role)
        if not holder or (holder.owner == self._part.owner and role not in self._part.held()):
            return None
        return holder

    def collect(self) -> Iterable[Metric]:
        """Give the newest census to Prometheus; nothing while the database does not answer."""
        name = "edgeopt_fleet_{}".format
        up = not self._failure and self._is_fresh()
        yield GaugeMetricFamily(name("database_up"), "Whether the database answers this process.", value=up)
        if self.census is None or not up:
            return
        census = self.census
        yield _gauges(name("devices"), "Devices by state; every process says the same.", "state", {
            "online": 0, "offline": 0, "revoked": 0, **census.devices})  # fmt: skip
        yield _gauges(name("rollouts"), "Rollouts by state; every process says the same.", "state", census.rollouts)
        yield _gauges(name("shadows"), "Shadows by state; every process says the same.", "state", census.shadows)
        yield GaugeMetricFamily(
            name("shadow_devices"), "Devices that are to run a challenger beside what serves.",
            value=census.shadow_devices,
        )  # fmt: skip
        agreed = "How a running shadow's challenger agreed at its newest look, {}, from 0 to 1.".format
        yield _gauges(name("shadow_agreement_ratio"), agreed("mean of the devices"), "shadow", {
            shadow: mean for shadow, (mean, _) in census.agreements.items()})  # fmt: skip
        yield _gauges(name("shadow_agreement_lower_ratio"), agreed("what it surely reaches"), "shadow", {
            shadow: lower for shadow, (_, lower) in census.agreements.items()})  # fmt: skip
        yield _gauges(name("alerts_open"), "Open alerts by kind; every process says the same.", "kind", census.alerts)
        yield GaugeMetricFamily(
            name("unpublished_devices"), "Devices whose desired state waits to be published.", value=census.unpublished
        )
        vacant = {role: int(census.holder(role) is None) for role in Role}
        yield _gauges(name("role_vacant"), "Whether no process does the work of a role.", "role", vacant)
        epochs = {role: lease.epoch for role, lease in census.leases.items()}
        yield _gauges(name("lease_epoch"), "How often a role has changed hands.", "role", epochs)
        verdicts = CounterMetricFamily(
            name("gate_verdicts"), "Verdicts of the gate that were news.", labels=["verdict"]
        )
        for verdict, number in sorted(census.verdicts.items()):
            verdicts.add_metric([verdict], number)
        yield verdicts
        yield GaugeMetricFamily(
            name("rollout_wave_age_seconds"), "How long the slowest running rollout has been in its wave.",
            value=census.slowest_wave_seconds,
        )  # fmt: skip
        if self.expiries is not None:
            yield GaugeMetricFamily(
                name("certificates_expiring"), "Devices that should have renewed their certificate and have not.",
                value=self.expiries.certificates,
            )  # fmt: skip
            yield _gauges(name("metadata_expiry_timestamp_seconds"), "When what devices trust expires.", "role",
                          self.expiries.metadata)  # fmt: skip

    def _is_fresh(self) -> bool:
        return self._clock() - self._looked < _STALE_SECONDS


def _told(own: bool, connected: bool) -> str:  # noqa: FBT001 - two facts, none is an option
    where = "this process" if own else "another process"
    return f"{where} hears the devices" if connected else f"{where} does not hear the devices"


def _gauges(name: str, text: str, label: str, values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in sorted(values.items()):
        family.add_metric([value], number)
    return family

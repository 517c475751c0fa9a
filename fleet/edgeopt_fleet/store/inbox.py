"""What devices send, stored exactly once.

A message is stored and counted in one transaction with the numbers that its spool session has seen, so a repeated
one changes nothing and an acknowledged one is on disk. Example::

    acks = inbox.store(batch, now)
    acks["cam-7"]                            # [Ack(session=…, upto=12, beyond=())]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlmodel import Session, select

from edgeopt_contract.codec import decode
from edgeopt_contract.messages import Ack, Reported, Status, Telemetry
from edgeopt_contract.profile import ReferenceProfile, Summary, mean_from_cells
from edgeopt_fleet.gate import Moments
from edgeopt_fleet.sequence import NumberSet
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import BundleRow, DeviceRow, ReportRow, ServedRow, SpoolRow, WindowRow

__all__ = ["Inbox", "Incoming"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One decoded message and the device whose topic it came on."""

    device: str
    record: Reported | Telemetry | Status


class Inbox:
    """Stores batches of messages."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._profiles: dict[str, ReferenceProfile] = {}

    def store(self, batch: Sequence[Incoming], now: float) -> dict[str, list[Ack]]:
        """Store a batch in one transaction and return what may be acknowledged to each device.

        Messages of devices that are not enrolled are dropped. Numbers that were stored before are acknowledged
        again: the device did not get the first acknowledgement.
        """
        fresh: dict[tuple[str, int], list[int]] = {}
        spools: dict[tuple[str, int], SpoolRow] = {}
        with self._database.transaction() as session:
            for message in batch:
                device = session.get(DeviceRow, message.device)
                if device is None:
                    continue
                if isinstance(message.record, Status):
                    _store_status(device, message.record, now)
                    continue
                key = (message.device, message.record.session)
                if key not in spools:
                    spools[key] = _spool(session, *key)
                fresh.setdefault(key, []).append(message.record.number)
                self._store_once(session, device, spools[key], message.record, now)
        return _acknowledgements(spools, fresh)

    def _store_once(
        self, session: Session, device: DeviceRow, spool: SpoolRow, record: Reported | Telemetry, now: float
    ) -> None:
        numbers = _numbers(spool)
        device.last_seen = int(now)
        if record.number in numbers:
            return
        numbers = numbers.add(record.number)
        spool.upto, spool.beyond = numbers.upto, [list(pair) for pair in numbers.beyond]
        if isinstance(record, Reported):
            _store_report(session, device, spool, record, now)
        else:
            spool.rows += record.rows
            spool.errors += record.errors
            self._store_window(session, device, record, now)
            _keep_gauges(device, spool, record)

    def _store_window(self, session: Session, device: DeviceRow, record: Telemetry, now: float) -> None:
        profile = self._profile_of(session, record.bundle)
        cells = _fitting(record, profile)
        session.add(
            WindowRow(
                device=device.id,
                received_at=now,
                cells={name: list(counts) for name, counts in cells.items()},
                latency=list(record.latency),
                **_plain(record, "session number bundle variant start end rows errors infrastructure"),
            )
        )
        served = session.get(ServedRow, (device.id, record.bundle))
        if served is None:
            served = ServedRow(device=device.id, bundle=record.bundle)
            session.add(served)
        confidence = _confidence(cells, profile)
        served.confidence_n += confidence.n
        served.confidence_total += confidence.total
        served.confidence_squares += confidence.squares
        for row in (device, served):
            row.windows += 1
            row.rows += record.rows
            row.errors += record.errors

    def _profile_of(self, session: Session, bundle: str) -> ReferenceProfile | None:
        if bundle not in self._profiles:
            row = session.get(BundleRow, bundle)
            if row is None or row.profile is None:
                return None
            self._profiles[bundle] = decode(ReferenceProfile, row.profile)
        return self._profiles[bundle]


def _spool(session: Session, device: str, number: int) -> SpoolRow:
    query = select(SpoolRow).where(SpoolRow.device == device, SpoolRow.session == number)
    row = session.exec(query).first()
    if row is None:
        row = SpoolRow(device=device, session=number)
        session.add(row)
        session.flush()  # gives it the id that orders sessions by arrival
    return row


def _store_status(device: DeviceRow, status: Status, now: float) -> None:
    """Take a birth or death over, unless it is of an earlier start of the agent.

    A retained status repeats what the device ran at its birth, so ``running`` counts for a new start only; later
    changes come as reports.
    """
    if status.boot < device.boot:
        return
    if status.boot > device.boot or device.last_seen is None:
        device.running = status.running
    device.boot = status.boot
    device.online = status.online
    device.agent_version = status.agent_version
    device.capabilities = msgspec.to_builtins(status.capabilities)
    device.last_seen = int(now)


def _store_report(session: Session, device: DeviceRow, spool: SpoolRow, record: Reported, now: float) -> None:
    """Keep the report; it is also the device's newest one unless a later number was here before it."""
    session.add(
        ReportRow(
            device=device.id,
            received_at=now,
            state=str(record.state),
            result=None if record.result is None else str(record.result),
            **_plain(record, "session number at job bundle running detail"),
        )
    )
    assert spool.id is not None  # flushed
    if (spool.id, record.number) <= (device.report_spool, device.report_number):
        return
    device.report_spool, device.report_number = spool.id, record.number
    device.job, device.job_bundle, device.state = record.job, record.bundle, str(record.state)
    device.result = None if record.result is None else str(record.result)
    device.detail, device.reported_at, device.running = record.detail, record.at, record.running


def _keep_gauges(device: DeviceRow, spool: SpoolRow, record: Telemetry) -> None:
    """Keep the gauges of the device's newest window; windows may arrive in any order."""
    assert spool.id is not None  # flushed
    place = (spool.id, record.number)
    if record.infrastructure and place > (device.gauges_spool, device.gauges_number):
        device.gauges_spool, device.gauges_number = place
        device.gauges, device.gauges_at = dict(record.infrastructure), record.end


def _plain(record: Reported | Telemetry, names: str) -> dict[str, Any]:
    """Return the fields that a row has under the same names."""
    return {name: getattr(record, name) for name in names.split()}


def _fitting(record: Telemetry, profile: ReferenceProfile | None) -> dict[str, tuple[int, ...]]:
    """Return the features whose cells are those of the bundle's profile; others cannot be merged or tested."""
    if profile is None:
        return {}
    sizes = {feature.spec.name: feature.spec.cells for feature in profile.features}
    return {name: counts for name, counts in record.cells.items() if sizes.get(name) == len(counts)}


def _confidence(cells: dict[str, tuple[int, ...]], profile: ReferenceProfile | None) -> Moments:
    """Return number, sum and sum of squares of the confidences; one that is not a number counts as zero."""
    for feature in profile.features if profile else ():
        counts = cells.get(feature.spec.name)
        if feature.spec.summary is Summary.CONFIDENCE and counts is not None:
            mean, variance, finite = mean_from_cells(feature.spec, counts)
            if finite == 0:
                return Moments(sum(counts), 0.0, 0.0)
            return Moments(sum(counts), mean * finite, (variance + mean**2) * finite)
    return Moments()


def _numbers(spool: SpoolRow) -> NumberSet:
    return NumberSet(spool.upto, tuple((first, last) for first, last in spool.beyond))


def _acknowledgements(
    spools: dict[tuple[str, int], SpoolRow], fresh: dict[tuple[str, int], list[int]]
) -> dict[str, list[Ack]]:
    acks: dict[str, list[Ack]] = {}
    for (device, number), spool in spools.items():
        stored = _numbers(spool)
        beyond = stored.acknowledgeable(fresh[device, number])
        acks.setdefault(device, []).append(Ack(session=number, upto=stored.upto, beyond=beyond))
    return acks

"""What devices send, stored exactly once, a batch in one transaction.

A message is stored and counted in one transaction with the numbers that its spool session has seen, so a repeated
one changes nothing and an acknowledged one is on disk. The number of statements does not depend on the number of
messages: what the batch touches is loaded, changed in memory (:mod:`edgeopt_fleet.store.books`) and written. Example::

    acks = inbox.store(batch, now)
    acks["cam-7"]                            # [Ack(session=…, upto=12, beyond=())]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlmodel import Session, col, func, select

from edgeopt_contract.codec import decode
from edgeopt_contract.messages import Ack, Reported, Status, Telemetry
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_fleet.decoding import Incoming, Window
from edgeopt_fleet.herd import reconnect_window_seconds
from edgeopt_fleet.store.books import Books, SpoolBook, json_text
from edgeopt_fleet.store.bulk import insert_rows
from edgeopt_fleet.store.changes import Counter, next_change
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.served import add_served
from edgeopt_fleet.store.shadow_inbox import ShadowBook, is_shadow, remind
from edgeopt_fleet.store.tables import BundleRow, DeviceRow, ReportRow, WindowRow
from edgeopt_fleet.totals import Layout

__all__ = ["Inbox", "Incoming"]

_COUNT_SECONDS = 60.0
_NONE: Mapping[str, int] = {}
_REPORT = (
    "device", "received_at", "session", "number", "at", "job", "bundle", "state", "running", "result", "detail",
)  # fmt: skip
_WINDOW = (
    "id", "previous", "device", "received_at", "counts", "session", "number", "bundle", "variant", "start", "end",
    "rows", "errors", "infrastructure",
)  # fmt: skip


class Inbox:
    """Stores batches of messages."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._layouts: dict[str, Layout] = {}
        self._window_seconds = 1.0
        self._counted_at = float("-inf")

    def store(
        self, batch: Sequence[Incoming], now: float, malformed: Mapping[str, int] = _NONE
    ) -> dict[str, list[Ack]]:
        """Store a batch in one transaction and return what may be acknowledged to each device.

        ``malformed`` counts, by device, what came beside it and could not be read.

        Messages of devices that are not enrolled are dropped. Numbers that were stored before are acknowledged
        again: the device did not get the first acknowledgement. Raises :class:`StorageError`; then nothing is stored.
        """
        with self._database.transaction(lock="ingest") as session:
            books = Books.load(session, batch, malformed)
            reports: list[tuple[Any, ...]] = []
            windows: list[tuple[str, Telemetry | Window]] = []
            shadows, born = ShadowBook(), set()
            for message in batch:
                device, record = books.devices.get(message.device), message.record
                if device is None:
                    continue
                if isinstance(record, Status):
                    device.take_status(record, now)
                    born |= {device.id} if record.online else set()
                    continue
                spool = books.spools[device.id, record.session]
                device.seen(now)
                if not spool.take(record.number):
                    continue
                if is_shadow(record):
                    shadows.take(device.id, spool.id, record)
                elif isinstance(record, Reported):
                    device.take_report(spool.id, record)
                    reports.append(_report(device.id, record, now))
                else:
                    device.take_window(spool.id, record)
                    spool.count(record)
                    windows.append((device.id, record))
            shadows.write(session)
            if born:
                remind(session, sorted(born))
            self._write(session, books, reports, windows, now)  # last: it takes the number of a change
            self._count_devices(session, now)
        return _acknowledgements(books.spools.values(), self._window_seconds)

    def _write(
        self,
        session: Session,
        books: Books,
        reports: list[tuple[Any, ...]],
        windows: list[tuple[str, Telemetry | Window]],
        now: float,
    ) -> None:
        insert_rows(session, ReportRow, _REPORT, reports)
        if windows:
            layouts = {digest: self._layout_of(session, digest) for digest in {w.bundle for _, w in windows}}
            blobs = add_served(session, windows, layouts)
            first = next_change(session, Counter.WINDOWS, len(windows)) - len(windows) + 1
            rows = [
                (row, books.devices[device].chain_window(row), *_window(device, record, blob, now))
                for row, ((device, record), blob) in enumerate(zip(windows, blobs, strict=True), first)
            ]
            insert_rows(session, WindowRow, _WINDOW, rows)
        told = [device.id for device in books.devices.values() if device.told]
        books.write(session, next_change(session) if told else 0)

    def _count_devices(self, session: Session, now: float) -> None:
        """Look now and then how large the fleet is: by that it is told how slowly to come back."""
        if now >= self._counted_at + _COUNT_SECONDS:
            present = col(DeviceRow.revoked_at).is_(None)
            devices = session.exec(select(func.count(col(DeviceRow.id))).where(present)).one()
            self._window_seconds, self._counted_at = reconnect_window_seconds(devices), now

    def _layout_of(self, session: Session, bundle: str) -> Layout:
        """Return the layout of the bundle's profile; of a bundle that is not here, that of latencies alone."""
        if bundle not in self._layouts:
            profile = session.exec(select(BundleRow.profile).where(col(BundleRow.digest) == bundle)).first()
            if profile is None:
                return Layout()
            self._layouts[bundle] = Layout.of(decode(ReferenceProfile, profile))
        return self._layouts[bundle]


def _report(device: str, record: Reported, now: float) -> tuple[Any, ...]:
    result = None if record.result is None else str(record.result)
    place = (record.session, record.number, record.at)
    return (device, now, *place, record.job, record.bundle, str(record.state), record.running, result, record.detail)


def _window(device: str, record: Telemetry | Window, counts: bytes, now: float) -> tuple[Any, ...]:
    place = (record.session, record.number, record.bundle, record.variant, record.start, record.end)
    return (device, now, counts, *place, record.rows, record.errors, json_text(record.infrastructure))


def _acknowledgements(spools: Iterable[SpoolBook], window_seconds: float) -> dict[str, list[Ack]]:
    acks: dict[str, list[Ack]] = {}
    for spool in spools:
        beyond = spool.numbers.acknowledgeable(spool.fresh)
        ack = Ack(
            session=spool.session,
            upto=spool.numbers.upto,
            beyond=beyond,
            reconnect_window_seconds=window_seconds,
        )
        acks.setdefault(spool.device, []).append(ack)
    return acks

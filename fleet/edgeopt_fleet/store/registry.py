"""Devices as they are read: found by a filter, one after the other or one by one; and the tags that people give them.

What devices say comes in through :mod:`edgeopt_fleet.store.inbox`, who they are through
:mod:`edgeopt_fleet.store.identities`. Example::

    registry = Registry(database)
    registry.devices(DeviceFilter(tags={"site": "oslo"}), after=None, limit=101)
    registry.put_tags("cam-7", {"site": "lima"}, now, check=lambda present: None)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import literal
from sqlmodel import Session, col, select, update
from sqlmodel.sql.expression import SelectOfScalar

from edgeopt_fleet.filters import DeviceFilter
from edgeopt_fleet.hardware import hardware_class
from edgeopt_fleet.problems import NotFoundError
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.changes import next_change
from edgeopt_fleet.store.cohorts import find_filter, members
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.filtering import conditions
from edgeopt_fleet.store.nearest import did_you_mean
from edgeopt_fleet.store.tables import DeviceRow, ReportRow, SpoolRow, WindowRow

__all__ = ["Registry"]


class Registry:
    """Which devices there are, and what is known of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def devices(
        self, wanted: DeviceFilter, after: str | None, limit: int, cohort: str | None = None
    ) -> Sequence[DeviceRow]:
        """Return up to ``limit`` devices that fit, by id, those after the id ``after``; those in ``cohort`` only.

        Raises :class:`NotFoundError` when there is no such cohort.
        """
        query = select(DeviceRow).where(*conditions(wanted)).order_by(col(DeviceRow.id)).limit(limit)
        if after is not None:
            query = query.where(col(DeviceRow.id) > after)
        with self._database.reading() as session:
            if cohort is not None:
                query = query.where(*members(find_filter(session, cohort)))
            return session.exec(query).all()

    def device(self, device: str) -> DeviceRow:
        """Return one device. Raises :class:`NotFoundError`."""
        with self._database.reading() as session:
            return _row(session, device)

    def detail(self, device: str, reports: int = 10) -> tuple[DeviceRow, Sequence[ReportRow]]:
        """Return one device with its last ``reports`` reports, newest first. Raises :class:`NotFoundError`."""
        with self._database.reading() as session:
            return _row(session, device), session.exec(_reports_of(device).limit(reports)).all()

    def reports(self, device: str, before: int | None, limit: int) -> Sequence[ReportRow]:
        """Return up to ``limit`` reports of a device, newest first, those before the row ``before``."""
        query = _reports_of(device).limit(limit)
        if before is not None:
            query = query.where(col(ReportRow.id) < before)
        with self._database.reading() as session:
            _row(session, device)
            return session.exec(query).all()

    def windows(self, device: str, before: int | None, limit: int) -> Sequence[WindowRow]:
        """Return up to ``limit`` profile windows of a device, newest first, those before the row ``before``."""
        with self._database.reading() as session:
            newest = _row(session, device).newest_window
            if before is not None:
                last = session.get(WindowRow, before)
                newest = 0 if last is None or last.device != device else last.previous
            found = session.exec(_windows_until(newest, limit)).all()
        return sorted(found, key=lambda row: row.id, reverse=True)

    def spools(self, device: str) -> Sequence[SpoolRow]:
        """Return what is stored of each spool session of ``device``, oldest first."""
        with self._database.reading() as session:
            _row(session, device)
            return session.exec(select(SpoolRow).where(SpoolRow.device == device).order_by(col(SpoolRow.id))).all()

    def mark_all_offline(self) -> None:
        """Forget who was online; a device that is says so when it connects."""
        with self._database.transaction() as session:
            gone = update(DeviceRow).where(col(DeviceRow.online).is_(True))
            session.execute(gone.values(online=False, changed=next_change(session)))

    def put_tags(
        self, device: str, tags: Mapping[str, str], now: float, check: Callable[[Mapping[str, str]], None]
    ) -> Mapping[str, str]:
        """Give ``device`` these tags instead of those it has, and return them.

        ``check`` sees the present ones inside the transaction and may raise. Members of rollouts stay members.
        """
        with self._database.transaction() as session:
            row = _row(session, device)
            check(row.tags)
            before, row.tags = dict(row.tags), dict(tags)
            can: Mapping[str, Any] = row.capabilities
            row.hardware = hardware_class(tags, str(can.get("arch", "")), can.get("features", ()))
            row.changed = next_change(session)
            change = Change(operation="device.tags", subject=f"device/{device}", before=before, after=row.tags)
            append(session, change, now)
            return row.tags


def _reports_of(device: str) -> SelectOfScalar[ReportRow]:
    return select(ReportRow).where(ReportRow.device == device).order_by(col(ReportRow.id).desc())


def _windows_until(newest: int, limit: int) -> SelectOfScalar[WindowRow]:
    """Return the query for the window ``newest`` and those before it of the same device, ``limit`` in all."""
    first = select(WindowRow.id, WindowRow.previous, literal(1).label("place")).where(col(WindowRow.id) == newest)
    chain = first.cte("chain", recursive=True)
    before = select(WindowRow.id, WindowRow.previous, chain.c.place + 1)
    chain = chain.union_all(before.where(col(WindowRow.id) == chain.c.previous, chain.c.place < limit))
    return select(WindowRow).join(chain, col(WindowRow.id) == chain.c.id)


def _row(session: Session, device: str) -> DeviceRow:
    row = session.get(DeviceRow, device)
    if row is None:
        raise NotFoundError(f"there is no device {device!r}{did_you_mean(session, col(DeviceRow.id), device)}")
    return row

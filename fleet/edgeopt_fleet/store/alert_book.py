"""Alerts as people read them, and how they close those that do not close by themselves.

Drift alerts are opened and closed by :mod:`edgeopt_fleet.store.alerts`, alarms are raised by
:mod:`edgeopt_fleet.store.alarms` and closed here. Example::

    book = AlertBook(database)
    book.page(AlertFilter(state="open"), before=None, limit=101)
    book.close(7, now)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import col, select

from edgeopt_fleet.problems import ConflictError, NotFoundError
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.changes import next_change
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import AlertRow

__all__ = ["CLOSED", "DRIFT", "OPEN", "AlertBook", "AlertFilter"]

OPEN, CLOSED = "open", "closed"
DRIFT = "drift"  # the kind that closes by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFilter:
    """Which alerts are meant; None does not matter."""

    state: str | None = None
    kind: str | None = None
    cohort: str | None = None
    bundle: str | None = None


class AlertBook:
    """Which alerts there are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, wanted: AlertFilter, before: int | None, limit: int) -> Sequence[AlertRow]:
        """Return up to ``limit`` alerts that fit, newest first, those before the number ``before``."""
        query = select(AlertRow).order_by(col(AlertRow.id).desc()).limit(limit)
        for column, value in (
            (AlertRow.state, wanted.state),
            (AlertRow.kind, wanted.kind),
            (AlertRow.cohort, wanted.cohort),
            (AlertRow.bundle, wanted.bundle),
        ):
            if value is not None:
                query = query.where(col(column) == value)
        if before is not None:
            query = query.where(col(AlertRow.id) < before)
        with self._database.reading() as session:
            return session.exec(query).all()

    def get(self, number: int) -> AlertRow:
        """Return one alert. Raises :class:`NotFoundError`."""
        with self._database.reading() as session:
            row = session.get(AlertRow, number)
        if row is None:
            raise NotFoundError(f"there is no alert {number}")
        return row

    def close(self, number: int, now: float) -> AlertRow:
        """Close an alarm; twice is once. Raises :class:`ConflictError` for drift, which closes when it is over."""
        with self._database.transaction(lock="alerts") as session:
            row = session.get(AlertRow, number)
            if row is None:
                raise NotFoundError(f"there is no alert {number}")
            if row.kind == DRIFT:
                raise ConflictError(f"alert {number} tells of drift: it closes by itself when the drift is over")
            if row.state != CLOSED:
                row.state, row.changed = CLOSED, next_change(session)
                change = Change(operation="alert.close", subject=f"alert/{number}", before={"state": OPEN},
                                after={"state": CLOSED})  # fmt: skip
                append(session, change, now)
        return row

"""Alarms: alerts about security, which people see beside those about drift.

One alert stays open for each kind and subject, however often it happens, and says when last. Whoever tries again and
again makes the fleet write a few times a minute at most. Example::

    raise_alarm(database, Alarm("token_reuse", "token/3fa94c", "the token 3fa94c … was used again"), now)
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session, select

from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.changes import next_change
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import AlertRow

__all__ = ["Alarm", "raise_alarm"]

_OPEN = "open"
_REPEAT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Alarm:
    """What happened, to which thing (``kind/name``), in words."""

    kind: str
    subject: str
    message: str


def raise_alarm(database: Database, alarm: Alarm, now: float) -> None:
    """Open an alert and tell the audit log, or renew the alert that is open, in a transaction of its own.

    Not in the caller's: what gives rise to an alarm is refused, and its transaction is rolled back.
    """
    with database.reading() as session:
        row = _open_alert(session, alarm)
        if row is not None and now - row.last_seen < _REPEAT_SECONDS:
            return
    with database.transaction(lock=f"alarm:{alarm.kind}") as session:
        row = _open_alert(session, alarm)
        if row is not None:
            row.last_seen, row.message, row.changed = int(now), alarm.message, next_change(session)
        else:
            session.add(_alert(alarm, int(now), next_change(session)))
            change = Change(operation=f"alarm.{alarm.kind}", subject=alarm.subject, detail={"message": alarm.message})
            append(session, change, now)


def _open_alert(session: Session, alarm: Alarm) -> AlertRow | None:
    query = select(AlertRow).where(
        AlertRow.kind == alarm.kind, AlertRow.source == alarm.subject, AlertRow.state == _OPEN
    )
    return session.exec(query).first()


def _alert(alarm: Alarm, now: int, changed: int) -> AlertRow:
    """Return a row without what only drift has."""
    return AlertRow(
        kind=alarm.kind,
        cohort="",
        feature="",
        source=alarm.subject,
        bundle="",
        state=_OPEN,
        opened_at=now,
        last_seen=now,
        psi=0.0,
        p_value=1.0,
        rows=0,
        message=alarm.message,
        changed=changed,
    )

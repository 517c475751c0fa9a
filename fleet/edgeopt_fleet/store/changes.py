"""Numbers for changes, so that whoever watches can be told what is newer than what was seen last.

A row that people watch (a device, a rollout, an alert) carries the number of the transaction that changed it last; no
history is kept. Numbers rise in the order of commits, not only of taking them: the row lock on the counter is held
until the transaction ends, so no smaller number becomes visible later. Take the number late and once. Example::

    with database.transaction() as session:
        row.state, row.changed = "paused", next_change(session)
"""

from __future__ import annotations

from sqlmodel import Session, col, select, update

from edgeopt_fleet.store.statements import insert_new
from edgeopt_fleet.store.tables import ChangeRow

__all__ = ["newest_change", "next_change"]

_ONLY = 1


def next_change(session: Session) -> int:
    """Return the next number; other transactions that want one wait until this one ends."""
    step = update(ChangeRow).where(col(ChangeRow.id) == _ONLY).values(number=ChangeRow.number + 1)
    number = session.execute(step.returning(col(ChangeRow.number))).scalar_one_or_none()
    if number is None:  # the first change of all
        insert_new(session, ChangeRow, [{"id": _ONLY, "number": 0}])
        return next_change(session)
    return int(number)


def newest_change(session: Session) -> int:
    """Return the number of the newest change that is visible here, 0 before the first."""
    return session.exec(select(ChangeRow.number).where(ChangeRow.id == _ONLY)).first() or 0

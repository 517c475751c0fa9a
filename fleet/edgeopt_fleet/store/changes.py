"""Numbers for changes, so that whoever watches can be told what is newer than what was seen last.

A row that people watch (a device, a rollout, an alert) carries the number of the transaction that changed it last; no
history is kept. Numbers rise in the order of commits, not only of taking them: the row lock on the counter is held
until the transaction ends, so no smaller number becomes visible later. Take the number late and once.

Identities and metadata have counters of their own: they change seldom, so metadata may be kept until their number
rises, and what is known of a device's identities until its certificates have a higher one
(:mod:`edgeopt_fleet.api.reads`). Windows are numbered in the order of their arrival. Example::

    with database.transaction() as session:
        row.state, row.changed = "paused", next_change(session)
"""

from __future__ import annotations

import enum

from sqlmodel import Session, col, select, update

from edgeopt_fleet.store.statements import insert_new
from edgeopt_fleet.store.tables import ChangeRow

__all__ = ["Counter", "newest_change", "newest_changes", "next_change"]


class Counter(enum.IntEnum):
    """What is counted; the number of the counter's row."""

    WATCHED = 1  # rows that people watch
    IDENTITIES = 2  # who may act as which device: enrolment, renewal, revocation
    METADATA = 3  # what devices trust
    WINDOWS = 4  # rows of windows, each with a number


def next_change(session: Session, counter: Counter = Counter.WATCHED, count: int = 1) -> int:
    """Take ``count`` numbers and return the last; other transactions that want one wait until this one ends."""
    step = update(ChangeRow).where(col(ChangeRow.id) == counter.value).values(number=ChangeRow.number + count)
    number = session.execute(step.returning(col(ChangeRow.number))).scalar_one_or_none()
    if number is None:  # the first change of all
        insert_new(session, ChangeRow, [{"id": counter.value, "number": 0}])
        return next_change(session, counter, count)
    return int(number)


def newest_change(session: Session, counter: Counter = Counter.WATCHED) -> int:
    """Return the number of the newest change that is visible here, 0 before the first."""
    return newest_changes(session)[counter]


def newest_changes(session: Session) -> dict[Counter, int]:
    """Return the newest number of every counter."""
    found = dict(session.exec(select(ChangeRow.id, ChangeRow.number)).all())
    return {counter: found.get(counter.value, 0) for counter in Counter}

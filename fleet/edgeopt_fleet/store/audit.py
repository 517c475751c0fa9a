"""The audit log in the database: appended to in the transaction of the change that it tells of.

So there is no change without its entry and no entry without its change, whatever is killed when. The chain itself is
:mod:`edgeopt_contract.audit`. Appending takes the lock of the log's head until the transaction ends: append last, so
that nobody waits long, and nobody in a circle. Nothing secret goes into ``detail``. Example::

    with database.transaction(lock="rollout:v2") as session:
        row.state = "paused"
        append(session, Change(operation="rollout.pause", subject="rollout/v2", before=was, after=state_of(row)), now)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlmodel import Session, col, select

from edgeopt_contract.audit import NOTHING, BrokenChainError, Chain, Entry, Head, digest_of_state
from edgeopt_fleet.acting import current_actor
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.statements import insert_new
from edgeopt_fleet.store.tables import AuditHeadRow, AuditRow

__all__ = ["AuditFilter", "AuditLog", "Change", "append"]

_ONLY = 1
_CHUNK = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happened to what. Of the states ``before`` and ``after`` only digests are kept; ``None``: no such thing."""

    operation: str  # thing.verb, like rollout.pause
    subject: str  # thing/name, like rollout/v2
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which entries are looked for; empty means all."""

    actor: str = ""
    operation: str = ""
    subject: str = ""


def append(session: Session, change: Change, now: float) -> None:
    """Tell of a change, within its transaction, on behalf of whoever acts. ``now`` in seconds since 1970."""
    actor = current_actor()
    head = _locked_head(session)
    entry = Entry(
        number=head.number + 1,
        at=int(now * 1000),
        actor=actor.name,
        via=actor.via,
        operation=change.operation,
        subject=change.subject,
        previous=head.sha256,
        before=digest_of_state(change.before),
        after=digest_of_state(change.after),
        detail=dict(change.detail),
    )
    sha256 = entry.sha256
    session.add(
        AuditRow(
            number=entry.number,
            at=entry.at,
            actor=entry.actor,
            via=entry.via,
            operation=entry.operation,
            subject=entry.subject,
            before=entry.before,
            after=entry.after,
            detail=dict(entry.detail),
            previous=entry.previous,
            sha256=sha256,
        )
    )
    head.number, head.sha256 = entry.number, sha256
    session.flush()


def _locked_head(session: Session) -> AuditHeadRow:
    """Return the head, locked until the transaction ends (on SQLite the transaction excludes all others anyway)."""
    query = (
        select(AuditHeadRow).where(AuditHeadRow.id == _ONLY).with_for_update().execution_options(populate_existing=True)
    )
    head = session.exec(query).first()
    if head is None:  # the first entry of all; two at once wait for each other here
        insert_new(session, AuditHeadRow, [{"id": _ONLY, "number": 0, "sha256": NOTHING}])
        head = session.exec(query).one()
    return head


class AuditLog:
    """Reads the log and verifies it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, wanted: AuditFilter, limit: int, below: int | None = None) -> Sequence[AuditRow]:
        """Return up to ``limit`` entries, newest first, with numbers under ``below``."""
        query = select(AuditRow).order_by(col(AuditRow.number).desc()).limit(limit)
        if below is not None:
            query = query.where(col(AuditRow.number) < below)
        for name in ("actor", "operation", "subject"):
            value = getattr(wanted, name)
            if value:
                query = query.where(getattr(AuditRow, name) == value)
        with self._database.reading() as session:
            return session.exec(query).all()

    def entries(self) -> Iterator[Entry]:
        """Give all entries, oldest first, as they stood when this was called."""
        return map(_entry, self._rows(self.head().entries))

    def head(self) -> Head:
        """Return where the log ends."""
        with self._database.reading() as session:
            row = session.get(AuditHeadRow, _ONLY)
        return Head(0, NOTHING) if row is None else Head(row.number, row.sha256)

    def verify(self) -> Head:
        """Follow the whole chain and return its end. Raises :class:`BrokenChainError` where it is broken."""
        chain, head = Chain(), self.head()
        for row in self._rows(head.entries):
            chain.follow(_entry(row), row.sha256)
        if chain.head != head:
            raise BrokenChainError(f"expected {head.entries} audit entries, got {chain.entries}: the last are missing")
        return head

    def _rows(self, end: int) -> Iterator[AuditRow]:
        """Give the rows up to number ``end``; a few at a time, so that a long log needs little memory."""
        last = 0
        while last < end:
            query = select(AuditRow).where(col(AuditRow.number) > last, col(AuditRow.number) <= end)
            with self._database.reading() as session:
                rows = session.exec(query.order_by(col(AuditRow.number)).limit(_CHUNK)).all()
            if not rows:
                return
            yield from rows
            last = rows[-1].number


def _entry(row: AuditRow) -> Entry:
    return Entry(
        number=row.number,
        at=row.at,
        actor=row.actor,
        via=row.via,
        operation=row.operation,
        subject=row.subject,
        previous=row.previous,
        before=row.before,
        after=row.after,
        detail=row.detail,
    )

"""Leases in the database: taking, prolonging and handing back; and the check inside a role's own transactions.

A process that was paused, or cut off from the database, may wake up after another one took its role over. So every
transaction that writes for a role begins with :meth:`Leases.check`, which fails when the lease has changed hands. On
PostgreSQL the check locks the lease's row until the commit, so nobody takes the role over between check and commit; a
process that stops inside such a transaction is thrown out by the server after a while, so it cannot keep the role. On
SQLite only one transaction is open at a time anyway. Example::

    leases = Leases(database, owner="host-1:4711", seconds=5.0)
    lease = leases.acquire(Role.ROLLOUTS)             # None: somebody else's
    with leases.guarded(lease).transaction() as session:      # LeaseLostError if it was taken over
        ...
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func
from sqlmodel import Session, col, select

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.leases import Lease, Role, claim, free, is_held, prolong
from edgeopt_fleet.store.clock import database_time
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.statements import insert_new
from edgeopt_fleet.store.tables import LeaseRow

__all__ = ["LeaseLostError", "Leases"]


class LeaseLostError(StorageError):
    """The role has been taken over by another process; nothing was written."""


class Leases:
    """The leases that ``owner``, one running process, takes for ``seconds`` at a time."""

    def __init__(self, database: Database, *, owner: str, seconds: float) -> None:
        self._database = database
        self.owner = owner
        self.seconds = seconds

    def acquire(self, role: Role) -> Lease | None:
        """Take ``role`` if nobody holds it any more; None while somebody does."""
        with self._database.transaction(lock=None) as session:
            self._hurry(session)
            insert_new(session, LeaseRow, [{"role": role, "owner": "", "epoch": 0, "expires_at": 0.0, "note": ""}])
            row = session.get_one(LeaseRow, role, with_for_update=True)
            taken = claim(_lease(row), self.owner, now=_now(session), seconds=self.seconds)
            if taken is not None:
                _put(session, row, taken)
        return taken

    def renew(self, held: Iterable[Lease]) -> dict[Role, Lease]:
        """Prolong the leases that are still this process's own, in one transaction; the others are left out."""
        kept: dict[Role, Lease] = {}
        with self._database.transaction(lock=None) as session:
            self._hurry(session)
            for mine in sorted(held, key=lambda lease: lease.role):  # in one order, so that two never wait in a ring
                row = session.get(LeaseRow, mine.role, with_for_update=True)
                longer = row and prolong(mine, _lease(row), now=_now(session), seconds=self.seconds)
                if row and longer:
                    _put(session, row, longer)
                    kept[mine.role] = longer
        return kept

    def release(self, held: Iterable[Lease]) -> None:
        """Hand leases back, so that a standby begins at once; those that were taken over are left alone."""
        with self._database.transaction(lock=None) as session:
            self._hurry(session)
            for mine in sorted(held, key=lambda lease: lease.role):
                row = session.get(LeaseRow, mine.role, with_for_update=True)
                if row and is_held(mine, _lease(row)):
                    _put(session, row, free(mine))

    def check(self, session: Session, lease: Lease) -> None:
        """Raise :class:`LeaseLostError` unless ``lease`` stands; on PostgreSQL it does until this transaction ends."""
        self._hurry(session)
        query = select(LeaseRow).where(LeaseRow.role == lease.role).with_for_update(read=True)
        row = session.exec(query.execution_options(populate_existing=True)).first()
        if row is None or not is_held(lease, _lease(row)):
            by = "nobody" if row is None or not row.owner else row.owner
            raise LeaseLostError(
                f"the role {lease.role} of {lease.owner} (epoch {lease.epoch}) is held by {by} now; nothing was written"
            )

    def guarded(self, lease: Lease) -> Database:
        """Return the database for the work of a role: each of its transactions begins with :meth:`check`."""
        return self._database.guarded(lambda session: self.check(session, lease))

    def standing(self) -> tuple[dict[Role, Lease], float]:
        """Return all leases as they stand, and the time on the clock that they expire by."""
        with self._database.reading() as session:
            rows = session.exec(select(LeaseRow).order_by(col(LeaseRow.role))).all()
            return {Role(row.role): _lease(row) for row in rows}, _now(session)

    def _hurry(self, session: Session) -> None:
        """Let PostgreSQL end this transaction when its process stops in the middle of it for as long as a lease."""
        if not self._database.is_sqlite:
            longest = f"{max(self.seconds, 1.0) * 1000:.0f}ms"
            session.exec(select(func.set_config("idle_in_transaction_session_timeout", longest, True)))


def _now(session: Session) -> float:
    return float(session.exec(select(database_time())).one())


def _lease(row: LeaseRow) -> Lease:
    return Lease(Role(row.role), row.owner, row.epoch, row.expires_at, row.note)


def _put(session: Session, row: LeaseRow, lease: Lease) -> None:
    row.owner, row.epoch, row.expires_at, row.note = lease.owner, lease.epoch, lease.expires_at, lease.note
    session.add(row)

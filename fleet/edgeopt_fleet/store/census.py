"""What the whole fleet is like at one moment, counted by the database.

Every process counts the same, so of these numbers one takes the maximum over processes, not the sum. Example::

    count(database).devices                  # {'online': 9871, 'offline': 129, 'revoked': 4}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlmodel import Session, case, col, func, select

from edgeopt_fleet.leases import Lease, Role
from edgeopt_fleet.store.clock import database_time
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import AlertRow, CertificateRow, DeviceRow, LeaseRow, RolloutRow, VerdictRow

__all__ = ["Census", "certificates", "count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Numbers by state; ``leases`` are those that stand, and ``now`` is the database's clock."""

    devices: Mapping[str, int]
    rollouts: Mapping[str, int]
    alerts: Mapping[str, int]
    verdicts: Mapping[str, int]
    unpublished: int
    leases: Mapping[Role, Lease]
    now: float

    def holder(self, role: Role) -> Lease | None:
        """Return the lease of whoever does the work of ``role`` now."""
        lease = self.leases.get(role)
        return lease if lease and lease.owner and lease.expires_at > self.now else None


def count(database: Database) -> Census:
    """Count. Raises :class:`StorageError`."""
    revoked, online = col(DeviceRow.revoked_at).is_not(None), col(DeviceRow.online)
    state = case((revoked, "revoked"), (online, "online"), else_="offline")
    with database.reading() as session:
        rows = session.exec(select(LeaseRow)).all()
        return Census(
            devices=_numbers(session, state),
            rollouts=_numbers(session, col(RolloutRow.state)),
            alerts=_numbers(session, col(AlertRow.kind), col(AlertRow.state) == "open"),
            verdicts=_numbers(session, col(VerdictRow.verdict)),
            unpublished=session.exec(select(func.count()).where(col(DeviceRow.desired_pending))).one(),
            leases={Role(r.role): Lease(Role(r.role), r.owner, r.epoch, r.expires_at, r.note) for r in rows},
            now=float(session.exec(select(database_time())).one()),
        )


def certificates(database: Database) -> tuple[int, ...]:
    """Return numbers that change whenever somebody is enrolled, renewed or revoked. Raises :class:`StorageError`."""
    newest, revoked = func.max(CertificateRow.id), func.count(col(CertificateRow.revoked_at))
    with database.reading() as session:
        last, gone = session.exec(select(newest, revoked)).one()
    return last or 0, gone


def _numbers(session: Session, by: object, *where: object) -> dict[str, int]:
    query = select(by, func.count()).where(*where).group_by(by)  # type: ignore[call-overload]  # of columns
    return {str(name): int(number) for name, number in session.exec(query).all()}

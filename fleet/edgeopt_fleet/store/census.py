"""What the whole fleet is like at one moment, counted by the database.

Every process counts the same, so of these numbers one takes the maximum over processes, not the sum. Example::

    count(database).devices                  # {'online': 9871, 'offline': 129, 'revoked': 4}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlmodel import Session, case, col, func, select

from edgeopt_fleet.leases import Lease, Role
from edgeopt_fleet.rollout import State
from edgeopt_fleet.store.clock import database_time
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.shadow_rows import ShadowState
from edgeopt_fleet.store.tables import (
    AlertRow,
    CertificateRow,
    DeviceRow,
    LeaseRow,
    MetadataRow,
    RolloutRow,
    ShadowLookRow,
    ShadowMemberRow,
    ShadowRow,
    VerdictRow,
)

__all__ = ["Census", "Expiries", "certificates", "count", "expiries"]

_LATE = 6  # devices renew when a third of a certificate's time is left; a sixth is late


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """Numbers by state; ``leases`` are those that stand, and ``now`` is the database's clock.

    ``agreements`` are of running shadows, by name, as their newest look has them: mean, and what it surely reaches.
    """

    devices: Mapping[str, int]
    rollouts: Mapping[str, int]
    shadows: Mapping[str, int]
    shadow_devices: int  # that are to run a challenger
    agreements: Mapping[str, tuple[float, float]]
    alerts: Mapping[str, int]
    verdicts: Mapping[str, int]
    unpublished: int
    slowest_wave_seconds: float  # of the rollout that has been in its wave for longest; 0 while none runs
    leases: Mapping[Role, Lease]
    now: float

    def holder(self, role: Role) -> Lease | None:
        """Return the lease of whoever does the work of ``role`` now."""
        lease = self.leases.get(role)
        return lease if lease and lease.owner and lease.expires_at > self.now else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiries:
    """How many devices should have renewed their certificate and have not; when the metadata of each role expire."""

    certificates: int
    metadata: Mapping[str, float]


class _Look(msgspec.Struct):
    over_all: tuple[float, float, float] | None


class _Expiring(msgspec.Struct):
    expires: datetime


class _Signed(msgspec.Struct):
    signed: _Expiring


def count(database: Database) -> Census:
    """Count. Raises :class:`StorageError`."""
    revoked, online = col(DeviceRow.revoked_at).is_not(None), col(DeviceRow.online)
    state = case((revoked, "revoked"), (online, "online"), else_="offline")
    with database.reading() as session:
        rows = session.exec(select(LeaseRow)).all()
        now = float(session.exec(select(database_time())).one())
        return Census(
            devices=_numbers(session, state),
            rollouts=_numbers(session, col(RolloutRow.state)),
            shadows=_numbers(session, col(ShadowRow.state)),
            shadow_devices=session.exec(select(func.count()).where(col(ShadowMemberRow.open))).one(),
            agreements=_agreements(session),
            alerts=_numbers(session, col(AlertRow.kind), col(AlertRow.state) == "open"),
            verdicts=_numbers(session, col(VerdictRow.verdict)),
            unpublished=session.exec(select(func.count()).where(col(DeviceRow.desired_pending))).one(),
            leases={Role(r.role): Lease(Role(r.role), r.owner, r.epoch, r.expires_at, r.note) for r in rows},
            slowest_wave_seconds=_slowest_wave(session, now),
            now=now,
        )


def expiries(database: Database) -> Expiries:
    """Look at what runs out. It reads every certificate: not for each second. Raises :class:`StorageError`."""
    newest = (
        select(func.max(CertificateRow.id))
        .join(DeviceRow, col(DeviceRow.id) == col(CertificateRow.device))
        .where(col(CertificateRow.revoked_at).is_(None), col(DeviceRow.revoked_at).is_(None))
        .group_by(col(CertificateRow.device))
    )
    left = col(CertificateRow.valid_until) - database_time()
    lifetime = col(CertificateRow.valid_until) - col(CertificateRow.valid_from)
    late = select(func.count()).where(col(CertificateRow.id).in_(newest), left * _LATE < lifetime)
    last = select(MetadataRow.role, func.max(MetadataRow.version)).group_by(col(MetadataRow.role))
    with database.reading() as session:
        metadata = {}
        for role, version in session.exec(last):
            data = session.get_one(MetadataRow, (role, version)).data
            metadata[role] = msgspec.json.decode(data, type=_Signed).signed.expires.timestamp()
        return Expiries(certificates=session.exec(late).one(), metadata=metadata)


def certificates(database: Database) -> tuple[int, ...]:
    """Return numbers that change whenever somebody is enrolled, renewed or revoked. Raises :class:`StorageError`."""
    newest, revoked = func.max(CertificateRow.id), func.count(col(CertificateRow.revoked_at))
    with database.reading() as session:
        last, gone = session.exec(select(newest, revoked)).one()
    return last or 0, gone


def _slowest_wave(session: Session, now: float) -> float:
    moving = col(RolloutRow.state).in_((State.RUNNING, State.ROLLING_BACK))
    since = session.exec(select(func.min(RolloutRow.wave_started_at)).where(moving)).one()
    return 0.0 if since is None else max(now - since, 0.0)


def _agreements(session: Session) -> dict[str, tuple[float, float]]:
    newest = (
        select(func.max(ShadowLookRow.id))
        .join(ShadowRow, col(ShadowRow.name) == col(ShadowLookRow.shadow))
        .where(ShadowRow.state == ShadowState.RUNNING)
        .group_by(col(ShadowLookRow.shadow))
    )
    found = session.exec(select(ShadowLookRow.shadow, ShadowLookRow.verdict).where(col(ShadowLookRow.id).in_(newest)))
    seen = {name: msgspec.json.decode(verdict, type=_Look).over_all for name, verdict in found}
    return {name: interval[:2] for name, interval in seen.items() if interval is not None}


def _numbers(session: Session, by: object, *where: object) -> dict[str, int]:
    query = select(by, func.count()).where(*where).group_by(by)  # type: ignore[call-overload]  # of columns
    return {str(name): int(number) for name, number in session.exec(query).all()}

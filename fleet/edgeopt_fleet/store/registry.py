"""Operators' keys, enrolment tokens, devices and cohorts.

Secrets are kept as hashes only. What a token is exchanged for is in :mod:`edgeopt_fleet.store.identities`. Example::

    registry = Registry(database)
    token = registry.create_token(TokenGrant(uses=1, expires_at=1764086400, tags={}))
    registry.devices(("site", "oslo")).devices
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session, col, select, update

from edgeopt_contract.values import digest_of
from edgeopt_fleet.cohort import EVERYONE, matches
from edgeopt_fleet.problems import InvalidError, NotFoundError
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import ApiKeyRow, CohortRow, DeviceRow, ReportRow, SpoolRow, TokenRow

__all__ = ["Cohort", "Page", "Registry", "TokenGrant", "all_cohorts", "find_cohort"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant:
    """What a token allows; ``expires_at`` in seconds since 1970. ``tags`` are given to each device it enrols."""

    uses: int
    expires_at: int
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A saved filter and the devices it matches now; revoked ones belong nowhere."""

    name: str
    tags: Mapping[str, str]
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Some devices in the order of their ids; ``next`` is where the following page begins, if there is one."""

    devices: Sequence[DeviceRow]
    next: str | None


class Registry:
    """Who may do what, and which devices there are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- keys and tokens ------------------------------------------------------------------------------------------

    def create_api_key(self, name: str, now: float) -> str:
        """Make an operator's key and return it; it cannot be read again."""
        key = secrets.token_urlsafe(32)
        with self._database.transaction() as session:
            session.add(ApiKeyRow(sha256=digest_of(key.encode()), name=name, created_at=now))
        return key

    def is_api_key(self, key: str) -> bool:
        """Say whether ``key`` is an operator's, in a time that does not tell how much of it is right."""
        wanted = digest_of(key.encode("utf-8", "surrogatepass"))
        with self._database.transaction() as session:
            known = session.exec(select(ApiKeyRow.sha256)).all()
        return any([hmac.compare_digest(wanted, one) for one in known])  # noqa: C419 - a list, so that all are compared

    def create_token(self, grant: TokenGrant) -> str:
        """Make a token that enrols devices and return it; it cannot be read again."""
        token = secrets.token_urlsafe(32)
        with self._database.transaction() as session:
            session.add(
                TokenRow(
                    sha256=digest_of(token.encode()),
                    uses_left=grant.uses,
                    expires_at=grant.expires_at,
                    tags=dict(grant.tags),
                )
            )
        return token

    # --- devices --------------------------------------------------------------------------------------------------

    def devices(self, tag: tuple[str, str] | None = None, limit: int = 100, cursor: str = "") -> Page:
        """Return up to ``limit`` devices with ids above ``cursor``, those with ``tag`` if it is given."""
        wanted = {} if tag is None else {tag[0]: tag[1]}
        with self._database.transaction() as session:
            query = select(DeviceRow).where(col(DeviceRow.id) > cursor).order_by(col(DeviceRow.id))
            found = [row for row in session.exec(query) if matches(wanted, row.tags)]
        page = found[:limit]
        return Page(page, page[-1].id if len(found) > limit else None)

    def device(self, device: str) -> DeviceRow:
        """Return one device. Raises :class:`NotFoundError`."""
        with self._database.transaction() as session:
            row = session.get(DeviceRow, device)
        if row is None:
            raise NotFoundError(f"there is no device {device!r}")
        return row

    def spools(self, device: str) -> Sequence[SpoolRow]:
        """Return what is stored of each spool session of ``device``, oldest first."""
        self.device(device)
        with self._database.transaction() as session:
            return session.exec(select(SpoolRow).where(SpoolRow.device == device).order_by(col(SpoolRow.id))).all()

    def reports(self, device: str, limit: int = 10) -> Sequence[ReportRow]:
        """Return what ``device`` reported last, newest first."""
        query = select(ReportRow).where(ReportRow.device == device).order_by(col(ReportRow.id).desc()).limit(limit)
        with self._database.transaction() as session:
            return session.exec(query).all()

    def mark_all_offline(self) -> None:
        """Forget who was online; a device that is says so when it connects."""
        with self._database.transaction() as session:
            session.execute(update(DeviceRow).values(online=False))

    # --- cohorts --------------------------------------------------------------------------------------------------

    def put_cohort(self, name: str, tags: Mapping[str, str]) -> Cohort:
        """Save a filter under ``name``. Raises :class:`InvalidError` for the name of everyone."""
        if name == EVERYONE and tags:
            raise InvalidError(f"the cohort {EVERYONE!r} always holds all devices; choose another name for a filter")
        with self._database.transaction() as session:
            if name != EVERYONE:
                session.merge(CohortRow(name=name, tags=dict(tags)))
                session.flush()
            return _cohort(session, name, tags)

    def cohorts(self) -> list[Cohort]:
        """Return all cohorts by name, the one of everyone first."""
        with self._database.transaction() as session:
            return all_cohorts(session)

    def cohort(self, name: str) -> Cohort:
        """Return one cohort. Raises :class:`NotFoundError`."""
        with self._database.transaction() as session:
            return find_cohort(session, name)


def all_cohorts(session: Session) -> list[Cohort]:
    """Return all cohorts within a transaction."""
    saved = session.exec(select(CohortRow).order_by(col(CohortRow.name))).all()
    return [_cohort(session, EVERYONE, {}), *(_cohort(session, row.name, row.tags) for row in saved)]


def find_cohort(session: Session, name: str) -> Cohort:
    """Return one cohort within a transaction. Raises :class:`NotFoundError`."""
    if name == EVERYONE:
        return _cohort(session, name, {})
    row = session.get(CohortRow, name)
    if row is None:
        raise NotFoundError(
            f"there is no cohort {name!r}; create it first: edgeopt cohort create {name} --tag key=value"
        )
    return _cohort(session, name, row.tags)


def _cohort(session: Session, name: str, tags: Mapping[str, Any]) -> Cohort:
    present = col(DeviceRow.revoked_at).is_(None)
    rows = session.exec(select(DeviceRow.id, DeviceRow.tags).where(present).order_by(col(DeviceRow.id))).all()
    return Cohort(name=name, tags=dict(tags), devices=tuple(device for device, own in rows if matches(tags, own)))

"""Cohorts: filters over devices, saved under a name.

A cohort means whoever fits at the moment it is asked; the members of a rollout are fixed when it is created. Devices
that were revoked belong nowhere. Example::

    cohorts = Cohorts(database)
    cohorts.put("oslo", DeviceFilter(tags={"site": "oslo"}), now, check=lambda present: None)
    with database.reading() as session:
        find_cohort(session, "oslo").devices
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from edgeopt_fleet.cohort import EVERYONE
from edgeopt_fleet.filters import DeviceFilter
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.filtering import conditions
from edgeopt_fleet.store.nearest import did_you_mean
from edgeopt_fleet.store.tables import CohortRow, DeviceRow, RolloutRow, TokenRow

__all__ = ["Cohort", "Cohorts", "SavedFilter", "all_cohorts", "find_cohort", "find_filter", "members"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """A saved filter and the devices it matches now."""

    name: str
    tags: Mapping[str, str]
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SavedFilter:
    """A cohort as it was saved."""

    name: str
    wanted: DeviceFilter


Check = Callable[[SavedFilter | None], None]


class Cohorts:
    """Saves filters, and finds out whom they mean."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, after: str | None, limit: int) -> Sequence[SavedFilter]:
        """Return up to ``limit`` cohorts by name, the one of everyone first, those after ``after``."""
        query = select(CohortRow).order_by(col(CohortRow.name)).limit(limit)
        if after is not None and after != EVERYONE:
            query = query.where(col(CohortRow.name) > after)
        first = [SavedFilter(EVERYONE, DeviceFilter())] if after is None else []
        with self._database.reading() as session:
            return [*first, *map(_saved, session.exec(query))][:limit]

    def get(self, name: str) -> SavedFilter:
        """Return one cohort. Raises :class:`NotFoundError`."""
        with self._database.reading() as session:
            return find_filter(session, name)

    def put(self, name: str, wanted: DeviceFilter, now: float, check: Check) -> SavedFilter:
        """Save ``wanted`` under ``name``; ``check`` sees what is there inside the transaction and may raise.

        Raises :class:`InvalidError` for the name of everyone.
        """
        if name == EVERYONE:
            raise InvalidError(f"the cohort {EVERYONE!r} always holds all devices; choose another name for a filter")
        plain = msgspec.to_builtins(wanted)
        with self._database.transaction() as session:
            row = session.get(CohortRow, name)
            check(None if row is None else _saved(row))
            before = None if row is None else msgspec.to_builtins(_saved(row).wanted)
            tags = plain["tags"]
            others = {key: value for key, value in plain.items() if key != "tags" and value not in (None, [], ())}
            session.merge(CohortRow(name=name, tags=tags, others=others))
            append(session, Change(operation="cohort.put", subject=f"cohort/{name}", before=before, after=plain), now)
        return SavedFilter(name, wanted)

    def delete(self, name: str, now: float, check: Check) -> None:
        """Forget a cohort that nobody uses. Raises :class:`ConflictError` naming who does, :class:`NotFoundError`."""
        if name == EVERYONE:
            raise InvalidError(f"the cohort {EVERYONE!r} always exists")
        with self._database.transaction() as session:
            saved = find_filter(session, name)
            check(saved)
            _refuse_if_used(session, name)
            session.delete(session.get_one(CohortRow, name))
            before = msgspec.to_builtins(saved.wanted)
            append(session, Change(operation="cohort.delete", subject=f"cohort/{name}", before=before), now)


def all_cohorts(session: Session) -> list[Cohort]:
    """Return all cohorts with their devices within a transaction."""
    rows = session.exec(select(CohortRow).order_by(col(CohortRow.name))).all()
    saved = [SavedFilter(EVERYONE, DeviceFilter()), *map(_saved, rows)]
    return [_with_devices(session, one) for one in saved]


def find_cohort(session: Session, name: str) -> Cohort:
    """Return one cohort with its devices within a transaction. Raises :class:`NotFoundError`."""
    return _with_devices(session, find_filter(session, name))


def find_filter(session: Session, name: str) -> SavedFilter:
    """Return one cohort as it was saved. Raises :class:`NotFoundError`."""
    if name == EVERYONE:
        return SavedFilter(name, DeviceFilter())
    row = session.get(CohortRow, name)
    if row is None:
        meant = did_you_mean(session, col(CohortRow.name), name)
        create = f"; create it first: edgeopt cohorts create {name} --tag key=value"
        raise NotFoundError(f"there is no cohort {name!r}{meant or create}")
    return _saved(row)


def members(saved: SavedFilter) -> list[ColumnElement[bool]]:
    """Return what a row of ``device`` must fulfil to belong now."""
    return [col(DeviceRow.revoked_at).is_(None), *conditions(saved.wanted)]


def _saved(row: CohortRow) -> SavedFilter:
    plain: dict[str, Any] = {**row.others, "tags": row.tags}
    return SavedFilter(row.name, msgspec.convert(plain, DeviceFilter))


def _with_devices(session: Session, saved: SavedFilter) -> Cohort:
    found = session.exec(select(DeviceRow.id).where(*members(saved)).order_by(col(DeviceRow.id))).all()
    return Cohort(name=saved.name, tags=dict(saved.wanted.tags), devices=tuple(found))


def _refuse_if_used(session: Session, name: str) -> None:
    """Raise :class:`ConflictError` when a rollout that has not settled, or a token, names the cohort."""
    used = session.exec(
        select(RolloutRow.name).where(RolloutRow.cohort == name, col(RolloutRow.settled).is_(False)).limit(1)
    ).first()
    if used is not None:
        raise ConflictError(f"the rollout {used!r} to the cohort {name!r} has not ended; wait for it, or cancel it")
    if session.exec(select(TokenRow.sha256).where(TokenRow.cohort == name, col(TokenRow.revoked_at).is_(None))).first():
        raise ConflictError(f"a token enrols devices for the cohort {name!r}; revoke it first: edgeopt token list")

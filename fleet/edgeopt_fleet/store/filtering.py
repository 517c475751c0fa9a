"""Filters over devices as SQL.

Example::

    select(DeviceRow).where(*conditions(DeviceFilter(tags={"site": "oslo"})))
"""

from __future__ import annotations

from sqlalchemy import ColumnElement
from sqlmodel import and_, col, not_, or_

from edgeopt_fleet.filters import DeviceFilter, Health
from edgeopt_fleet.store.tables import DeviceRow

__all__ = ["conditions", "health_of"]

_BAD_STATES = ("failed", "rejected", "rolled_back")
_RUNS_NOTHING = "none"


def conditions(wanted: DeviceFilter) -> list[ColumnElement[bool]]:
    """Return what a row of ``device`` must fulfil."""
    found: list[ColumnElement[bool]] = [
        col(DeviceRow.tags)[key].as_string() == value for key, value in sorted(wanted.tags.items())
    ]
    if wanted.hardware:
        found.append(col(DeviceRow.hardware).in_(wanted.hardware))
    if wanted.running == _RUNS_NOTHING:
        found.append(col(DeviceRow.running).is_(None))
    elif wanted.running is not None:
        found.append(col(DeviceRow.running).startswith(wanted.running))
    for column, value in (
        (DeviceRow.agent_version, wanted.agent_version),
        (DeviceRow.state, wanted.state),
        (DeviceRow.online, wanted.online),
    ):
        if value is not None:
            found.append(col(column) == value)
    if wanted.health is not None:
        found.append(_is(wanted.health))
    return found


def health_of(row: DeviceRow) -> Health:
    """Return how a device is; the same as :func:`conditions` asks of the database."""
    if row.revoked_at is not None:
        return Health.REVOKED
    if not row.online:
        return Health.OFFLINE
    return Health.FAILING if row.state in _BAD_STATES else Health.OK


def _is(health: Health) -> ColumnElement[bool]:
    revoked, online = col(DeviceRow.revoked_at).is_not(None), col(DeviceRow.online).is_(True)
    failing = and_(col(DeviceRow.state).is_not(None), col(DeviceRow.state).in_(_BAD_STATES))
    return {
        Health.REVOKED: revoked,
        Health.OFFLINE: and_(not_(revoked), not_(online)),
        Health.FAILING: and_(not_(revoked), online, failing),
        Health.OK: and_(not_(revoked), online, or_(col(DeviceRow.state).is_(None), not_(failing))),
    }[health]

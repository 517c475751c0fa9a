"""Whose bearer a download comes with: read one by one, all at once, or what has changed.

Of a bearer only the SHA-256 is stored. Example::

    bearers = Bearers(database)
    bearers.whose("…", now)                  # Bearer(device='cam-7', valid=True, …), or None
    known = bearers.worthy(most=50_000)
    later = bearers.since(known.numbers[Counter.IDENTITIES])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Executable, bindparam
from sqlmodel import col, select

from edgeopt_contract.values import digest_of
from edgeopt_fleet.store.changes import Counter, newest_change, newest_changes
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import CertificateRow, DeviceRow

__all__ = ["Bearer", "Bearers", "KnownBearers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """What a bearer is worth; ``revoked``: its device was, rather than that it ran out or was replaced.

    It is worth that until ``valid_until``, as long as nothing changes the device's identities beyond ``change``.
    """

    device: str
    valid: bool
    revoked: bool
    valid_until: int
    change: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBearers:
    """What bearers are worth at one moment, by their SHA-256, and the number of every counter then."""

    numbers: Mapping[Counter, int]
    bearers: dict[str, Bearer]


_BEARERS = select(
    col(CertificateRow.bearer_sha256),
    col(CertificateRow.device),
    col(CertificateRow.valid_until),
    col(CertificateRow.revoked_at).label("ended_at"),
    col(DeviceRow.revoked_at),
).join(DeviceRow, col(DeviceRow.id) == col(CertificateRow.device))  # type: ignore[call-overload]  # of five columns
_BEARER: Executable = _BEARERS.where(col(CertificateRow.bearer_sha256) == bindparam("wanted"))
_CHANGED: Executable = _BEARERS.where(col(CertificateRow.changed) > bindparam("since"))
_WORTHY: Executable = (
    _BEARERS.where(col(CertificateRow.revoked_at).is_(None), col(DeviceRow.revoked_at).is_(None))
    .order_by(col(CertificateRow.id).desc())
    .limit(bindparam("most"))
)


class Bearers:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def whose(self, bearer: str, now: int) -> Bearer | None:
        """Return whose bearer this is. Looked up by its hash, so the time tells nothing about the bearer."""
        wanted = digest_of(bearer.encode("utf-8", "surrogatepass"))
        with self._database.reading() as session:
            found = session.connection().execute(_BEARER, {"wanted": wanted}).first()
            change = 0 if found is None else newest_change(session, Counter.IDENTITIES)
        if found is None:
            return None
        known = _worth(found, change)
        return replace(known, valid=known.valid and now < known.valid_until)

    def worthy(self, most: int) -> KnownBearers:
        """Return the ``most`` newest bearers that were neither revoked nor replaced."""
        return self._known(_WORTHY, {"most": most})

    def since(self, change: int) -> KnownBearers:
        """Return all bearers of devices whose identities changed after the number ``change``."""
        return self._known(_CHANGED, {"since": change})

    def _known(self, query: Executable, values: Mapping[str, int]) -> KnownBearers:
        with self._database.reading() as session:
            numbers = newest_changes(session)
            rows = session.connection().execute(query, values).all()
        change = numbers[Counter.IDENTITIES]
        return KnownBearers(numbers=numbers, bearers={row.bearer_sha256: _worth(row, change) for row in rows})


def _worth(row: Any, change: int) -> Bearer:
    """Return what the bearer in a row of ``_BEARERS`` is worth, whatever the time is."""
    return Bearer(
        device=row.device,
        valid=row.ended_at is None,
        revoked=row.revoked_at is not None,
        valid_until=row.valid_until,
        change=change,
    )

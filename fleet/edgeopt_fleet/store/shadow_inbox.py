"""What devices say of shadows, kept apart from what they serve: within the transaction that stores a batch.

The spool's numbers have kept duplicates out before, so everything here is added once. What names a shadow that the
device was never asked for, or another bundle than the shadow's, is dropped: whoever says that counts nothing. The
number of statements does not depend on the number of messages. Example::

    if is_shadow(record):
        shadows.take(device, spool, record)
    shadows.write(session)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session, col, select

from edgeopt_contract.messages import Reported, Telemetry
from edgeopt_fleet.decoding import Window
from edgeopt_fleet.shadowing import Compared
from edgeopt_fleet.store.bulk import fetch_rows, insert_rows, update_rows
from edgeopt_fleet.store.shadow_rows import FINAL, SERVES_IT
from edgeopt_fleet.store.tables import ShadowMemberRow, ShadowRow, ShadowServedRow

__all__ = ["ShadowBook", "is_shadow", "remind"]

Key = tuple[str, str]  # shadow, device
_KEY = ("shadow", "device")
_SUMS = ("windows", "compared", "agreed", "incomparable", "errors", "squares", "counts", "classes")
_SAID = ("state", "detail", "reported_at", "report_spool", "report_number", "news")


def is_shadow(record: Reported | Telemetry | Window) -> bool:
    """Say whether a message is about a shadow, and so about nothing that serves."""
    return not isinstance(record, Window) and bool(record.extra.get("shadow"))


class ShadowBook:
    """What one batch of messages says of shadows."""

    def __init__(self) -> None:
        self._windows: list[tuple[Key, Telemetry]] = []
        self._reports: dict[Key, tuple[int, Reported]] = {}

    def take(self, device: str, spool: int, record: Reported | Telemetry | Window) -> None:
        """Take one message in, from the row ``spool`` of its session, for which :func:`is_shadow` holds."""
        if isinstance(record, Window):
            return
        if isinstance(record, Telemetry):
            job = record.extra["shadow"]
            if isinstance(job, str):
                self._windows.append(((job, device), record))
            return
        key = (record.job, device)
        last = self._reports.get(key)
        if last is None or (last[0], last[1].number) < (spool, record.number):
            self._reports[key] = (spool, record)

    def write(self, session: Session) -> None:
        """Add what was compared, and let members say what they said last."""
        keys = sorted({key for key, _ in self._windows} | self._reports.keys())
        if not keys:
            return
        members = _members(session, keys)
        self._write_reports(session, members)
        sums: dict[Key, Compared] = {}
        for key, window in self._windows:
            if key in members and members[key][0] == window.bundle:
                sums[key] = sums.get(key, Compared()).add(Compared.of(window))
        _add(session, sums, {key: members[key][0] for key in sums})

    def _write_reports(self, session: Session, members: dict[Key, tuple[str, tuple[int, int]]]) -> None:
        rows = []
        for key, (spool, said) in sorted(self._reports.items()):
            if key in members and (spool, said.number) > members[key][1]:
                rows.append((*key, str(said.state), said.detail, said.at, spool, said.number, True))
        update_rows(session, ShadowMemberRow, _KEY, _SAID, rows)


def remind(session: Session, devices: Sequence[str]) -> None:
    """Let devices that came back be told once more that a shadow is over, unless they have said so themselves.

    A retained message that was cleared is not there for a device that was away meanwhile.
    """
    member = ShadowMemberRow
    query = (
        select(member.shadow, member.device)
        .where(col(member.device).in_(devices), col(member.offered).is_(True), col(member.open).is_(False))
        .where(col(member.state).is_(None) | col(member.state).not_in((*FINAL, SERVES_IT)))
    )
    found = sorted(session.exec(query).all())
    update_rows(session, member, _KEY, ("pending",), [(shadow, device, True) for shadow, device in found])


def _members(session: Session, keys: Sequence[Key]) -> dict[Key, tuple[str, tuple[int, int]]]:
    """Return of each member that was asked: the shadow's bundle, and where its newest report stands."""
    query = (
        select(
            ShadowMemberRow.shadow, ShadowMemberRow.device, ShadowRow.bundle,
            ShadowMemberRow.report_spool, ShadowMemberRow.report_number,
        )  # type: ignore[call-overload]  # five columns; SQLModel types four
        .join(ShadowRow, col(ShadowRow.name) == col(ShadowMemberRow.shadow))
        .where(col(ShadowMemberRow.shadow).in_({shadow for shadow, _ in keys}))
        .where(col(ShadowMemberRow.device).in_({device for _, device in keys}))
        .where(col(ShadowMemberRow.offered).is_(True))
    )  # fmt: skip
    found = session.connection().execute(query)
    return {(row[0], row[1]): (row[2], (row[3], row[4])) for row in found}


def _add(session: Session, sums: dict[Key, Compared], bundles: dict[Key, str]) -> None:
    if not sums:
        return
    where = {"shadow": sorted({key[0] for key in sums}), "device": sorted({key[1] for key in sums})}
    found = fetch_rows(session, ShadowServedRow, (*_KEY, *_SUMS), where)
    stored = {(row[0], row[1]): _compared(row[2:]) for row in found}
    rows = {key: stored.get(key, Compared()).add(more) for key, more in sorted(sums.items())}
    old = [(*key, *_values(total)) for key, total in rows.items() if key in stored]
    new = [(*key, bundles[key], *_values(total)) for key, total in rows.items() if key not in stored]
    update_rows(session, ShadowServedRow, _KEY, _SUMS, old)
    insert_rows(session, ShadowServedRow, (*_KEY, "bundle", *_SUMS), new)


def _compared(values: Sequence[Any]) -> Compared:
    plain = dict(zip(_SUMS, values, strict=True))
    return Compared(**plain | {"counts": bytes(plain["counts"]), "classes": bytes(plain["classes"])})


def _values(total: Compared) -> tuple[Any, ...]:
    return tuple(getattr(total, name) for name in _SUMS)

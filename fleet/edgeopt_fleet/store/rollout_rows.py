"""Rollouts and their members as rows: loaded and saved within somebody's transaction, many at once.

It decides nothing. What a step changed about members arrives as pairs of before and after; what each of those devices
should run is written into the device's own row, so that it survives the rollout. Rows are written in the order of
their keys. Example::

    record = load_rollout(session, "v2")
    changes = [(member, offer(member, running)) for member, running in line(session, record, 100)]
    changed = save_members(session, record, changes)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, Select, bindparam, insert, update
from sqlmodel import Session, SQLModel, col, select

from edgeopt_contract.messages import DeviceState, Result
from edgeopt_fleet.gate import Outcome, Policy
from edgeopt_fleet.problems import NotFoundError
from edgeopt_fleet.rollout import (
    Execution,
    Failure,
    Member,
    Pacing,
    Rollout,
    Sighting,
    State,
    Tally,
    Trial,
    Wave,
    is_settled,
    wanted,
)
from edgeopt_fleet.store.nearest import did_you_mean
from edgeopt_fleet.store.tables import BundleRow, DeviceRow, MemberRow, RolloutRow

__all__ = [
    "Change",
    "add_members",
    "known_bundles",
    "load_rollout",
    "member_of",
    "members",
    "rollout_of",
    "save_members",
    "save_rollout",
    "sighting_of",
    "with_devices",
]

Change = tuple[Member, Member]  # before, after

_NAMES = tuple(member.name for member in dataclasses.fields(Member))
_MEMBER = tuple(getattr(MemberRow, name) for name in _NAMES)
_SEEN = ("online", "running", "job", "state", "result", "detail")
_DEVICE = tuple(getattr(DeviceRow, name).label(f"device_{name}") for name in _SEEN)


def load_rollout(session: Session, name: str) -> tuple[Rollout, RolloutRow]:
    """Return a rollout and its row. Raises :class:`NotFoundError`."""
    row = session.get(RolloutRow, name)
    if row is None:
        raise NotFoundError(f"there is no rollout {name!r}{did_you_mean(session, col(RolloutRow.name), name)}")
    return rollout_of(row), row


def rollout_of(row: RolloutRow) -> Rollout:
    """Return the record that ``row`` keeps."""
    return Rollout(
        name=row.name,
        bundle=row.bundle,
        cohort=row.cohort,
        waves=tuple(Wave.parse(wave) for wave in row.waves),
        policy=msgspec.convert(row.policy, Policy),
        execution=msgspec.convert(row.execution, Execution),
        trial=None if row.trial is None else msgspec.convert(row.trial, Trial),
        created_at=row.created_at,
        updated_at=row.updated_at,
        state=State(row.state),
        wave=row.wave,
        started_at=row.started_at,
        wave_started_at=row.wave_started_at,
        step_started_at=row.step_started_at,
        pacing=msgspec.convert(row.pacing, Pacing),
        tally=Tally(row.tally),
        reason=row.reason,
        fault=row.fault,
        kept=row.kept,
        approval=row.approval,
        created_by=row.created_by,
        approved_by=row.approved_by,
        approval_reason=row.approval_reason,
    )


def save_rollout(session: Session, record: Rollout, row: RolloutRow | None) -> RolloutRow:
    """Write ``record`` into its row, or into a new one."""
    values = {
        name: getattr(record, name)
        for name in (
            *("bundle", "cohort", "wave", "started_at", "wave_started_at", "step_started_at", "reason", "fault"),
            *("kept", "approval", "created_by", "approved_by", "approval_reason", "created_at", "updated_at"),
        )
    } | {
        "waves": [str(wave) for wave in record.waves],
        "policy": msgspec.to_builtins(record.policy),
        "execution": msgspec.to_builtins(record.execution),
        "trial": None if record.trial is None else msgspec.to_builtins(record.trial),
        "state": str(record.state),
        "pacing": msgspec.to_builtins(record.pacing),
        "tally": dict(record.tally.counts),
        "settled": is_settled(record),
    }
    if row is None:
        row = RolloutRow(name=record.name, seen=0, next_look_at=0.0, looked_early=False, **values)
        session.add(row)
        session.flush()
        return row
    for name, value in values.items():
        if getattr(row, name) != value:
            setattr(row, name, value)
    return row


# --- members ------------------------------------------------------------------------------------------------------


def members(session: Session, query: Select[Any]) -> list[Member]:
    """Return the members that ``query`` (over :class:`MemberRow`) finds."""
    return [member_of(row) for row in session.execute(query.with_only_columns(*_MEMBER))]


def with_devices(session: Session, query: Select[Any]) -> list[tuple[Member, Sighting]]:
    """Return the members that ``query`` finds, each with what is known of its device now."""
    known = known_bundles(session)
    joined = query.join(DeviceRow, col(DeviceRow.id) == col(MemberRow.device)).with_only_columns(*_MEMBER, *_DEVICE)
    return [(member_of(row), sighting_of(row, known)) for row in session.execute(joined)]


def known_bundles(session: Session) -> frozenset[str]:
    """Return the digests of all bundles that were ever published here."""
    return frozenset(session.exec(select(BundleRow.digest)))


def member_of(row: Row[Any]) -> Member:
    """Return the member that a row with all its columns keeps."""
    values: dict[str, Any] = dict(zip(_NAMES, row[: len(_NAMES)], strict=True))
    for name, kind in (("state", DeviceState), ("outcome", Outcome), ("kind", Failure), ("result", Result)):
        if values[name] is not None:
            values[name] = kind(values[name])
    return Member(**values)


def sighting_of(row: Row[Any], known: frozenset[str]) -> Sighting:
    """Return what a row says of its device. A running bundle that was never published here counts as none."""
    seen = row._mapping  # noqa: SLF001 - the documented way to columns by name
    state, result = seen["device_state"], seen["device_result"]
    return Sighting(
        online=seen["device_online"],
        running=seen["device_running"] if seen["device_running"] in known else None,
        job=seen["device_job"],
        state=None if state is None else DeviceState(state),
        result=None if result is None else Result(result),
        detail=seen["device_detail"],
    )


def add_members(session: Session, record: Rollout, added: Iterable[Member]) -> None:
    """Write the members of a new rollout."""
    ordered = sorted(added, key=lambda member: member.device)
    rows = [{"rollout": record.name, "device": member.device, "active": True} | _values(member) for member in ordered]
    if rows:
        session.connection().execute(insert(_table(MemberRow)), rows)


def save_members(session: Session, record: Rollout, changes: Sequence[Change]) -> set[str]:
    """Write members that changed, and what their devices should run; return the devices for which that changed."""
    changed = sorted((pair for pair in changes if pair[0] != pair[1]), key=lambda pair: pair[1].device)
    if not changed:
        return set()
    table = _table(MemberRow)
    rows = [{"key_rollout": record.name, "key_device": after.device} | _values(after) for _, after in changed]
    statement = (
        update(table)
        .where(table.c.rollout == bindparam("key_rollout"), table.c.device == bindparam("key_device"))
        .values({name: bindparam(name) for name in rows[0] if not name.startswith("key_")})
    )
    session.connection().execute(statement, rows)
    return _save_desired(session, record, changed)


def _values(member: Member) -> dict[str, Any]:
    """Return the columns of a member but for its key."""
    values = {name: getattr(member, name) for name in _NAMES if name != "device"}
    for name in ("state", "outcome", "kind", "result"):
        values[name] = None if values[name] is None else str(values[name])
    waiting = member.open and not member.withdrawn and not member.again
    held = waiting and member.online and member.state is DeviceState.STAGED
    return values | {"open": member.open, "to_offer": member.to_offer, "held": held}


def _save_desired(session: Session, record: Rollout, changed: Sequence[Change]) -> set[str]:
    """Write new jobs into the devices' rows."""
    rows: list[dict[str, Any]] = []
    for before, after in changed:
        now, was = wanted(record, after), wanted(record, before)
        if now is None or (was is not None and now.job == was.job):
            continue
        window = None if now.window is None else msgspec.to_builtins(now.window)
        rows.append(
            {
                "key": after.device,
                "desired_job": now.job,
                "desired_bundle": now.bundle,
                "desired_bake_seconds": record.policy.bake_seconds,
                "desired_not_before": now.not_before,
                "desired_window": window,
                "desired_pending": True,
            }
        )
    if rows:
        table = _table(DeviceRow)
        statement = (
            update(table)
            .where(table.c.id == bindparam("key"))
            .values({name: bindparam(name, type_=table.c[name].type) for name in rows[0] if name != "key"})
        )
        session.connection().execute(statement, rows)
    return {row["key"] for row in rows}


def _table(row_class: type[SQLModel]) -> Any:
    return row_class.__table__  # type: ignore[attr-defined]  # SQLModel makes it

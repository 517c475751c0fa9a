"""What the gate is told: from running totals, never by reading windows again.

When a wave is exposed, the totals of all devices are copied. What a device has served since is the difference, so
no clock of a device is trusted and nothing is scanned. A window that arrives late counts for the time of its
arrival; the bundle it belongs to is always its own. Example::

    take_baseline(session, "v2")
    evidence = gather_evidence(session, record, now)
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel import Session, col, delete, select

from edgeopt_fleet.gate import ControlEvidence, DeviceEvidence, Evidence, Moments
from edgeopt_fleet.rollout import Member, Rollout, is_waiting
from edgeopt_fleet.store.tables import BaselineRow, ServedRow

__all__ = ["forget_baseline", "gather_evidence", "take_baseline"]

Totals = Mapping[tuple[str, str], tuple[int, Moments]]  # (device, bundle) -> rows, confidences


def take_baseline(session: Session, rollout: str) -> None:
    """Copy what every device has served so far; the copy of an earlier wave is replaced."""
    forget_baseline(session, rollout)
    for row in session.exec(select(ServedRow)):
        session.add(
            BaselineRow(
                rollout=rollout,
                device=row.device,
                bundle=row.bundle,
                rows=row.rows,
                confidence_n=row.confidence_n,
                confidence_total=row.confidence_total,
                confidence_squares=row.confidence_squares,
            )
        )


def forget_baseline(session: Session, rollout: str) -> None:
    """Delete the copy that belongs to ``rollout``."""
    session.execute(delete(BaselineRow).where(col(BaselineRow.rollout) == rollout))


def gather_evidence(session: Session, record: Rollout, now: float) -> Evidence:
    """Return what the gate needs to judge the current wave of ``record``."""
    before = {
        (row.device, row.bundle): _totals(row)
        for row in session.exec(select(BaselineRow).where(BaselineRow.rollout == record.name))
    }
    total = {(row.device, row.bundle): _totals(row) for row in session.exec(select(ServedRow))}
    current = {member.device for member in record.members.values() if member.wave == record.wave}
    return Evidence(
        wave=record.wave,
        wave_members=len(current),
        age_seconds=now - record.step_started_at,
        devices=tuple(_device(record, member, before, total) for member in record.members.values() if member.exposed),
        controls=_controls(current, before, total),
    )


def _totals(row: ServedRow | BaselineRow) -> tuple[int, Moments]:
    return row.rows, Moments(row.confidence_n, row.confidence_total, row.confidence_squares)


def _device(record: Rollout, member: Member, before: Totals, total: Totals) -> DeviceEvidence:
    nothing = (0, Moments())
    rows, confidence = total.get((member.device, record.bundle), nothing)
    rows_before, confidence_before = before.get((member.device, record.bundle), nothing)
    old = Moments()
    if member.previous is not None and member.previous != record.bundle:
        old = total.get((member.device, member.previous), nothing)[1]
    return DeviceEvidence(
        device=member.device,
        wave=member.wave,
        online=member.online,
        outcome=member.outcome,
        failure=member.failure,
        waiting=is_waiting(record, member),
        rows=rows - rows_before,
        new=confidence - confidence_before,
        old=old,
    )


def _controls(current: set[str], before: Totals, total: Totals) -> tuple[ControlEvidence, ...]:
    """Return the devices outside the wave, each on the bundle that it served most since the wave began.

    Devices of earlier waves are among them: they ran the new bundle before and after.
    """
    best: dict[str, ControlEvidence] = {}
    for (device, bundle), (_, served) in total.items():
        if device in current or (device, bundle) not in before:
            continue
        earlier = before[device, bundle][1]
        control = ControlEvidence(device=device, before=earlier, after=served - earlier)
        if device not in best or control.after.n > best[device].after.n:
            best[device] = control
    return tuple(best.values())

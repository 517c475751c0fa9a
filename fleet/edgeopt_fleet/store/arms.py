"""What the comparison of two arms is told, from running totals; and what it said, with its evidence.

A device's past is all that it served on the bundle that it ran before, or on its arm's bundle until its wave was
exposed when that is the same. What it served since is the rest. Only devices that confirmed are compared. Example::

    evidence = gather_arms(session, record, now)
    store_comparison(session, record, evidence, compare_arms(evidence, margins), margins, now)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Row, and_, func, or_, select
from sqlmodel import Session, col

from edgeopt_contract.values import canonical_json
from edgeopt_fleet.gate import COMPARED, Margins, Metric, Outcome, Tally
from edgeopt_fleet.gate.arms import ArmsEvidence, ArmsVerdict, canonical_arms, encode_arms
from edgeopt_fleet.gate.measuring import changes, empty_side, join
from edgeopt_fleet.rollout import ARMS, Count, Rollout
from edgeopt_fleet.store.evidence import DIVERGENCE_GAUGE
from edgeopt_fleet.store.sides import Group, Reader, Totals, difference, empty_group, totals_of
from edgeopt_fleet.store.tables import ArmStartRow, DeviceRow, EvidenceRow, MemberRow, ServedRow

__all__ = ["ARMS_CODE", "BOTH", "gather_arms", "rows_of_arms", "store_comparison"]

ARMS_CODE = "arms-1"  # raised whenever the same evidence may be judged otherwise
BOTH = "B-A"  # in the place of an arm: what was said of both together


def gather_arms(session: Session, record: Rollout, now: float, device_rows: int) -> ArmsEvidence:
    """Return what is known of both arms of ``record`` at ``now``; nothing is written.

    A device has a past with ``device_rows`` in it; without one on most of them levels are compared.
    """
    members = _members(session, record)
    reader = Reader(session)
    mine = (col(MemberRow.rollout) == record.name,)
    either = or_(col(ServedRow.bundle) == col(MemberRow.bundle), col(ServedRow.bundle) == col(MemberRow.previous))
    served = totals_of(session, ServedRow, and_(col(MemberRow.device) == col(ServedRow.device), either), mine)
    starts = select(ArmStartRow.device, ArmStartRow.rows, ArmStartRow.errors, ArmStartRow.counts)  # type: ignore[call-overload]  # columns of SQLModel
    started = {
        row[0]: (row[1], row[2], row[3]) for row in session.execute(starts.where(ArmStartRow.rollout == record.name))
    }
    past = [_past(member, served, started) for member in members]
    known = sum(one is not None and one[0] + one[1] >= device_rows for one in past)
    levels = 2 * known < len(members)
    groups = []
    for arm in ARMS:
        places = [place for place, member in enumerate(members) if member.arm == arm]
        groups.append(
            _group(reader, [members[p] for p in places], [past[p] for p in places], (served, started), levels)
        )
    classes = tuple(sorted({kind for group in groups for kind in group.hardware}))
    looked = select(func.count()).where(col(EvidenceRow.rollout) == record.name, col(EvidenceRow.arm) == BOTH)
    return ArmsEvidence(
        number=session.execute(looked).scalar_one() + 1,
        seconds=now - record.step_started_at,
        levels=levels,
        hardware=classes,
        a=groups[0].devices(classes, COMPARED),
        b=groups[1].devices(classes, COMPARED),
        tally_a=_tally(record, "A"),
        tally_b=_tally(record, "B"),
    )


def rows_of_arms(session: Session, record: Rollout) -> dict[str, int]:
    """Return how many rows the devices of each arm have answered since their waves were exposed."""
    own = and_(col(ServedRow.device) == col(MemberRow.device), col(ServedRow.bundle) == col(MemberRow.bundle))
    start = and_(col(ArmStartRow.device) == col(MemberRow.device), col(ArmStartRow.rollout) == col(MemberRow.rollout))
    grown = func.sum(col(ServedRow.rows) - func.coalesce(col(ArmStartRow.rows), 0))
    query = select(col(MemberRow.arm), grown).join(ServedRow, own).outerjoin(ArmStartRow, start)
    mine = (col(MemberRow.rollout) == record.name, col(MemberRow.attempt) > 0)
    found = {arm: int(rows) for arm, rows in session.execute(query.where(*mine).group_by(col(MemberRow.arm)))}
    return {arm: found.get(arm, 0) for arm in ARMS}


def _members(session: Session, record: Rollout) -> Sequence[Row[Any]]:
    """Return the members that confirmed, in the order of their names."""
    member, device = MemberRow, DeviceRow
    columns = (member.device, member.arm, member.bundle, member.previous, device.hardware, device.gauges)
    query = select(*map(col, columns)).join(device, col(device.id) == col(member.device))
    mine = (col(member.rollout) == record.name, col(member.taken).is_(False))
    return session.execute(
        query.where(*mine, col(member.outcome) == Outcome.CONFIRMED).order_by(col(member.device))
    ).all()


def _past(member: Row[Any], served: dict[Any, Totals], started: dict[Any, Totals]) -> Totals | None:
    """Return what a device had served before it came into its arm."""
    if member.previous == member.bundle:
        return started.get(member.device)
    return served.get((member.device, member.previous))


def _group(
    reader: Reader,
    members: Sequence[Row[Any]],
    past: Sequence[Totals | None],
    totals: tuple[dict[Any, Totals], dict[Any, Totals]],
    levels: bool,  # noqa: FBT001  # a fact about the whole, handed on
) -> Group:
    """Return the devices of one arm: what each served on the arm's bundle, against its past."""
    served, started = totals
    group = empty_group([(member.device, member.hardware) for member in members])
    pairs: dict[tuple[str, str | None], list[int]] = {}
    for place, member in enumerate(members):
        pairs.setdefault((member.bundle, member.previous), []).append(place)
    parts = []
    for (bundle, previous), places in pairs.items():
        names = [group.names[place] for place in places]
        now, had = [served.get((name, bundle)) for name in names], [started.get(name) for name in names]
        nothing: list[Totals | None] = [None] * len(places)
        earlier = [past[place] for place in places]
        after = reader.side(bundle, now, had)
        group.after[places] = sum(difference(now, had))
        group.before[places] = sum(difference(earlier, nothing))
        before = empty_side(len(places)) if previous is None else reader.side(previous, earlier, nothing)
        measured = (after.levels, after.noise) if levels else changes(before, after)
        parts.append((np.array(places), *measured))
    group.changes[:], group.noise[:] = join(parts, len(members))
    level = COMPARED.index(Metric.DIVERGENCE)
    group.changes[level] = [(member.gauges or {}).get(DIVERGENCE_GAUGE, np.nan) for member in members]
    return group


def _tally(record: Rollout, arm: str) -> Tally:
    """Return how many updates of an arm ended, and how many of those failed."""
    failed = sum(record.tally.failed(arm=arm).values())
    return Tally(record.tally.total(Count.CONFIRMED, arm) + failed, failed)


def store_comparison(
    session: Session, record: Rollout, evidence: ArmsEvidence, verdict: ArmsVerdict, margins: Margins, now: float
) -> None:
    """Store a comparison with what it was told."""
    session.add(
        EvidenceRow(
            rollout=record.name,
            wave=record.wave,
            arm=BOTH,
            at=now,
            look=None,
            code=ARMS_CODE,
            policy=canonical_json(msgspec.to_builtins(margins)),
            evidence=encode_arms(evidence),
            verdict=canonical_arms(verdict),
        )
    )

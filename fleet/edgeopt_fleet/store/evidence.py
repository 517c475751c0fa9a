"""What the gate is told, from running totals and without reading windows again; and what it said, with the evidence.

When a wave is exposed, the totals of what is compared later are copied: a sample of devices that may serve as controls,
and what the wave's own devices had served on the new bundle. What a device has served since is the difference, so no
clock of a device is trusted and nothing is scanned. A window that arrives late counts for the time of its arrival; the
bundle it belongs to is always its own. All statements are over many rows at once, all arithmetic over stacks of
devices. Example::

    take_baseline(session, "v2")
    evidence = gather_evidence(session, record, now)
    store_verdict(session, record, evidence, judge(evidence, record.policy), now)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Row, and_, delete, func, insert, literal, or_, select
from sqlmodel import Session, col

from edgeopt_contract.messages import DeviceState
from edgeopt_contract.values import canonical_json
from edgeopt_fleet.gate import (
    METRICS,
    Devices,
    Evidence,
    Look,
    Metric,
    Outcome,
    Tally,
    Verdict,
    Wave,
    canonical,
    encode,
)
from edgeopt_fleet.gate.measuring import changes, empty_side, join
from edgeopt_fleet.rollout import Rollout, arms_of
from edgeopt_fleet.rollout.waves import rank
from edgeopt_fleet.store.sides import (
    Group,
    Reader,
    Totals,
    difference,
    empty_group,
    totals_columns,
    totals_of,
)
from edgeopt_fleet.store.tables import (
    ArmStartRow,
    BaselineRow,
    DeviceRow,
    EvidenceRow,
    MemberRow,
    ServedRow,
    VerdictRow,
)

__all__ = [
    "CODE",
    "DIVERGENCE_GAUGE",
    "MOST_CONTROLS",
    "forget_baseline",
    "gather_evidence",
    "store_verdict",
    "take_arm_starts",
    "take_baseline",
]

CODE = "gate-1"  # raised whenever the same evidence may be judged otherwise; a replay names the difference
MOST_CONTROLS = 1000  # more make no comparison surer
_REPEAT_VERDICT_SECONDS = 30.0  # a hold whose reasons are the same is stored again this often, with new numbers
DIVERGENCE_GAUGE = "golden_divergence"
_MOST_WORDS = 20

Integers = npt.NDArray[np.int64]


def take_baseline(session: Session, rollout: str) -> None:
    """Copy what the devices served so far that the next wave will be compared by; an earlier copy is replaced."""
    session.execute(delete(BaselineRow).where(col(BaselineRow.rollout) == rollout))
    columns = ["rollout", "device", "bundle", "rows", "errors", "counts"]
    copied = [*map(col, (ServedRow.device, ServedRow.bundle, *totals_columns(ServedRow)))]
    own = and_(col(MemberRow.device) == col(ServedRow.device), col(MemberRow.bundle) == col(ServedRow.bundle))
    to_update = select(literal(rollout), *copied).join(MemberRow, own)
    to_update = to_update.where(col(MemberRow.rollout) == rollout, col(MemberRow.outcome).is_(None))
    session.execute(insert(BaselineRow).from_select(columns, to_update))
    running = and_(col(DeviceRow.id) == col(ServedRow.device), col(DeviceRow.running) == col(ServedRow.bundle))
    there = select(col(BaselineRow.device)).where(
        col(BaselineRow.rollout) == rollout,
        col(BaselineRow.device) == col(ServedRow.device),
        col(BaselineRow.bundle) == col(ServedRow.bundle),
    )
    for_control = select(literal(rollout), *copied).join(DeviceRow, running)
    for_control = for_control.where(col(ServedRow.device).in_(_sample(session, rollout)), ~there.exists())
    session.execute(insert(BaselineRow).from_select(columns, for_control))


def forget_baseline(session: Session, rollout: str) -> None:
    """Delete the copies that belong to ``rollout``."""
    for table in (BaselineRow, ArmStartRow):
        session.execute(delete(table).where(col(table.rollout) == rollout))


def take_arm_starts(session: Session, record: Rollout) -> None:
    """Copy what the devices of the current wave served so far on the bundle of their arm."""
    own = and_(col(MemberRow.device) == col(ServedRow.device), col(MemberRow.bundle) == col(ServedRow.bundle))
    copied = select(literal(record.name), *map(col, (ServedRow.device, *totals_columns(ServedRow)))).join(
        MemberRow, own
    )
    copied = copied.where(col(MemberRow.rollout) == record.name, col(MemberRow.wave) == record.wave)
    session.execute(insert(ArmStartRow).from_select(["rollout", "device", "rows", "errors", "counts"], copied))


def _sample(session: Session, rollout: str) -> list[str]:
    """Return devices that may serve as controls: all of a small fleet, of a large one the same share of each class.

    Twice as many as are used, because those of the wave itself fall out.
    """
    query = select(col(DeviceRow.id), col(DeviceRow.hardware)).where(
        col(DeviceRow.running).is_not(None), col(DeviceRow.revoked_at).is_(None)
    )
    devices = session.execute(query).all()
    if len(devices) <= 2 * MOST_CONTROLS:
        return [device for device, _ in devices]
    lines: dict[str, list[tuple[str, str]]] = {}
    for device, hardware in devices:
        lines.setdefault(hardware, []).append((rank(rollout, device), device))
    share = 2 * MOST_CONTROLS / len(devices)
    chosen = [heapq.nsmallest(max(20, round(share * len(line))), line) for line in lines.values()]
    return [device for line in chosen for _, device in line]


def gather_evidence(session: Session, record: Rollout, now: float, arm: str = "") -> Evidence:
    """Return what the gate needs to judge the current wave of ``record``, or one arm of it; nothing is written.

    While nobody of the wave serves the new bundle there is nothing to compare, and no totals are read. A device that
    bakes serves it already: what harms is found then, not a day later.
    """
    members = _members(session, record, arm)
    serving = any(member.outcome is not None or member.state == DeviceState.BAKING for member in members)
    reader = Reader(session)
    wave = (
        _wave_group(session, record, members, reader, arm)
        if serving
        else empty_group([(m.device, m.hardware) for m in members])
    )
    controls = _control_group(session, record, reader, arm) if serving else empty_group([])
    classes = tuple(sorted({*wave.hardware, *controls.hardware}))
    looks = _looks(session, record, arm)
    began = record.wave_started_at + record.policy.initial_delay_seconds
    tally, overall, failures = _tallies(session, record, arm)
    return Evidence(
        wave=record.wave,
        waves=len(record.waves) * len(arms_of(record)),  # each arm of each wave has its share of the error
        members=len(members),
        age_seconds=now - record.step_started_at,
        silent_seconds=max(now - (looks[-1].at if looks else began), 0.0),
        history=tuple(Look(row.look) for row in looks),
        hardware=classes,
        exposed=_exposed(members, wave.devices(classes), wave.answered),
        controls=controls.devices(classes),
        tally=tally,
        overall=overall,
        failures=failures,
    )


def _of_arm(arm: str) -> tuple[Any, ...]:
    """Return the condition that a member belongs to ``arm``; none when there are no two."""
    return (col(MemberRow.arm) == arm,) if arm else ()


def _members(session: Session, record: Rollout, arm: str) -> Sequence[Row[Any]]:
    """Return the members of the current wave, in the order of their names."""
    member, device = MemberRow, DeviceRow
    columns = (member.device, member.bundle, member.previous, member.state, member.outcome, member.held)
    query = select(*map(col, columns), *map(col, (device.online, device.hardware, device.gauges)))
    mine = (col(member.rollout) == record.name, col(member.wave) == record.wave, *_of_arm(arm))
    query = query.join(device, col(device.id) == col(member.device)).where(*mine)
    query = query.where(col(member.taken).is_(False)).order_by(col(member.device))
    return session.execute(query).all()


def _wave_group(session: Session, record: Rollout, members: Sequence[Row[Any]], reader: Reader, arm: str) -> Group:
    """Return the wave's devices: what each served on the new bundle since, against all that it served on the old."""
    of_wave = (col(MemberRow.rollout) == record.name, col(MemberRow.wave) == record.wave, *_of_arm(arm))
    either = or_(col(ServedRow.bundle) == col(MemberRow.bundle), col(ServedRow.bundle) == col(MemberRow.previous))
    served = totals_of(session, ServedRow, and_(col(MemberRow.device) == col(ServedRow.device), either), of_wave)
    copied = and_(col(MemberRow.device) == col(BaselineRow.device), col(BaselineRow.bundle) == col(MemberRow.bundle))
    earlier = totals_of(session, BaselineRow, copied, (*of_wave, col(BaselineRow.rollout) == record.name))
    pairs: dict[tuple[str, str | None], list[int]] = {}
    for place, member in enumerate(members):
        previous = None if member.previous == member.bundle else member.previous
        pairs.setdefault((member.bundle, previous), []).append(place)
    group = empty_group([(member.device, member.hardware) for member in members])
    parts = []
    for (bundle, previous), places in pairs.items():
        names = [group.names[place] for place in places]
        new, had = [served.get((name, bundle)) for name in names], [earlier.get((name, bundle)) for name in names]
        after = reader.side(bundle, new, had)
        group.answered[places], lost = difference(new, had)
        group.after[places] = group.answered[places] + lost
        before = empty_side(len(places))
        if previous is not None:
            old = [served.get((name, previous)) for name in names]
            before = reader.side(previous, old, [None] * len(places))
            group.before[places] = sum(difference(old, [None] * len(places)))
        parts.append((np.array(places), *changes(before, after)))
    group.changes[:], group.noise[:] = join(parts, len(members))
    level = METRICS.index(Metric.DIVERGENCE)
    group.changes[level] = [(member.gauges or {}).get(DIVERGENCE_GAUGE, np.nan) for member in members]
    return group


def _control_group(session: Session, record: Rollout, reader: Reader, arm: str) -> Group:
    """Return devices outside the wave, each on the bundle that it served most since the wave began.

    Devices of earlier waves are among them: they ran the new bundle before and after. Of an arm's wave so are the
    devices of the other arm when that is what they ran already.
    """
    same = and_(col(ServedRow.device) == col(BaselineRow.device), col(ServedRow.bundle) == col(BaselineRow.bundle))
    then, now = BaselineRow, ServedRow
    grown = col(now.rows) + col(now.errors) - col(then.rows) - col(then.errors)
    in_wave = select(col(MemberRow.device)).where(
        col(MemberRow.rollout) == record.name,
        col(MemberRow.wave) == record.wave,
        col(MemberRow.device) == col(then.device),
        *([or_(*_of_arm(arm), col(MemberRow.previous).is_distinct_from(col(MemberRow.bundle)))] if arm else []),
    )
    columns = (then.device, then.bundle, DeviceRow.hardware, *totals_columns(then), *totals_columns(now))
    query = select(*map(col, columns)).join(now, same).join(DeviceRow, col(DeviceRow.id) == col(then.device))
    query = query.where(col(then.rollout) == record.name, grown > 0, ~in_wave.exists())
    query = query.order_by(col(then.device), grown.desc(), col(then.bundle))
    best = {row[0]: row for row in reversed(session.execute(query).all())}
    rows = [best[device] for device in sorted(best)[:MOST_CONTROLS]]
    group = empty_group([(row[0], row[2]) for row in rows])
    parts = []
    for bundle in sorted({row[1] for row in rows}):
        places = [place for place, row in enumerate(rows) if row[1] == bundle]
        earlier: list[Totals | None] = [rows[place][3:6] for place in places]
        later: list[Totals | None] = [rows[place][6:9] for place in places]
        nothing: list[Totals | None] = [None] * len(places)
        group.before[places] = sum(difference(earlier, nothing))
        group.after[places] = sum(difference(later, earlier))
        sides = reader.side(bundle, earlier, nothing), reader.side(bundle, later, earlier)
        parts.append((np.array(places), *changes(*sides)))
    group.changes[:], group.noise[:] = join(parts, len(rows))
    return group


def _exposed(members: Sequence[Row[Any]], devices: Devices, answered: Integers) -> Wave:
    outcomes = [member.outcome for member in members]
    return Wave(
        devices=devices,
        online=np.array([member.online for member in members], dtype=bool),
        confirmed=np.array([outcome == Outcome.CONFIRMED for outcome in outcomes], dtype=bool),
        failed=np.array([outcome == Outcome.FAILED for outcome in outcomes], dtype=bool),
        waiting=np.array([member.held for member in members], dtype=bool),
        rows=answered,
    )


def _looks(session: Session, record: Rollout, arm: str) -> Sequence[Row[Any]]:
    """Return the looks of the current wave that compared something, oldest first."""
    query = select(col(EvidenceRow.look), col(EvidenceRow.at)).where(
        col(EvidenceRow.rollout) == record.name,
        col(EvidenceRow.wave) == record.wave,
        col(EvidenceRow.arm) == arm,
        col(EvidenceRow.look).is_not(None),
    )
    return session.execute(query.order_by(col(EvidenceRow.id))).all()


def _tallies(session: Session, record: Rollout, arm: str) -> tuple[Tally, Tally, tuple[tuple[str, int], ...]]:
    """Return how many executed and failed, in the wave and over all, and the failed ones' commonest words."""
    mine = (col(MemberRow.rollout) == record.name, col(MemberRow.taken).is_(False), *_of_arm(arm))
    mine = (*mine, col(MemberRow.outcome).is_not(None))
    grouped = select(col(MemberRow.wave), col(MemberRow.outcome), func.count()).where(*mine)
    counted = session.execute(grouped.group_by(col(MemberRow.wave), col(MemberRow.outcome))).all()
    tallies = []
    for wave in (record.wave, None):
        here = [(outcome, n) for number, outcome, n in counted if wave in (number, None)]
        failed = sum(n for outcome, n in here if outcome == Outcome.FAILED)
        tallies.append(Tally(sum(n for _, n in here), failed))
    times = func.count()
    words = select(col(MemberRow.failure), times).where(
        *mine, col(MemberRow.outcome) == Outcome.FAILED, col(MemberRow.failure) != ""
    )
    words = words.group_by(col(MemberRow.failure)).order_by(times.desc(), col(MemberRow.failure)).limit(_MOST_WORDS)
    return tallies[0], tallies[1], tuple((text, n) for text, n in session.execute(words))


def store_verdict(
    session: Session, record: Rollout, evidence: Evidence, verdict: Verdict, now: float, arm: str = ""
) -> bool:
    """Store a look that compared something, with its evidence; and a verdict that is news, or that is a while old.

    A verdict is news when the decision or what its reasons are about changes: returns whether it was.
    """
    query = select(VerdictRow).where(col(VerdictRow.rollout) == record.name, col(VerdictRow.arm) == arm)
    last = session.execute(query.order_by(col(VerdictRow.id).desc()).limit(1)).scalars().first()
    same = last is not None and (last.wave, tuple(last.key)) == (evidence.wave, verdict.key)
    news = last is None or not same or now - last.at >= _REPEAT_VERDICT_SECONDS
    if not news and not verdict.tested:
        return False
    kept = EvidenceRow(
        rollout=record.name,
        wave=evidence.wave,
        arm=arm,
        at=now,
        look=verdict.look,
        code=CODE,
        policy=canonical_json(msgspec.to_builtins(record.policy)),
        evidence=encode(evidence),
        verdict=canonical(verdict),
    )
    session.add(kept)
    if news:
        session.add(
            VerdictRow(
                rollout=record.name,
                at=now,
                wave=evidence.wave,
                arm=arm,
                verdict=verdict.decision,
                reasons=[reason.text for reason in verdict.reasons],
                key=list(verdict.key),
            )
        )
    return news

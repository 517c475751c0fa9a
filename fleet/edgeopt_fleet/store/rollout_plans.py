"""What an operator asks for, and whether it can be had: a rollout with its members before anything is written.

Reading only, so that a dry run is the same plan, thrown away. Example::

    planned = plan_rollout(session, Plan(name="v2", bundle="3fa94c", cohort="oslo", waves=waves, policy=policy), now)
    planned.problems         # () or why it would be refused
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy
from sqlmodel import Session, col, select
from tuf.api.metadata import Targets

from edgeopt_fleet.gate import Policy
from edgeopt_fleet.problems import ConflictError, InvalidError, ProblemError
from edgeopt_fleet.rollout import Candidate, Execution, Member, Place, Rollout, Tally, Wave, assign
from edgeopt_fleet.store.bundles import find_bundle
from edgeopt_fleet.store.cohorts import find_cohort
from edgeopt_fleet.store.rollout_rows import known_bundles
from edgeopt_fleet.store.tables import DeviceRow, MemberRow, RolloutRow
from edgeopt_fleet.tuf.metadata import bundles_of, parse
from edgeopt_fleet.tuf.rows import newest

__all__ = ["Plan", "Planned", "plan_rollout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an operator asks for; ``bundle`` is a digest or a unique prefix of one.

    ``approval``: somebody must approve it before it starts.
    """

    name: str
    bundle: str
    cohort: str
    waves: tuple[Wave, ...]
    policy: Policy
    execution: Execution = field(default_factory=Execution)
    allow_no_recall: bool = False  # also where the new bundle's signature does not permit the way back
    approval: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A rollout as it would begin. ``problems``: why it would be refused; ``superseded``: from which it takes devices.

    ``offline`` are members that would find the offer when they return.
    """

    rollout: Rollout
    bundle_name: str
    members: tuple[Member, ...]
    offline: frozenset[str]
    superseded: Mapping[str, int]
    problems: tuple[ProblemError, ...]


@dataclass(frozen=True, slots=True)
class _Device:
    running: str | None
    online: bool
    candidate: Candidate


def plan_rollout(session: Session, plan: Plan, now: float, by: str = "") -> Planned:
    """Return what ``plan`` would begin with. Raises a problem when bundle or cohort are not there."""
    bundle = find_bundle(session, plan.bundle)
    devices = _devices(session, find_cohort(session, plan.cohort).devices)
    if not devices:
        raise InvalidError(f"the cohort {plan.cohort!r} has no device: there is nobody to roll out to")
    places = assign(plan.name, {name: device.candidate for name, device in devices.items()}, plan.waves)
    if not places:
        raise InvalidError(f"no wave of {', '.join(map(str, plan.waves))} takes any device of {plan.cohort!r}")
    members = tuple(_member(name, place, devices[name], bundle.digest) for name, place in places.items())
    record = Rollout(
        name=plan.name,
        bundle=bundle.digest,
        cohort=plan.cohort,
        waves=plan.waves,
        policy=plan.policy,
        execution=plan.execution,
        approval=plan.approval,
        created_by=by,
        created_at=now,
        updated_at=now,
        tally=Tally().moved([(None, member) for member in members]),
    )
    problems: list[ProblemError] = []
    if session.get(RolloutRow, plan.name) is not None:
        problems.append(ConflictError(f"there is a rollout {plan.name!r} already; names are never used twice"))
    short = bundle.digest[:12]
    if not bundle.complete:
        problems.append(ConflictError(f"bundle {short} is incomplete; publish it again: edgeopt publish DIR"))
    elif bundle.counter is None:
        problems.append(ConflictError(f"bundle {short} is not signed; devices would refuse it: edgeopt sign DIR"))
    superseded, busy = _held(session, record, members)
    one_way = None if plan.allow_no_recall or bundle.counter is None else _one_way(session, record, members)
    return Planned(
        rollout=record,
        bundle_name=f"{bundle.name} {bundle.version}",
        members=members,
        offline=frozenset(name for name in places if not devices[name].online),
        superseded=superseded,
        problems=tuple(problem for problem in (*problems, busy, one_way) if problem is not None),
    )


def _member(name: str, place: Place, device: _Device, bundle: str) -> Member:
    return Member(
        device=name,
        wave=place.wave,
        place=place.place,
        bundle=bundle,
        previous=device.running,
        running=device.running,
        online=device.online,
    )


def _devices(session: Session, names: Sequence[str]) -> dict[str, _Device]:
    """Return what waves need to know of the devices. A running bundle that was never published here counts as none."""
    known = known_bundles(session)
    wanted = set(names)
    columns = (DeviceRow.id, DeviceRow.running, DeviceRow.online, DeviceRow.tags, DeviceRow.hardware)
    query = sqlalchemy.select(*map(col, columns))
    return {
        name: _Device(running if running in known else None, online, Candidate(tags=tags, hardware=hardware))
        for name, running, online, tags, hardware in session.execute(query)
        if name in wanted
    }


def _held(session: Session, record: Rollout, members: Sequence[Member]) -> tuple[dict[str, int], ConflictError | None]:
    """Return how many devices would be taken from which rollouts, and why others cannot be taken."""
    mine = {member.device for member in members}
    query = select(MemberRow.device, MemberRow.rollout, RolloutRow.execution).join(
        RolloutRow, col(RolloutRow.name) == col(MemberRow.rollout)
    )
    superseded: dict[str, int] = {}
    for device, rollout, execution in session.execute(
        query.where(col(MemberRow.active), col(MemberRow.taken).is_(False), col(RolloutRow.settled).is_(False))
    ):
        if device not in mine:
            continue
        if execution.get("priority", 500) >= record.execution.priority:
            return {}, ConflictError(
                f"device {device} is in the rollout {rollout!r}, which has not ended and is as urgent; "
                f"wait for it, cancel it (edgeopt rollout cancel {rollout}), or give a higher --priority"
            )
        superseded[rollout] = superseded.get(rollout, 0) + 1
    return superseded, None


def _one_way(session: Session, record: Rollout, members: Sequence[Member]) -> ConflictError | None:
    """Return which devices would reject the order back to what they run now.

    A device goes back to a bundle that was signed before only when the signature of what it runs names it.
    """
    signed = bundles_of(parse(Targets, newest(session, Targets.type)))
    new = signed.get(record.bundle)
    one_way: dict[str, list[str]] = {}
    for member in members:
        if member.previous is None or member.previous == member.bundle:
            continue
        old = signed.get(member.previous)
        if new is None or old is None or (old.counter < new.counter and old.digest not in new.rollback):
            one_way.setdefault(member.previous, []).append(member.device)
    if not one_way:
        return None
    bundle, devices = max(one_way.items(), key=lambda item: (len(item[1]), item[0]))
    return ConflictError(
        f"{sum(map(len, one_way.values()))} devices could not be recalled ({devices[0]} runs {bundle[:12]}): "
        f"bundle {record.bundle[:12]} was signed without permission to go back to it. Sign that: "
        f"edgeopt sign DIR --allow-rollback {bundle[:12]}; or do without a recall: --no-recall"
    )

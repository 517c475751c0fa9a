"""What an operator asks for, and whether it can be had: a rollout with its members before anything is written.

Reading only, so that a dry run is the same plan, thrown away. Example::

    planned = plan_rollout(session, Plan(name="v2", bundle="3fa94c", cohort="oslo", waves=waves, policy=policy), now)
    planned.problems         # () or why it would be refused
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import sqlalchemy
from sqlmodel import Session, col, select
from tuf.api.metadata import Targets

from edgeopt_fleet.gate import Policy
from edgeopt_fleet.problems import ConflictError, InvalidError, ProblemError
from edgeopt_fleet.rollout import (
    Candidate,
    Execution,
    Member,
    Place,
    Rollout,
    Tally,
    Trial,
    Wave,
    assign,
    draw_arms,
    draw_members,
)
from edgeopt_fleet.store.bundles import find_bundle
from edgeopt_fleet.store.cohorts import find_cohort
from edgeopt_fleet.store.rollout_rows import known_bundles
from edgeopt_fleet.store.tables import BundleRow, DeviceRow, MemberRow, RolloutRow
from edgeopt_fleet.tuf.metadata import bundles_of, parse
from edgeopt_fleet.tuf.rows import newest

__all__ = ["Plan", "Planned", "plan_rollout", "runs_elsewhere", "title"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an operator asks for; ``bundle`` is a digest or a unique prefix of one.

    ``trial``: two arms instead, whose bundles may be prefixes as well. ``rest``: only devices that do not run the
    bundle. ``approval``: somebody must approve it before it starts.
    """

    name: str
    bundle: str
    cohort: str
    waves: tuple[Wave, ...]
    policy: Policy
    execution: Execution = field(default_factory=Execution)
    trial: Trial | None = None
    rest: bool = False
    allow_no_recall: bool = False  # also where the new bundle's signature does not permit the way back
    approval: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A rollout as it would begin. ``problems``: why it would be refused; ``superseded``: from which it takes devices.

    ``offline`` are members that would find the offer when they return.
    """

    rollout: Rollout
    bundle_names: Mapping[str, str]
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
    trial = None if plan.trial is None else _found(session, plan.trial)
    bundle = find_bundle(session, plan.bundle if trial is None else trial.bundle_of("A"))
    devices = _devices(session, find_cohort(session, plan.cohort).devices)
    if plan.rest:
        devices = {name: device for name, device in devices.items() if device.running != bundle.digest}
    if not devices:
        raise InvalidError(f"the cohort {plan.cohort!r} has no device: there is nobody to roll out to")
    places, arms = _places(plan, devices)
    given = dict.fromkeys(places, bundle.digest) if trial is None else {n: trial.bundle_of(arms[n]) for n in places}
    members = tuple(
        replace(_member(name, place, devices[name], given[name]), arm=arms.get(name, ""))
        for name, place in places.items()
    )
    record = Rollout(
        name=plan.name,
        bundle=bundle.digest,
        cohort=plan.cohort,
        waves=plan.waves,
        policy=plan.policy,
        execution=plan.execution,
        trial=trial,
        approval=plan.approval,
        created_by=by,
        created_at=now,
        updated_at=now,
        tally=Tally().moved([(None, member) for member in members]),
    )
    bundles = [bundle] if trial is None else [find_bundle(session, arm.bundle) for arm in trial.arms]
    problems = _unfit(session, plan.name, bundles)
    superseded, busy = _held(session, record, members)
    signed = all(needed.counter is not None for needed in bundles)
    one_way = None if plan.allow_no_recall or not signed else _one_way(session, members, trial)
    return Planned(
        rollout=record,
        bundle_names={needed.digest: title(needed) for needed in bundles},
        members=members,
        offline=frozenset(name for name in places if not devices[name].online),
        superseded=superseded,
        problems=tuple(problem for problem in (*problems, busy, one_way) if problem is not None),
    )


def _unfit(session: Session, name: str, bundles: Sequence[BundleRow]) -> list[ProblemError]:
    """Return why there can be no rollout of that name, or of these bundles."""
    problems: list[ProblemError] = []
    if session.get(RolloutRow, name) is not None:
        problems.append(ConflictError(f"there is a rollout {name!r} already; names are never used twice"))
    for bundle in bundles:
        short = bundle.digest[:12]
        if not bundle.complete:
            problems.append(ConflictError(f"bundle {short} is incomplete; publish it again: edgeopt publish DIR"))
        elif bundle.counter is None:
            problems.append(ConflictError(f"bundle {short} is not signed; devices would refuse it: edgeopt sign DIR"))
    return problems


def runs_elsewhere(session: Session, cohort: str, bundle: str) -> bool:
    """Say whether any device of ``cohort`` runs something else than ``bundle``."""
    devices = _devices(session, find_cohort(session, cohort).devices)
    return any(device.running != bundle for device in devices.values())


def title(bundle: BundleRow) -> str:
    """Return a bundle's name and version, as people know it."""
    return f"{bundle.name} {bundle.version}"


def _found(session: Session, trial: Trial) -> Trial:
    """Return ``trial`` with whole digests."""
    arms = tuple(replace(arm, bundle=find_bundle(session, arm.bundle).digest) for arm in trial.arms)
    try:
        return replace(trial, arms=arms)
    except ValueError as error:
        raise InvalidError(str(error)) from error


def _places(plan: Plan, devices: Mapping[str, _Device]) -> tuple[dict[str, Place], dict[str, str]]:
    """Return the place of each member, and its arm if there are two. Raises :class:`InvalidError` without any."""
    hardware = {name: device.candidate.hardware for name, device in devices.items()}
    chosen = devices if plan.trial is None else draw_members(plan.name, hardware, plan.trial)
    places = assign(plan.name, {name: devices[name].candidate for name in chosen}, plan.waves)
    if not places:
        raise InvalidError(f"no wave of {', '.join(map(str, plan.waves))} takes any device of {plan.cohort!r}")
    arms = {} if plan.trial is None else draw_arms(plan.name, places, hardware, plan.trial)
    if plan.trial is not None and len(set(arms.values())) < len(plan.trial.arms):
        raise InvalidError(f"two arms need a device each, and the waves take {len(places)} of {plan.cohort!r}")
    return places, arms


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


def _one_way(session: Session, members: Sequence[Member], trial: Trial | None) -> ConflictError | None:
    """Return which devices would reject the order back to what they run now, or to the other arm's bundle.

    A device goes back to a bundle that was signed before only when the signature of what it runs names it.
    """
    signed = bundles_of(parse(Targets, newest(session, Targets.type)))
    both = [] if trial is None else sorted((signed[arm.bundle] for arm in trial.arms), key=lambda one: one.counter)
    if both and both[0].digest not in both[1].rollback:
        older, newer = both[0].digest[:12], both[1].digest[:12]
        return ConflictError(
            f"bundle {newer} was signed without permission to go back to {older}: its devices could not be given that "
            f"arm if it wins. Sign that: edgeopt sign DIR --allow-rollback {older}; or do without: --no-recall"
        )
    one_way: dict[tuple[str, str], list[str]] = {}
    for member in members:
        if member.previous is None or member.previous == member.bundle:
            continue
        new, old = signed.get(member.bundle), signed.get(member.previous)
        if new is None or old is None or (old.counter < new.counter and old.digest not in new.rollback):
            one_way.setdefault((member.previous, member.bundle), []).append(member.device)
    if not one_way:
        return None
    (bundle, new_bundle), devices = max(one_way.items(), key=lambda item: (len(item[1]), item[0]))
    return ConflictError(
        f"{sum(map(len, one_way.values()))} devices could not be recalled ({devices[0]} runs {bundle[:12]}): "
        f"bundle {new_bundle[:12]} was signed without permission to go back to it. Sign that: "
        f"edgeopt sign DIR --allow-rollback {bundle[:12]}; or do without a recall: --no-recall"
    )

"""Rollouts: the shell around the pure record of :mod:`edgeopt_fleet.rollout`.

Each method loads the record, lets it see its devices, takes at most one step and saves, in one transaction; what
every device should run is saved with it, in the device's own row. What it returns is to be published afterwards,
and may be published again at any time. Example::

    rollouts.create(plan, now)
    rollouts.apply("v2", Event.STARTED, now)     # {'cam-3'}: devices whose desired state changed
    rollouts.advance("v2", now)                  # one look at reports and gate
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlmodel import Session, col, select
from tuf.api.metadata import Targets

from edgeopt_contract.messages import DeviceState, Result
from edgeopt_fleet.gate import Evidence, Outcome, Policy, Verdict, judge
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError
from edgeopt_fleet.rollout import (
    ACTIVE,
    Command,
    Event,
    IllegalTransitionError,
    Member,
    Rollout,
    Sighting,
    State,
    create,
    desired,
    event_of,
    excuse,
    is_settled,
    observe,
    step,
)
from edgeopt_fleet.store.bundles import find_bundle
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.evidence import forget_baseline, gather_evidence, take_baseline
from edgeopt_fleet.store.registry import find_cohort
from edgeopt_fleet.store.tables import BundleRow, DeviceRow, MemberRow, RolloutRow, VerdictRow
from edgeopt_fleet.tuf.metadata import bundles_of, parse
from edgeopt_fleet.tuf.rows import newest

__all__ = ["Plan", "RolloutReport", "Rollouts"]

_REPEAT_VERDICT_SECONDS = 30.0  # a hold whose reasons are the same is stored again this often, with new numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an operator asks for; ``bundle`` is a digest or a unique prefix of one."""

    name: str
    bundle: str
    cohort: str
    waves: tuple[int, ...]
    policy: Policy
    allow_no_recall: bool = False  # also where the new bundle's signature does not permit the way back


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutReport:
    """A rollout as it stands, with what its devices said last, and its verdicts, oldest first."""

    rollout: Rollout
    bundle_name: str
    verdicts: Sequence[VerdictRow]


class Rollouts:
    """Creates rollouts and moves them on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, plan: Plan, now: float) -> Rollout:
        """Save a draft with its members. Raises a problem when bundle, cohort or a device cannot take part."""
        with self._database.transaction() as session:
            if session.get(RolloutRow, plan.name) is not None:
                raise ConflictError(f"there is a rollout {plan.name!r} already; names are never used twice")
            bundle = find_bundle(session, plan.bundle)
            if not bundle.complete:
                raise ConflictError(f"bundle {bundle.digest[:12]} is incomplete; publish it again: edgeopt publish DIR")
            if bundle.counter is None:
                raise ConflictError(
                    f"bundle {bundle.digest[:12]} is not signed; devices would refuse it: edgeopt sign DIR"
                )
            devices = find_cohort(session, plan.cohort).devices
            if not devices:
                raise InvalidError(f"the cohort {plan.cohort!r} has no device: there is nobody to roll out to")
            empty = Rollout(
                name=plan.name,
                bundle=bundle.digest,
                cohort=plan.cohort,
                waves=plan.waves,
                policy=plan.policy,
                created_at=now,
                updated_at=now,
            )
            record = create(empty, {name: seen.running for name, seen in _sightings(session, devices).items()})
            _refuse_busy_devices(session, record)
            if not plan.allow_no_recall:
                _refuse_one_way_devices(session, record)
            _save(session, None, record)
        return record

    def names(self) -> list[str]:
        """Return the names of all rollouts, newest first."""
        with self._database.transaction() as session:
            return list(session.exec(select(RolloutRow.name).order_by(col(RolloutRow.created_at).desc())))

    def unsettled(self) -> list[str]:
        """Return the names of the rollouts that :meth:`advance` must look at, oldest first."""
        query = select(RolloutRow.name).where(col(RolloutRow.settled).is_(False), RolloutRow.state != State.DRAFT)
        with self._database.transaction() as session:
            return list(session.exec(query.order_by(col(RolloutRow.created_at))))

    def report(self, name: str) -> RolloutReport:
        """Return one rollout. Raises :class:`NotFoundError`."""
        with self._database.transaction() as session:
            record = _load(session, name)
            bundle = session.get(BundleRow, record.bundle)
            verdicts = session.exec(
                select(VerdictRow).where(VerdictRow.rollout == name).order_by(col(VerdictRow.id))
            ).all()
            return RolloutReport(
                rollout=observe(record, _sightings(session, tuple(record.members))),
                bundle_name="" if bundle is None else f"{bundle.name} {bundle.version}",
                verdicts=verdicts,
            )

    def apply(self, name: str, event: Event, now: float) -> set[str]:
        """Let an operator's ``event`` happen and return the devices whose desired state changed.

        Raises :class:`ConflictError` when the rollout's state does not allow it.
        """
        with self._database.transaction() as session:
            before = _load(session, name)
            record = observe(before, _sightings(session, tuple(before.members)))
            try:
                return _step_and_save(session, before, record, event, now)
            except IllegalTransitionError as error:
                raise ConflictError(str(error)) from error

    def advance(self, name: str, now: float) -> set[str]:
        """Look at reports and gate, take the step that follows, and return the devices whose desired state changed."""
        with self._database.transaction() as session:
            before = _load(session, name)
            record = observe(before, _sightings(session, tuple(before.members)))
            verdict = None
            record = excuse(record, now)
            if record.state in (State.RUNNING, State.PAUSED):
                evidence = gather_evidence(session, record, now)
                verdict = judge(evidence, record.policy)
                _store_verdict(session, record, evidence, verdict, now)
            return _step_and_save(session, before, record, event_of(record, verdict), now)


def _step_and_save(session: Session, before: Rollout, record: Rollout, event: Event | None, now: float) -> set[str]:
    if event is not None:
        record, commands = step(record, event, now)
        if Command.EXPOSE_WAVE in commands:
            take_baseline(session, record.name)
        if record.state not in ACTIVE:
            forget_baseline(session, record.name)
    return _save(session, before, record)


def _refuse_busy_devices(session: Session, record: Rollout) -> None:
    """Raise :class:`ConflictError` naming a rollout that has not ended yet and holds one of the devices."""
    for row in session.exec(select(MemberRow).where(col(MemberRow.active).is_(True))):
        if row.device in record.members:
            raise ConflictError(
                f"device {row.device} is in the rollout {row.rollout!r}, which has not ended; "
                f"wait for it, or cancel it: edgeopt rollout cancel {row.rollout}"
            )


def _refuse_one_way_devices(session: Session, record: Rollout) -> None:
    """Raise :class:`ConflictError` when a device would reject the order back to what it runs now.

    A device goes back to a bundle that was signed before only when the signature of what it runs names it.
    """
    signed = bundles_of(parse(Targets, newest(session, Targets.type)))
    new = signed.get(record.bundle)
    one_way: dict[str, list[str]] = {}
    for member in record.members.values():
        if member.previous is None or member.previous == record.bundle:
            continue
        old = signed.get(member.previous)
        if new is None or old is None or (old.counter < new.counter and old.digest not in new.rollback):
            one_way.setdefault(member.previous, []).append(member.device)
    if one_way:
        bundle, devices = max(one_way.items(), key=lambda item: (len(item[1]), item[0]))
        raise ConflictError(
            f"{sum(map(len, one_way.values()))} devices could not be recalled ({devices[0]} runs {bundle[:12]}): "
            f"bundle {record.bundle[:12]} was signed without permission to go back to it. Sign that: "
            f"edgeopt sign DIR --allow-rollback {bundle[:12]}; or do without a recall: --no-recall"
        )


def _sightings(session: Session, devices: Sequence[str]) -> dict[str, Sighting]:
    """Return what is known of ``devices``. A running bundle that was never published here counts as none."""
    known = set(session.exec(select(BundleRow.digest)))
    wanted = set(devices)
    return {
        row.id: Sighting(
            online=row.online,
            running=row.running if row.running in known else None,
            job=row.job,
            state=None if row.state is None else DeviceState(row.state),
            result=None if row.result is None else Result(row.result),
            detail=row.detail,
        )
        for row in session.exec(select(DeviceRow))
        if row.id in wanted
    }


def _load(session: Session, name: str) -> Rollout:
    row = session.get(RolloutRow, name)
    if row is None:
        raise NotFoundError(f"there is no rollout {name!r}")
    members = session.exec(select(MemberRow).where(MemberRow.rollout == name).order_by(col(MemberRow.device)))
    return Rollout(
        name=row.name,
        bundle=row.bundle,
        cohort=row.cohort,
        waves=tuple(row.waves),
        policy=msgspec.convert(row.policy, Policy),
        created_at=row.created_at,
        updated_at=row.updated_at,
        state=State(row.state),
        wave=row.wave,
        wave_started_at=row.wave_started_at,
        step_started_at=row.step_started_at,
        members={member.device: _member(member) for member in members},
    )


def _member(row: MemberRow) -> Member:
    return Member(
        device=row.device,
        wave=row.wave,
        previous=row.previous,
        attempt=row.attempt,
        state=None if row.state is None else DeviceState(row.state),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        returned=row.returned,
        result=None if row.result is None else Result(row.result),
        detail=row.detail,
        failure=row.failure,
        running=row.running,
        online=row.online,
    )


def _save(session: Session, before: Rollout | None, record: Rollout) -> set[str]:
    """Save what changed, and what it means for the devices; return the devices whose desired state changed."""
    changed = _save_desired(session, before, record)
    active = record.state in ACTIVE
    jobs = dict(session.exec(select(DeviceRow.id, DeviceRow.desired_job)).all()) if not active else {}
    session.merge(
        RolloutRow(
            name=record.name,
            bundle=record.bundle,
            cohort=record.cohort,
            waves=list(record.waves),
            policy=msgspec.to_builtins(record.policy),
            state=record.state,
            wave=record.wave,
            wave_started_at=record.wave_started_at,
            step_started_at=record.step_started_at,
            created_at=record.created_at,
            updated_at=record.updated_at,
            settled=is_settled(record, jobs),
        )
    )
    ended = before is not None and before.state in ACTIVE and not active
    for device, member in record.members.items():
        if before is None or ended or member != before.members[device]:
            session.merge(MemberRow(rollout=record.name, active=active, **dataclasses.asdict(member)))
    return changed


def _save_desired(session: Session, before: Rollout | None, record: Rollout) -> set[str]:
    """Write what this step changed into the devices' rows, unless a later rollout has taken the device."""
    was = {} if before is None else desired(before)
    changed = set()
    for device, wanted in desired(record).items():
        if wanted == was.get(device):
            continue
        row = session.get(DeviceRow, device)
        assert row is not None  # members are enrolled devices, and devices are never deleted
        taken = device in was and row.desired_job != was[device].job
        if not taken:
            row.desired_job, row.desired_bundle = wanted.job, wanted.bundle
            row.desired_bake_seconds = record.policy.bake_seconds
            row.desired_not_before = wanted.not_before
            row.desired_window = None if wanted.window is None else msgspec.to_builtins(wanted.window)
            changed.add(device)
    return changed


def _store_verdict(session: Session, record: Rollout, evidence: Evidence, verdict: Verdict, now: float) -> None:
    """Store a verdict that is news: another decision or other reasons, or the same ones after a while."""
    query = select(VerdictRow).where(VerdictRow.rollout == record.name).order_by(col(VerdictRow.id).desc()).limit(1)
    last = session.exec(query).first()
    same = last is not None and (last.wave, tuple(last.key)) == (evidence.wave, verdict.key)
    if last is not None and same and now - last.at < _REPEAT_VERDICT_SECONDS:
        return
    session.add(
        VerdictRow(
            rollout=record.name,
            at=now,
            wave=evidence.wave,
            verdict=verdict.decision,
            reasons=[reason.text for reason in verdict.reasons],
            key=list(verdict.key),
        )
    )

"""Rollouts: the shell around the pure records of :mod:`edgeopt_fleet.rollout`.

Each turn loads a rollout, lets those of its members see their devices whose reports are new, takes the steps that
follow, offers the bundle to as many devices as it may, and saves, in one transaction; what every device should run is
saved with it, in the device's own row. So a turn costs what changed, however large the fleet is. What it returns is to
be published afterwards, and may be published again at any time. Example::

    rollouts.create(plan, now)
    rollouts.apply("v2", Event.STARTED, now)     # {'cam-3'}: devices whose desired state changed
    rollouts.advance("v2", now)                  # one look at reports and gate
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from sqlmodel import col, select

from edgeopt_fleet.acting import current_actor
from edgeopt_fleet.problems import ConflictError
from edgeopt_fleet.rollout import (
    ARMS,
    Event,
    IllegalTransitionError,
    Rollout,
    State,
    conclude,
    excuse,
    start_event,
)
from edgeopt_fleet.store.changes import next_change
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.rollout_plans import Plan, Planned, plan_rollout, runs_elsewhere
from edgeopt_fleet.store.rollout_reports import RolloutReport, report_of, summaries
from edgeopt_fleet.store.rollout_rows import (
    add_members,
    load_rollout,
    save_rollout,
)
from edgeopt_fleet.store.rollout_turns import Turn, tell
from edgeopt_fleet.store.tables import RolloutRow

__all__ = ["Check", "Plan", "Planned", "Rollouts"]

_LOCK = "rollouts"  # they take devices from each other, so one has its turn at a time


Check = Callable[[RolloutReport], None]  # raises a problem to refuse what is about to be done


class Rollouts:
    """Creates rollouts and moves them on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, plan: Plan, now: float) -> Rollout:
        """Save a draft with its members. Raises a problem when bundle, cohort or a device cannot take part."""
        with self._database.transaction(lock=_LOCK) as session:
            planned = plan_rollout(session, plan, now, by=current_actor().name)
            if planned.problems:
                raise planned.problems[0]
            record = planned.rollout
            row = save_rollout(session, record, None)
            add_members(session, record, planned.members)
            row.changed = next_change(session)
            tell(session, None, record, "create", now)
        return record

    def plan(self, plan: Plan, now: float) -> Planned:
        """Return what :meth:`create` would do. Writes nothing. Raises a problem when bundle or cohort are not there."""
        with self._database.reading() as session:
            return plan_rollout(session, plan, now, by=current_actor().name)

    def names(self) -> list[str]:
        """Return the names of all rollouts, newest first."""
        with self._database.reading() as session:
            return list(session.exec(select(RolloutRow.name).order_by(col(RolloutRow.created_at).desc())))

    def unsettled(self) -> list[str]:
        """Return the names of the rollouts that :meth:`advance` must look at, the most urgent and oldest first."""
        waiting = (State.DRAFT, State.AWAITING_APPROVAL)
        query = select(RolloutRow).where(col(RolloutRow.settled).is_(False), col(RolloutRow.state).not_in(waiting))
        with self._database.reading() as session:
            rows = session.exec(query).all()
        return [row.name for row in sorted(rows, key=lambda row: (-row.execution["priority"], row.created_at))]

    def report(self, name: str) -> RolloutReport:
        """Return one rollout. Raises :class:`NotFoundError`."""
        with self._database.reading() as session:
            return report_of(session, name)

    def reports(
        self, limit: int, below: tuple[float, str] | None = None, states: Collection[State] = ()
    ) -> list[RolloutReport]:
        """Return up to ``limit`` rollouts without members, newest first, older than (time, name) ``below``.

        Those in ``states`` only, if any are given.
        """
        query = select(RolloutRow)
        made, name = col(RolloutRow.created_at), col(RolloutRow.name)
        if states:
            query = query.where(col(RolloutRow.state).in_(states))
        if below is not None:
            query = query.where((made < below[0]) | ((made == below[0]) & (name < below[1])))
        with self._database.reading() as session:
            found = session.exec(query.order_by(made.desc(), name.desc()).limit(limit)).all()
            return summaries(session, found)

    def start(self, name: str, now: float, check: Check | None = None) -> set[str]:
        """Start a draft, or what is scheduled, as far as its approval and its time allow; see :meth:`apply`."""
        return self.apply(name, None, now, check)

    def apply(
        self, name: str, event: Event | None, now: float, check: Check | None = None, reason: str = ""
    ) -> set[str]:
        """Let somebody's ``event`` happen (None: the order to start) and return whose desired state changed.

        ``check`` is asked before, in the same transaction. Raises :class:`ConflictError` when the rollout's state does
        not allow it.
        """
        with self._database.transaction(lock=_LOCK) as session:
            if check is not None:
                check(report_of(session, name))
            turn = Turn.begin(session, name, now)
            turn.hear()
            if event in (Event.APPROVED, Event.DENIED):
                turn.record = replace(turn.record, approved_by=current_actor().name, approval_reason=reason)
            try:
                turn.take(start_event(turn.record) if event is None else event)
            except IllegalTransitionError as error:
                raise ConflictError(str(error)) from error
            turn.go_on(None)
            return turn.end()

    def conclude(self, name: str, plan: Plan, keep: str, now: float, check: Check | None = None) -> Plan | None:
        """Decide between the arms of a rollout that ended; return what there is still to roll out, if anything.

        That is ``plan`` with the bundle of the arm ``keep``, and the rollout's own cohort and rules; nothing when both
        are to stay, or when all devices run that bundle. Raises :class:`ConflictError` when it cannot be decided.
        """
        with self._database.transaction(lock=_LOCK) as session:
            if check is not None:
                check(report_of(session, name))
            before, row = load_rollout(session, name)
            try:
                record = conclude(before, keep, now)
            except IllegalTransitionError as error:
                raise ConflictError(str(error)) from error
            save_rollout(session, record, row)
            row.changed = next_change(session)
            tell(session, before, record, "conclude", now)
            if record.trial is None or keep not in ARMS:
                return None
            bundle = record.trial.bundle_of(keep)
            if not runs_elsewhere(session, record.cohort, bundle):
                return None
            execution = replace(record.execution, start_at=None)
            rest = replace(plan, bundle=bundle, cohort=record.cohort, policy=record.policy, execution=execution)
            return replace(rest, rest=True, approval=plan.approval or record.approval)

    def advance(self, name: str, now: float) -> set[str]:
        """Look at reports and gate, take what follows, and return the devices whose desired state changed."""
        with self._database.transaction(lock=_LOCK) as session:
            turn = Turn.begin(session, name, now)
            turn.hear()
            turn.record = excuse(turn.record, now)
            verdict = turn.look()
            turn.go_on(verdict)
            if verdict is not None:
                turn.compare()
            return turn.end()

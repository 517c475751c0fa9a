"""Shadows: a challenger beside the champion on the devices of a cohort, a limited number of them at a time.

Members are fixed when a shadow is created. Each look of the worker asks those whose turn it is, lets go of those that
are done, and ends what is over; what devices are told follows from the members' rows, and is published by whoever
holds the connection (:mod:`edgeopt_fleet.store.shadow_outbox`). A device whose update by a rollout is not over keeps
that first, and one device shadows one challenger at a time. It does not judge
(:mod:`edgeopt_fleet.store.shadow_looks`). Example::

    shadows.create(ShadowPlan(name="next", bundle="3fa94c", cohort="oslo", share=0.1, until=until), now)
    shadows.start("next", now)
    shadows.advance("next", now)                     # {'cam-3'}: devices that are to be told something
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import insert, update
from sqlmodel import Session, col, func, select

from edgeopt_fleet.acting import current_actor
from edgeopt_fleet.gate.shadow_evidence import ShadowPolicy
from edgeopt_fleet.problems import ConflictError, InvalidError
from edgeopt_fleet.rollout import State
from edgeopt_fleet.rollout.waves import rank
from edgeopt_fleet.store.audit import Change, append
from edgeopt_fleet.store.bundles import find_bundle
from edgeopt_fleet.store.changes import next_change
from edgeopt_fleet.store.cohorts import find_cohort
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.shadow_looks import look_at, may_look
from edgeopt_fleet.store.shadow_rows import (
    FINAL,
    SERVES_IT,
    ShadowReport,
    ShadowState,
    find_shadow,
    report_of,
    summaries,
)
from edgeopt_fleet.store.tables import DeviceRow, MemberRow, RolloutRow, ShadowMemberRow, ShadowRow, ShadowServedRow

__all__ = ["LONGEST_SECONDS", "ShadowPlan", "Shadows"]

LONGEST_SECONDS = 90 * 86400  # a shadow that everybody forgot must end
_LOCK = "shadows"
_LATE_SECONDS = 86400.0  # so long after its end, what devices still send is looked at
_GOING_ON = (State.RUNNING, State.PAUSED, State.ROLLING_BACK)

Check = Callable[[ShadowReport], None]  # raises a problem to refuse what is about to be done


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPlan:
    """What an operator asks for; ``bundle`` is a digest or a unique prefix, ``until`` seconds since 1970.

    At most ``at_once`` devices run it at a time; one that compared ``rows_each`` rows makes room for the next.
    """

    name: str
    bundle: str
    cohort: str
    share: float
    until: int
    at_once: int = 100
    rows_each: int | None = None
    policy: ShadowPolicy = field(default_factory=ShadowPolicy)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"expected a share of the requests above 0, at most 1, got {self.share}")
        if not 1 <= self.at_once <= 10**6 or (self.rows_each is not None and not 1 <= self.rows_each < 2**53):
            raise ValueError("expected at_once from 1 to a million, and rows_each from 1 on")


class Shadows:
    """Creates shadows and moves them on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, plan: ShadowPlan, now: float) -> None:
        """Save a draft with its members. Raises a problem when bundle, cohort or time cannot be."""
        with self._database.transaction(lock=_LOCK) as session:
            if session.get(ShadowRow, plan.name) is not None:
                raise ConflictError(f"there is a shadow {plan.name!r} already; names are never used twice")
            bundle = find_bundle(session, plan.bundle)
            if not bundle.complete or bundle.counter is None:
                raise ConflictError(
                    f"bundle {bundle.digest[:12]} is incomplete or not signed, so devices would refuse it; publish it "
                    "again, or sign it: edgeopt publish DIR, edgeopt sign DIR"
                )
            if not now < plan.until <= now + LONGEST_SECONDS:
                raise InvalidError(f"until: expected a time within the next 90 days, got {plan.until}")
            devices = find_cohort(session, plan.cohort).devices
            if not devices:
                raise InvalidError(f"the cohort {plan.cohort!r} has no device: there is nobody to ask")
            row = ShadowRow(
                name=plan.name,
                bundle=bundle.digest,
                cohort=plan.cohort,
                share=plan.share,
                until=plan.until,
                at_once=plan.at_once,
                rows_each=plan.rows_each,
                policy=msgspec.to_builtins(plan.policy),
                state=ShadowState.DRAFT,
                created_by=current_actor().name,
                created_at=now,
                updated_at=now,
            )
            session.add(row)
            session.flush()
            _add_members(session, plan.name, devices)
            _tell(session, None, row, "create", now)
            row.changed = next_change(session)

    def start(self, name: str, now: float, check: Check | None = None) -> set[str]:
        """Start a draft; return the devices that are to be told. Raises :class:`ConflictError` for any other state."""
        with self._database.transaction(lock=_LOCK) as session:
            row = _checked(session, name, check)
            if row.state != ShadowState.DRAFT:
                raise ConflictError(f"the shadow {name!r} is {row.state}; only a draft can be started")
            if row.until <= now:
                raise ConflictError(f"the time of the shadow {name!r} is over; create another one")
            _enter(session, row, ShadowState.RUNNING, now)
            _tell(session, ShadowState.DRAFT, row, "start", now)
            told = _offer(session, row)
            row.changed = next_change(session)
            return told

    def end(self, name: str, now: float, check: Check | None = None) -> set[str]:
        """End a shadow; what was compared stays. Raises :class:`ConflictError` when it has ended."""
        with self._database.transaction(lock=_LOCK) as session:
            row = _checked(session, name, check)
            if row.state == ShadowState.ENDED:
                raise ConflictError(f"the shadow {name!r} has ended already")
            told = _end(session, row, f"ended by {current_actor().name}", now)
            row.changed = next_change(session)
            return told

    def advance(self, name: str, now: float) -> set[str]:
        """Let devices come and go, judge what they compared, end what is over; return who is to be told."""
        with self._database.transaction(lock=_LOCK) as session:
            row = find_shadow(session, name)
            before, told = row.state, set[str]()
            if before == ShadowState.RUNNING:
                told = _let_go(session, row)
                if row.until <= now:
                    told |= _end(session, row, "its time was over", now)
                else:
                    told |= _offer(session, row)
                    if _is_over(session, row):
                        told |= _end(session, row, "every device is done", now)
            looked = may_look(session, row) and look_at(session, row, now)
            if _take_news(session, name) or looked or row.state != before:
                row.changed = next_change(session)
            return told

    def unsettled(self, now: float) -> list[str]:
        """Return the shadows that :meth:`advance` must look at, oldest first."""
        late = (col(ShadowRow.state) == ShadowState.ENDED) & (col(ShadowRow.updated_at) > now - _LATE_SECONDS)
        query = select(ShadowRow.name).where((col(ShadowRow.state) == ShadowState.RUNNING) | late)
        with self._database.reading() as session:
            return list(session.exec(query.order_by(col(ShadowRow.created_at), col(ShadowRow.name))))

    def report(self, name: str) -> ShadowReport:
        """Return one shadow with its members. Raises :class:`NotFoundError`."""
        with self._database.reading() as session:
            return report_of(session, name)

    def reports(
        self, limit: int, below: tuple[float, str] | None = None, states: Collection[ShadowState] = ()
    ) -> list[ShadowReport]:
        """Return up to ``limit`` shadows without members, newest first, older than (time, name) ``below``."""
        made, name = col(ShadowRow.created_at), col(ShadowRow.name)
        query = select(ShadowRow).order_by(made.desc(), name.desc()).limit(limit)
        if states:
            query = query.where(col(ShadowRow.state).in_(states))
        if below is not None:
            query = query.where((made < below[0]) | ((made == below[0]) & (name < below[1])))
        with self._database.reading() as session:
            return summaries(session, session.exec(query).all())


def _checked(session: Session, name: str, check: Check | None) -> ShadowRow:
    """Return the row, after ``check`` saw the whole in the same transaction."""
    row = find_shadow(session, name)
    if check is not None:
        check(report_of(session, name))
    return row


def _add_members(session: Session, name: str, devices: Collection[str]) -> None:
    """Write the members; who comes first is drawn by a hash of both names, so no device is always the first."""
    line = sorted(devices, key=lambda device: (rank(name, device), device))
    rows = [
        {"shadow": name, "device": device, "place": place, "detail": "", "report_spool": 0, "report_number": 0}
        | dict.fromkeys(("offered", "open", "pending", "news"), False)
        for place, device in enumerate(line)
    ]
    session.execute(insert(ShadowMemberRow), sorted(rows, key=lambda row: str(row["device"])))


def _let_go(session: Session, row: ShadowRow) -> set[str]:
    """Close the members that ended by themselves, compared enough, or left the fleet."""
    query = (
        select(ShadowMemberRow, ShadowServedRow.compared, DeviceRow.revoked_at)
        .join(DeviceRow, col(DeviceRow.id) == col(ShadowMemberRow.device))
        .join(
            ShadowServedRow,
            (col(ShadowServedRow.shadow) == col(ShadowMemberRow.shadow))
            & (col(ShadowServedRow.device) == col(ShadowMemberRow.device)),
            isouter=True,
        )
        .where(ShadowMemberRow.shadow == row.name, col(ShadowMemberRow.open).is_(True))
    )
    gone = set()
    for member, compared, revoked_at in session.exec(query).all():
        enough = row.rows_each is not None and (compared or 0) >= row.rows_each
        if member.state in FINAL or enough or revoked_at is not None:
            _close(member)
            gone.add(member.device)
    return gone


def _offer(session: Session, row: ShadowRow) -> set[str]:
    """Ask the next devices, as many as there is room for."""
    mine = ShadowMemberRow.shadow == row.name
    busy = select(func.count()).select_from(ShadowMemberRow).where(mine, col(ShadowMemberRow.open).is_(True))
    room = row.at_once - session.exec(busy).one()
    if room <= 0:
        return set()
    updating = (
        select(MemberRow.device)
        .join(RolloutRow, col(RolloutRow.name) == col(MemberRow.rollout))
        .where(col(MemberRow.active).is_(True), col(MemberRow.outcome).is_(None), col(MemberRow.taken).is_(False))
        .where(col(RolloutRow.state).in_(_GOING_ON))
    )
    elsewhere = select(ShadowMemberRow.device).where(col(ShadowMemberRow.open).is_(True))
    device = col(ShadowMemberRow.device)
    line = (
        select(ShadowMemberRow, DeviceRow.running)
        .join(DeviceRow, col(DeviceRow.id) == device)
        .where(mine, col(ShadowMemberRow.offered).is_(False))
        .where(
            col(DeviceRow.revoked_at).is_(None), col(DeviceRow.online).is_(True), col(DeviceRow.running).is_not(None)
        )
        .where(device.not_in(updating), device.not_in(elsewhere))
        .order_by(col(ShadowMemberRow.place))
        .limit(room)
    )
    told = set()
    for member, running in session.exec(line).all():
        member.offered = True
        if running == row.bundle:
            member.state, member.news = SERVES_IT, True
        else:
            member.open = member.pending = True
            told.add(member.device)
    session.flush()
    return told


def _take_news(session: Session, name: str) -> bool:
    """Say whether members count otherwise than when this was asked last."""
    news = update(ShadowMemberRow).where(col(ShadowMemberRow.shadow) == name, col(ShadowMemberRow.news).is_(True))
    return bool(session.connection().execute(news.values(news=False)).rowcount)


def _is_over(session: Session, row: ShadowRow) -> bool:
    """Say whether nobody runs it and nobody waits for it."""
    left = col(ShadowMemberRow.open).is_(True) | col(ShadowMemberRow.offered).is_(False)
    query = (
        select(ShadowMemberRow.device)
        .join(DeviceRow, col(DeviceRow.id) == col(ShadowMemberRow.device))
        .where(ShadowMemberRow.shadow == row.name, left, col(DeviceRow.revoked_at).is_(None))
    )
    return session.exec(query.limit(1)).first() is None


def _end(session: Session, row: ShadowRow, reason: str, now: float) -> set[str]:
    before = ShadowState(row.state)
    opened = select(ShadowMemberRow).where(ShadowMemberRow.shadow == row.name, col(ShadowMemberRow.open).is_(True))
    members = session.exec(opened).all()
    for member in members:
        _close(member)
    row.reason = reason
    _enter(session, row, ShadowState.ENDED, now)
    _tell(session, before, row, "end", now)
    return {member.device for member in members}


def _close(member: ShadowMemberRow) -> None:
    member.open, member.pending = False, True


def _enter(session: Session, row: ShadowRow, state: ShadowState, now: float) -> None:
    row.state, row.updated_at = state, now
    session.flush()


def _tell(session: Session, before: ShadowState | None, row: ShadowRow, verb: str, now: float) -> None:
    """Write into the audit log what happened."""
    detail: dict[str, Any] = {"bundle": row.bundle, "cohort": row.cohort, "share": row.share, "until": row.until}
    change = Change(
        operation=f"shadow.{verb}",
        subject=f"shadow/{row.name}",
        before=None if before is None else {"state": str(before)},
        after={"state": str(row.state)},
        detail=detail | ({"reason": row.reason} if row.reason else {}),
    )
    append(session, change, now)

"""One turn of a rollout: what its devices said is heard, what follows is done, and both are saved.

It works in the transaction of whoever makes the turn, and decides nothing: steps are those of
:mod:`edgeopt_fleet.rollout`. Example::

    turn = Turn.begin(session, "v2", now)
    turn.hear()
    turn.go_on(turn.look())
    changed = turn.end()             # devices whose desired state changed
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Select
from sqlmodel import Session, col, select, update

from edgeopt_fleet.gate import Decision, Verdict, judge, together
from edgeopt_fleet.gate.arms import compare_arms
from edgeopt_fleet.rollout import (
    Command,
    Event,
    Member,
    Rollout,
    State,
    allowed_offers,
    arms_of,
    at_fault,
    event_of,
    give_up_to_another,
    has_executed,
    inherit,
    is_look_due,
    keeps_confirmed,
    look_pause,
    observe,
    offer,
    offered,
    overrun,
    step,
    terms_of,
    time_out,
    withdraw,
)
from edgeopt_fleet.store.arms import gather_arms, store_comparison
from edgeopt_fleet.store.audit import Change as AuditChange
from edgeopt_fleet.store.audit import append
from edgeopt_fleet.store.changes import newest_change, next_change
from edgeopt_fleet.store.evidence import (
    forget_baseline,
    gather_evidence,
    store_verdict,
    take_arm_starts,
    take_baseline,
)
from edgeopt_fleet.store.rollout_rows import (
    Change,
    load_rollout,
    members,
    save_members,
    save_rollout,
    with_devices,
)
from edgeopt_fleet.store.tables import DeviceRow, MemberRow, RolloutRow

__all__ = ["Turn", "tell"]

_MOST_AT_ONCE = 5000  # devices that one turn offers to, or asks the database about in one statement
_MOST_STEPS = 40  # of one turn: every wave may be empty, and pass at once
_STALE_CHANGES = 100  # a cursor this far behind is written even when nothing else is


class Turn:
    """One transaction's work on one rollout. Members are written as they change, the rollout at the end."""

    def __init__(self, session: Session, record: Rollout, row: RolloutRow, now: float) -> None:
        self.record = record
        self._session = session
        self._row = row
        self._now = now
        self._before = record
        self._changed: set[str] = set()
        self._news = False  # to tell, though perhaps nothing counts otherwise: a verdict, or what a member said
        self._harmful = ""  # arms that the gate found harmful at this turn
        self._told: list[tuple[Rollout, Event]] = []

    @classmethod
    def begin(cls, session: Session, name: str, now: float) -> Turn:
        """Load the rollout. Raises :class:`NotFoundError`."""
        record, row = load_rollout(session, name)
        return cls(session, record, row, now)

    def hear(self) -> None:
        """Let the members whose devices said something new see it, and the late ones time out."""
        newest = newest_change(self._session)
        mine = select(MemberRow).where(MemberRow.rollout == self.record.name)
        news = mine.where(col(MemberRow.attempt) > 0, col(DeviceRow.changed) > self._row.seen)
        terms = terms_of(self.record)
        heard = [
            (member, observe(member, seen, terms, self._now)) for member, seen in with_devices(self._session, news)
        ]
        self._save(heard)
        due = members(self._session, mine.where(col(MemberRow.deadline) <= self._now))
        late = [(member, time_out(member, terms, self._now)) for member in due]
        self._save(late)
        if heard or late or newest - self._row.seen > _STALE_CHANGES:
            self._row.seen = newest

    def look(self) -> Verdict | None:
        """Ask the gate, when it is time to: as often as its policy says, and once more before something ends."""
        row = self._row
        if not is_look_due(self.record, row.next_look_at, self._now, early=row.looked_early):
            return None
        verdicts = {}
        for arm in arms_of(self.record):
            evidence = gather_evidence(self._session, self.record, self._now, arm)
            verdicts[arm] = judge(evidence, self.record.policy)
            news = store_verdict(self._session, self.record, evidence, verdicts[arm], self._now, arm)
            self._news = self._news or news
        self._harmful = "".join(arm for arm, one in verdicts.items() if one.decision is Decision.ROLL_BACK)
        verdict = verdicts[""] if "" in verdicts else together(verdicts)
        if verdict.tested:  # one that found nothing to compare costs little and decided nothing: again at the next turn
            row.next_look_at = self._now + look_pause(self.record, self._now)
            row.looked_early = not has_executed(self.record)
        return verdict

    def compare(self) -> None:
        """Compare the arms with each other when they were observed for long enough, and so end the rollout."""
        record, now = self.record, self._now
        if record.state is not State.OBSERVING or record.trial is None:
            return
        seconds = now - record.step_started_at
        if seconds < record.trial.observe_seconds:
            return
        margins = record.trial.margins
        evidence = gather_arms(self._session, record, now, margins.device_rows)
        if record.trial.is_over(seconds, [int(arm.after.sum()) for arm in (evidence.a, evidence.b)]):
            compared = compare_arms(evidence, margins)
            store_comparison(self._session, record, evidence, compared, margins, now)
            self._news = True
            self.take(Event.OBSERVED, compared.text)

    def go_on(self, verdict: Verdict | None) -> None:
        """Take all steps that follow by themselves, then offer what may be offered."""
        for _ in range(_MOST_STEPS):
            event = event_of(self.record, verdict, self._now)
            if event is None:
                break
            words, fault = "", ""
            if event is Event.TOO_MANY_FAILED:
                words, fault = overrun(self.record), at_fault(self.record)
            elif event is Event.WAVE_FAILED and verdict is not None:
                words, fault = verdict.reasons[0].text, self._harmful
            self.take(event, words, fault)
            verdict = None
        self._offer()

    def take(self, event: Event, reason: str = "", fault: str = "") -> None:
        """Take one step and do what it asks for. Raises :class:`IllegalTransitionError`."""
        told = replace(self.record, reason=reason, fault=fault or self.record.fault)
        self.record, commands = step(told, event, self._now)
        self._told.append((self.record, event))
        for command in commands:
            if command is Command.CLAIM:
                self._claim()
            elif command is Command.EXPOSE_WAVE:
                self._row.next_look_at = self._now + self.record.policy.initial_delay_seconds
                self._offer()
                take_baseline(self._session, self.record.name)
                if self.record.trial is not None:
                    take_arm_starts(self._session, self.record)
            elif command is Command.RELEASE:
                self._release()
            else:
                self._withdraw(command)

    def end(self) -> set[str]:
        """Write the rollout, tell of its steps, and return the devices whose desired state changed."""
        record = self.record
        save_rollout(self._session, record, self._row)
        if record != self._before or self._news:
            self._row.changed = next_change(self._session)
        before = self._before
        for after, event in self._told:
            tell(self._session, before, after, str(event), self._now)
            before = after
        return self._changed

    # --- what steps do to members ---------------------------------------------------------------------------------

    def _save(self, changes: Sequence[Change]) -> None:
        """Write members that changed."""
        changes = [pair for pair in changes if pair[0] != pair[1]]
        if changes:
            self._news = True
            self.record = replace(self.record, tally=self.record.tally.moved([*changes]))
            self._changed |= save_members(self._session, self.record, changes)

    def _offer(self) -> None:
        """Offer the bundle to those whose turn it is, as many as the rate allows."""
        allowed = allowed_offers(self.record, self._now)
        most = _MOST_AT_ONCE if allowed is None else min(allowed, _MOST_AT_ONCE)
        while most:
            line = (
                select(MemberRow)
                .where(MemberRow.rollout == self.record.name, col(MemberRow.to_offer))
                .where(col(MemberRow.wave) <= self.record.wave)
                .order_by(col(MemberRow.wave), col(MemberRow.place))
                .limit(most)
            )
            found = with_devices(self._session, line)
            if not found:
                return
            theirs = self._take_from_others([member.device for member, _ in found if not member.exposed])
            changes = []
            for member, seen in found:
                other = theirs.get(member.device)
                changes.append((member, offer(member if other is None else inherit(member, other), seen)))
            self.record = offered(self.record, changes, self._now)
            self._changed |= save_members(self._session, self.record, changes)
            if allowed is not None or len(found) < most:
                return

    def _claim(self) -> None:
        """Take from other rollouts the devices that they have not offered anything yet."""
        mine = select(MemberRow.device).where(MemberRow.rollout == self.record.name)
        self._take_away(select(MemberRow).where(col(MemberRow.attempt) == 0, col(MemberRow.device).in_(mine)))

    def _take_from_others(self, devices: Collection[str]) -> dict[str, Member]:
        """Take ``devices`` from the rollouts that hold or still wait for them; return what they were there."""
        return self._take_away(select(MemberRow).where(col(MemberRow.device).in_(devices))) if devices else {}

    def _take_away(self, query: Select[Any]) -> dict[str, Member]:
        """Take the members that ``query`` finds from other rollouts."""
        held = col(MemberRow.active) | (col(MemberRow.attempt) > 0)
        query = query.where(col(MemberRow.rollout) != self.record.name, col(MemberRow.taken).is_(False), held)
        names = sorted(set(self._session.execute(query.with_only_columns(col(MemberRow.rollout))).scalars()))
        taken: dict[str, Member] = {}
        for name in names:
            theirs = members(self._session, query.where(col(MemberRow.rollout) == name))
            other, row = load_rollout(self._session, name)
            changes = [(member, give_up_to_another(member)) for member in theirs]
            save_members(self._session, other, changes)
            save_rollout(self._session, replace(other, tally=other.tally.moved([*changes])), row)
            taken |= {member.device: member for member in theirs}
        return taken

    def _withdraw(self, command: Command) -> None:
        exposed = select(MemberRow).where(MemberRow.rollout == self.record.name, col(MemberRow.attempt) > 0)
        self._save(
            [
                (member, withdraw(member, keep_confirmed=keeps_confirmed(self.record, member, command)))
                for member in members(self._session, exposed)
            ]
        )

    def _release(self) -> None:
        """Let other rollouts have the devices, and forget what was only needed while this one ran."""
        self._session.execute(update(MemberRow).where(col(MemberRow.rollout) == self.record.name).values(active=False))
        forget_baseline(self._session, self.record.name)


def tell(session: Session, before: Rollout | None, after: Rollout, verb: str, now: float) -> None:
    """Write into the audit log what happened to a rollout."""

    def state(record: Rollout) -> dict[str, str | int]:
        kept = {"kept": record.kept} if record.kept else {}
        return {"state": str(record.state), "wave": record.wave, **kept}

    append(
        session,
        AuditChange(
            operation=f"rollout.{verb}",
            subject=f"rollout/{after.name}",
            before=None if before is None else state(before),
            after=state(after),
            detail=state(after)
            | ({"bundle": after.bundle} if after.trial is None else {"bundles": [a.bundle for a in after.trial.arms]})
            | {name: value for name in ("reason", "fault") if (value := getattr(after, name))},
        ),
        now,
    )

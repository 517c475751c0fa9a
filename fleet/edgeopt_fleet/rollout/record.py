"""A rollout as a whole: its record, and the one step from state to state.

Pure: no I/O, no clock. The record holds no members, but counts of them: what a tick costs follows what changed, not
how many there are. Rules:

- Members and waves are fixed when a rollout is created; devices enrolled later are not members.
- A device that is offline is offered the bundle in its turn, finds it when it returns, and is waited for by nobody.
- PAUSED offers nothing to anybody; the current wave is still watched, and a harmful one is still rolled back.
- CANCELLED leaves confirmed devices as they are and sends the unfinished and failed ones back.
- ROLLING_BACK wants the previous bundle on every exposed device; it is ROLLED_BACK when the online ones are back.
  An offline one finds the order when it returns. A device without a previous bundle keeps what it runs.
- The way back has no rate and waits for no window: what those protect from is worse than a short disturbance.
- A wave passes when every one of its devices was offered the bundle and the gate says so.
- A wave's step timeout begins with its last offer, and does not count while a device waits for its window.
- After the total timeout the rollout is cancelled, also a paused one: nothing hangs for ever.
- With two arms (:mod:`.arms`) failures are counted for each of them, and only the arm at fault goes back as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from edgeopt_fleet.gate import Decision, Policy, Verdict
from edgeopt_fleet.rollout.arms import ARMS, Trial
from edgeopt_fleet.rollout.members import Count, Member, Terms, Wanted
from edgeopt_fleet.rollout.pace import Pace, Pacing, allowance
from edgeopt_fleet.rollout.states import ACTIVE, TRANSITIONS, Command, Event, IllegalTransitionError, State
from edgeopt_fleet.rollout.tally import Tally
from edgeopt_fleet.rollout.thresholds import Failure, Threshold, failed_of, too_many
from edgeopt_fleet.rollout.waves import Wave

__all__ = [
    "Execution",
    "Rollout",
    "allowed_offers",
    "arms_of",
    "at_fault",
    "conclude",
    "event_of",
    "excuse",
    "forecast_seconds",
    "has_executed",
    "is_late",
    "is_look_due",
    "is_settled",
    "keeps_confirmed",
    "look_pause",
    "offered",
    "overrun",
    "start_event",
    "step",
    "terms_of",
    "wanted",
]

_EXCUSE_STEP_SECONDS = 60.0  # a wait moves the timeout's beginning this often, so a night costs few writes
_MOST_RETRIES = 10
_MOST_PRIORITY = 1000
_WATCHED = (State.RUNNING, State.PAUSED, State.OBSERVING)  # the gate looks, and may roll back
_WITHDRAWALS = {State.ROLLING_BACK: Command.WITHDRAW_ALL, State.CANCELLED: Command.WITHDRAW_UNCONFIRMED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a rollout is carried out. Times in seconds, ``start_at`` in seconds since 1970.

    Of two rollouts with a device in common the one with the higher ``priority`` (0-1000) has it.
    """

    pace: Pace | None = None
    thresholds: tuple[Threshold, ...] = ()
    device_timeout_seconds: float | None = None
    total_timeout_seconds: float | None = None
    retries: int = 0
    start_at: int | None = None
    priority: int = 500

    def __post_init__(self) -> None:
        for name in ("device_timeout_seconds", "total_timeout_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"expected {name} above 0, got {seconds}")
        if not 0 <= self.retries <= _MOST_RETRIES:
            raise ValueError(f"expected retries from 0 to {_MOST_RETRIES}, got {self.retries}")
        if not 0 <= self.priority <= _MOST_PRIORITY:
            raise ValueError(f"expected a priority from 0 to {_MOST_PRIORITY}, got {self.priority}")
        if self.start_at is not None and not 0 <= self.start_at < 2**53:
            raise ValueError(f"expected start_at as seconds since 1970, got {self.start_at}")
        if len(self.thresholds) > len(Failure) * 4:
            raise ValueError(f"expected at most {len(Failure) * 4} thresholds, got {len(self.thresholds)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """All that is kept of a rollout but its members. ``wave`` is the current one; times are seconds since 1970."""

    name: str
    bundle: str
    cohort: str
    waves: tuple[Wave, ...]
    policy: Policy
    created_at: float
    updated_at: float
    execution: Execution = field(default_factory=Execution)
    trial: Trial | None = None  # two arms; then ``bundle`` is that of the first
    state: State = State.DRAFT
    wave: int = 0
    started_at: float = 0.0
    wave_started_at: float = 0.0  # since when the wave's devices are exposed
    step_started_at: float = 0.0  # since when the step timeout counts
    pacing: Pacing = field(default_factory=Pacing)
    tally: Tally = field(default_factory=Tally)
    reason: str = ""  # of the last step that nobody ordered
    fault: str = ""  # the arm or arms that harmed
    kept: str = ""  # the arm that somebody decided for after the end, or "both"
    approval: bool = False  # somebody must approve it before it starts
    created_by: str = ""
    approved_by: str = ""
    approval_reason: str = ""


def terms_of(record: Rollout) -> Terms:
    """Return what the rollout says to its members at this moment."""
    policy, execution = record.policy, record.execution
    return Terms(
        rollout=record.name,
        retries=execution.retries,
        device_timeout_seconds=execution.device_timeout_seconds,
        timed=policy.window is not None or policy.not_before is not None,
        may_try_again=record.state in (State.RUNNING, State.PAUSED),
    )


def wanted(record: Rollout, member: Member) -> Wanted | None:
    """Return what ``member`` should run; None when it is none of this rollout's business."""
    if not member.exposed or member.taken:
        return None
    job = terms_of(record).job_of(member)
    if member.withdrawn:
        return Wanted(job=job, bundle=member.previous)
    policy = record.policy
    return Wanted(job=job, bundle=member.bundle, not_before=policy.not_before, window=policy.window)


def start_event(record: Rollout) -> Event:
    """Return what the order to start means: a draft may need approval first, or wait for its time."""
    if record.state is not State.DRAFT:
        return Event.STARTED
    return Event.SUBMITTED if record.approval else Event.SCHEDULED


def step(record: Rollout, event: Event, now: float) -> tuple[Rollout, tuple[Command, ...]]:
    """Return the next record and what entering it asks for. Raises :class:`IllegalTransitionError`."""
    state = TRANSITIONS.get((record.state, event))
    if state is None or (event in (Event.SCHEDULED, Event.STARTED) and record.state is State.DRAFT and record.approval):
        raise IllegalTransitionError(f"rollout {record.name} is {record.state}: it cannot be '{event}' now")
    record = replace(record, state=state, updated_at=now)
    if event is Event.STARTED:
        record = replace(record, wave=0, started_at=now, wave_started_at=now, step_started_at=now)
        return record, (Command.CLAIM, Command.EXPOSE_WAVE)
    if event is Event.WAVE_PASSED:
        record = replace(record, wave=record.wave + 1, wave_started_at=now, step_started_at=now)
        return record, (Command.EXPOSE_WAVE,)
    if event in (Event.RESUMED, Event.PLACED):
        record = replace(record, step_started_at=now)
    withdrawal = (_WITHDRAWALS[state],) if state in _WITHDRAWALS else ()
    if event in (Event.WAVE_FAILED, Event.TOO_MANY_FAILED) and len(record.fault) == 1:
        withdrawal = (Command.WITHDRAW_ARM,)
    return record, withdrawal + (() if state in ACTIVE else (Command.RELEASE,))


def conclude(record: Rollout, keep: str, now: float) -> Rollout:
    """Return ``record`` after somebody decided for an arm, or for ``both`` as they are.

    Raises :class:`IllegalTransitionError` before its end, twice, without arms, and for an arm that harmed.
    """
    if record.trial is None:
        raise IllegalTransitionError(f"rollout {record.name} has no two arms: there is nothing to decide between")
    if record.kept:
        raise IllegalTransitionError(f"rollout {record.name} was concluded already: kept {record.kept}")
    if record.state in ACTIVE:
        raise IllegalTransitionError(f"rollout {record.name} is {record.state}: wait for its end, or cancel it")
    if keep in record.fault:
        raise IllegalTransitionError(f"arm {keep} of rollout {record.name} was rolled back: {record.reason}")
    return replace(record, kept=keep, updated_at=now)


def allowed_offers(record: Rollout, now: float) -> int | None:
    """Return how many devices may be offered the bundle now; None: as many as there are. A pause allows none."""
    if record.state is not State.RUNNING:
        return 0
    tally = record.tally
    return allowance(
        record.execution.pace, record.pacing, tally.total(Count.NOTIFIED), tally.total(Count.CONFIRMED), now
    )


def offered(record: Rollout, changes: list[tuple[Member, Member]], now: float) -> Rollout:
    """Return ``record`` after the offers of ``changes`` (before, after), which :func:`allowed_offers` allowed."""
    pace, tally = record.execution.pace, record.tally
    pacing = record.pacing
    if pace is not None:
        rate = pace.rate(tally.total(Count.NOTIFIED), tally.total(Count.CONFIRMED))
        pacing = pacing.after(len(changes), rate, now)
    return replace(record, pacing=pacing, step_started_at=now, tally=tally.moved([*changes]))


def excuse(record: Rollout, now: float) -> Rollout:
    """Return ``record`` with a step timeout that does not count the wait of its devices for their window.

    The fleet does not know the devices' time zones. So it believes one that says it waits, but no longer than the
    window is ever closed: a device that never gets through its self-test is late in the end.
    """
    policy = record.policy
    timed = policy.window is not None or policy.not_before is not None
    if record.state is not State.RUNNING or not timed or not record.tally.of(record.wave, Count.HELD):
        return record
    closed = 0.0 if policy.window is None else policy.window.longest_wait_seconds
    if now > max(record.wave_started_at, policy.not_before or 0) + closed:
        return record
    if now - record.step_started_at < min(_EXCUSE_STEP_SECONDS, policy.step_timeout_seconds / 2):
        return record
    return replace(record, step_started_at=now)


def arms_of(record: Rollout) -> tuple[str, ...]:
    """Return the arms that are judged, each for itself; one without a name when there are no two."""
    return ("",) if record.trial is None else ARMS


def overrun(record: Rollout) -> str:
    """Return in words which threshold the failures exceed, in the current wave or over all; empty when none is.

    The policy's ``failure_threshold`` is one of them, for failures of any kind. Each arm is counted for itself.
    """
    return next((words for _, words in _overruns(record)), "")


def at_fault(record: Rollout) -> str:
    """Return the arms of which too many devices failed."""
    return "".join(dict.fromkeys(arm for arm, _ in _overruns(record)))


def keeps_confirmed(record: Rollout, member: Member, command: Command) -> bool:
    """Say whether ``command``, which sends devices back, leaves ``member`` as it is once it has confirmed."""
    spared = command is Command.WITHDRAW_ARM and member.arm not in record.fault
    return spared or command is Command.WITHDRAW_UNCONFIRMED


def _overruns(record: Rollout) -> Iterator[tuple[str, str]]:
    """Yield arms, with words, that exceed a threshold."""
    policy, tally = record.policy, record.tally
    general = Threshold(Failure.ANY, policy.failure_threshold * 100, policy.minimum_executed)
    for arm in arms_of(record):
        for wave, where in ((record.wave, "in this wave"), (None, "over all waves")):
            failed = tally.failed(wave, arm)
            confirmed = tally.total(Count.CONFIRMED, arm) if wave is None else tally.of(wave, Count.CONFIRMED, arm)
            executed = confirmed + sum(failed.values())
            for threshold in (*record.execution.thresholds, general):
                if too_many(threshold, executed, failed):
                    number = failed_of(threshold, failed)
                    how = "failed" if threshold.failure is Failure.ANY else str(threshold.failure).replace("_", " ")
                    share = f"{number / executed:.0%}, at most {threshold.percentage:g}% allowed"
                    whose = f"arm {arm}: " if arm else ""
                    yield arm, f"{whose}{number} of {executed} executed devices {how} {where} ({share})"


def event_of(record: Rollout, verdict: Verdict | None, now: float) -> Event | None:
    """Return what clock, devices and the gate's verdict (None: it did not look) make of the rollout."""
    state = record.state
    if state is State.SCHEDULED:
        return Event.STARTED if now >= (record.execution.start_at or 0) else None
    if state is State.ROLLING_BACK:
        return None if record.tally.total(Count.RETURNING) else Event.RECALLED
    if state not in _WATCHED:
        return None
    return _alarm(record, verdict, now) or (_progress(record, verdict, now) if state is State.RUNNING else None)


def _alarm(record: Rollout, verdict: Verdict | None, now: float) -> Event | None:
    """Return what ends a rollout, running or paused."""
    if overrun(record):
        return Event.TOO_MANY_FAILED
    if verdict is not None and verdict.decision is Decision.ROLL_BACK:
        return Event.WAVE_FAILED
    if not record.tally.total(Count.MEMBERS):
        return Event.SUPERSEDED
    allowed = record.execution.total_timeout_seconds
    return Event.TIMED_OUT if allowed is not None and now - record.started_at > allowed else None


def _progress(record: Rollout, verdict: Verdict | None, now: float) -> Event | None:
    """Return whether the wave passes, or took too long."""
    tally, wave = record.tally, record.wave
    empty = not tally.of(wave, Count.MEMBERS)
    everybody_asked = not any(tally.of(earlier, Count.TO_OFFER) for earlier in range(wave + 1))
    if everybody_asked and (empty or (verdict is not None and verdict.decision is Decision.PROMOTE)):
        if wave < len(record.waves) - 1:
            return Event.WAVE_PASSED
        return Event.LAST_WAVE_PASSED if record.trial is None else Event.PLACED
    waited_out = verdict is not None and (verdict.timed_out or is_late(record, now))
    return Event.WAVE_TIMED_OUT if waited_out else None


def is_late(record: Rollout, now: float) -> bool:
    """Say whether the wave's time is over."""
    return now - record.step_started_at > record.policy.step_timeout_seconds


def is_look_due(record: Rollout, next_look_at: float, now: float, *, early: bool) -> bool:
    """Say whether the gate should look: at its interval, and once more before the rollout is paused or rolled back.

    After an ``early`` look, at a wave that only baked, it also looks as soon as the bake is over on a device.
    """
    if record.state not in _WATCHED:
        return False
    over = early and has_executed(record)
    late = record.state is State.RUNNING and is_late(record, now)
    return over or now >= next_look_at or late or bool(overrun(record))


def has_executed(record: Rollout) -> bool:
    """Say whether the update has ended on any device of the wave, well or badly."""
    return bool(record.tally.of(record.wave, Count.CONFIRMED) or sum(record.tally.failed(record.wave).values()))


def look_pause(record: Rollout, now: float) -> float:
    """Return how many seconds after this look the gate looks again: the policy's interval.

    While the wave only bakes, or two arms are observed, looks come ever more seldom, a quarter of the time so far: each
    spends some of the error, and it may take days. One is due when the observation is over.
    """
    interval, passed = record.policy.interval_seconds, now - record.wave_started_at
    if record.state is State.OBSERVING and record.trial is not None:
        whole = record.trial.observe_seconds
        left = whole - (now - record.step_started_at)
        return max(interval, min(passed / 4, left) if left > 0 else whole / 8)
    return interval if has_executed(record) else max(interval, passed / 4)


def is_settled(record: Rollout) -> bool:
    """Say whether nothing more can come of ``record``: it ended, and no device still works on a job it gave.

    An ended rollout goes on hearing from offline devices that return until another rollout takes them.
    """
    return record.state not in ACTIVE and not record.tally.total(Count.OPEN)


def forecast_seconds(record: Rollout) -> list[float]:
    """Return for each wave how long after the start its last device is offered the bundle at the earliest.

    By the rate alone: as if every wave passed at once and every device succeeded.
    """
    pace = record.execution.pace
    seconds, notified = 0.0, 0
    ends = []
    for wave in range(len(record.waves)):
        left = record.tally.of(wave, Count.MEMBERS)
        while pace is not None and left:
            until = pace.steady_for(notified)
            batch = left if until is None else min(left, until)
            seconds += batch * 60.0 / pace.rate(notified, notified)
            notified += batch
            left -= batch
        ends.append(round(seconds, 1))
    return ends

"""The life cycle of a rollout.

Pure: no I/O, no clock. :data:`TRANSITIONS` holds every rule about where a rollout goes next; what each exposed
device should run follows from the record alone (:func:`desired`), so resuming after a crash is publishing it again.

- A rollout's members and waves are fixed when it is created; devices enrolled later are not members.
- PAUSED exposes nobody new; the current wave is still watched, and a harmful one is still rolled back.
- CANCELLED leaves confirmed devices as they are and sends the unfinished and failed ones back.
- ROLLING_BACK wants the previous bundle on every exposed device; it is ROLLED_BACK when the online ones are back.
  An offline one finds the order when it returns. A device without a previous bundle keeps what it runs.
- The way back waits for no maintenance window: what a window protects from is worse than a short disturbance.
- A wave's step timeout does not count while a device of it waits for its window (:func:`excuse`).

Example::

    record, commands = step(record, Event.STARTED, now=1764000000.0)
    desired(record)            # {'cam-3': Wanted(job='v2.1.cam-3', bundle='ab12…')}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from edgeopt_contract.messages import DeviceState, Result
from edgeopt_contract.windows import Window
from edgeopt_fleet.cohort import split_into_waves
from edgeopt_fleet.gate import Decision, Outcome, Policy, Verdict

__all__ = [
    "ACTIVE",
    "FORWARD",
    "TRANSITIONS",
    "Command",
    "Event",
    "IllegalTransitionError",
    "Member",
    "Rollout",
    "Sighting",
    "State",
    "Wanted",
    "create",
    "desired",
    "event_of",
    "excuse",
    "is_settled",
    "is_waiting",
    "observe",
    "step",
]

FORWARD = 1  # the job number of the update itself; 2 and above bring the device back
_LAST_ATTEMPT = 5  # a device that refuses to go back is asked four times, then a person must look
_EXCUSE_STEP_SECONDS = 60.0  # a wait moves the timeout's beginning this often, so a night costs few writes
_FINAL_STATES = {DeviceState.CONFIRMED, DeviceState.FAILED, DeviceState.ROLLED_BACK, DeviceState.REJECTED}


class State(StrEnum):
    """Where a rollout is."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What happened to a rollout: by the operator, by the gate, or by the devices."""

    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    ROLL_BACK_ORDERED = "roll_back_ordered"
    WAVE_PASSED = "wave_passed"
    LAST_WAVE_PASSED = "last_wave_passed"
    WAVE_TIMED_OUT = "wave_timed_out"
    WAVE_FAILED = "wave_failed"
    RECALLED = "recalled"


class Command(StrEnum):
    """What the shell must do after saving a state; each may be done twice."""

    EXPOSE_WAVE = "expose_wave"  # remember what every device has served so far: the gate compares against it
    PUBLISH = "publish"  # publish what desired() says


# Every rule about where a rollout goes next is in this table.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.DRAFT, Event.STARTED): State.RUNNING,
    (State.DRAFT, Event.CANCELLED): State.CANCELLED,
    (State.RUNNING, Event.PAUSED): State.PAUSED,
    (State.RUNNING, Event.CANCELLED): State.CANCELLED,
    (State.RUNNING, Event.ROLL_BACK_ORDERED): State.ROLLING_BACK,
    (State.RUNNING, Event.WAVE_PASSED): State.RUNNING,
    (State.RUNNING, Event.LAST_WAVE_PASSED): State.SUCCEEDED,
    (State.RUNNING, Event.WAVE_TIMED_OUT): State.PAUSED,
    (State.RUNNING, Event.WAVE_FAILED): State.ROLLING_BACK,
    (State.PAUSED, Event.RESUMED): State.RUNNING,
    (State.PAUSED, Event.CANCELLED): State.CANCELLED,
    (State.PAUSED, Event.ROLL_BACK_ORDERED): State.ROLLING_BACK,
    (State.PAUSED, Event.WAVE_FAILED): State.ROLLING_BACK,
    (State.ROLLING_BACK, Event.RECALLED): State.ROLLED_BACK,
}

ACTIVE = frozenset({State.DRAFT, State.RUNNING, State.PAUSED, State.ROLLING_BACK})


class IllegalTransitionError(Exception):
    """The event does not belong to the state; the record is unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One device of a rollout. ``attempt`` numbers the jobs it was given: 0 none, 1 the update, 2… the way back."""

    device: str
    wave: int
    previous: str | None = None
    attempt: int = 0
    state: DeviceState | None = None  # of the job it was given last
    outcome: Outcome | None = None  # of the update itself
    returned: bool = False
    result: Result | None = None
    detail: str = ""
    failure: str = ""  # why the update failed here; stays when the device is sent back
    running: str | None = None
    online: bool = False

    @property
    def exposed(self) -> bool:
        """Whether this device was ever offered the bundle."""
        return self.attempt >= FORWARD

    @property
    def withdrawn(self) -> bool:
        """Whether this device was sent back."""
        return self.attempt > FORWARD


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What the fleet knows of one device now; ``job`` and what follows are of its newest report."""

    online: bool
    running: str | None
    job: str | None = None
    state: DeviceState | None = None
    result: Result | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one device should run; ``bundle`` is None when it may keep what it runs.

    It switches not before ``not_before`` (seconds since 1970) and inside ``window`` only, where those are given.
    """

    job: str
    bundle: str | None
    not_before: int | None = None
    window: Window | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """All that is kept of a rollout. ``wave`` is the index of the current wave; times are seconds since 1970."""

    name: str
    bundle: str
    cohort: str
    waves: tuple[int, ...]
    policy: Policy
    created_at: float
    updated_at: float
    state: State = State.DRAFT
    wave: int = 0
    wave_started_at: float = 0.0  # since when the wave's devices are exposed
    step_started_at: float = 0.0  # since when the step timeout counts
    members: Mapping[str, Member] = field(default_factory=dict)

    def job_of(self, member: Member) -> str:
        """Return the id of the job that ``member`` was given last: the same however often it is published."""
        return f"{self.name}.{member.attempt}.{member.device}"


def create(rollout: Rollout, previous: Mapping[str, str | None]) -> Rollout:
    """Return ``rollout`` with its members: the devices of ``previous``, which says what each runs now."""
    groups = split_into_waves(rollout.name, previous, rollout.waves)
    members = {
        device: Member(device=device, wave=index, previous=previous[device], running=previous[device])
        for index, group in enumerate(groups)
        for device in group
    }
    return replace(rollout, members=members)


def step(record: Rollout, event: Event, now: float) -> tuple[Rollout, tuple[Command, ...]]:
    """Return the next record and what entering it asks for. Raises :class:`IllegalTransitionError`."""
    state = TRANSITIONS.get((record.state, event))
    if state is None:
        raise IllegalTransitionError(f"rollout {record.name} is {record.state}: it cannot be '{event}' now")
    record = replace(record, state=state, updated_at=now)
    if event in (Event.STARTED, Event.WAVE_PASSED):
        wave = record.wave + 1 if event is Event.WAVE_PASSED else 0
        record = replace(record, wave=wave, wave_started_at=now, step_started_at=now)
        return _expose(record), (Command.EXPOSE_WAVE, Command.PUBLISH)
    if state is State.ROLLING_BACK:
        return _withdraw(record, keep=None), (Command.PUBLISH,)
    if state is State.CANCELLED:
        return _withdraw(record, keep=Outcome.CONFIRMED), (Command.PUBLISH,)
    if event is Event.RESUMED:
        record = replace(record, step_started_at=now)
    return record, ()


def _expose(record: Rollout) -> Rollout:
    """Give the current wave its job; what its devices run at this moment is what they would go back to."""
    members = {
        device: replace(member, attempt=FORWARD, previous=member.running or member.previous)
        if member.wave == record.wave and not member.exposed
        else member
        for device, member in record.members.items()
    }
    return replace(record, members=members)


def _withdraw(record: Rollout, keep: Outcome | None) -> Rollout:
    """Send every exposed device back, but for those whose outcome is ``keep``."""
    members = {
        device: replace(member, attempt=FORWARD + 1, state=None, result=None, detail="")
        if member.attempt == FORWARD and (keep is None or member.outcome is not keep)
        else member
        for device, member in record.members.items()
    }
    return replace(record, members=members)


def desired(record: Rollout) -> dict[str, Wanted]:
    """Return what every exposed device should run; the others are none of this rollout's business."""
    return {device: _wanted(record, member) for device, member in record.members.items() if member.exposed}


def _wanted(record: Rollout, member: Member) -> Wanted:
    job = record.job_of(member)
    if member.withdrawn:
        return Wanted(job=job, bundle=member.previous)
    policy = record.policy
    return Wanted(job=job, bundle=record.bundle, not_before=policy.not_before, window=policy.window)


def observe(record: Rollout, sightings: Mapping[str, Sighting]) -> Rollout:
    """Return ``record`` with what its devices said last. Seeing the same again changes nothing.

    A report counts only for the job that the device was given last; a device that failed to go back is asked again.
    """
    members = {
        device: _observe_member(record, member, sightings[device]) if device in sightings else member
        for device, member in record.members.items()
    }
    return replace(record, members=members)


def _observe_member(record: Rollout, member: Member, seen: Sighting) -> Member:
    member = replace(member, online=seen.online, running=seen.running)
    if seen.job is None or not member.exposed or seen.job != record.job_of(member):
        return member
    member = replace(member, state=seen.state, result=seen.result, detail=seen.detail)
    if seen.state not in _FINAL_STATES:
        return member
    if not member.withdrawn:
        return _with_outcome(record, member)
    if member.previous is None or seen.running == member.previous:
        return replace(member, returned=True)
    if member.returned or member.attempt >= _LAST_ATTEMPT:
        return member
    return replace(member, attempt=member.attempt + 1, state=None, result=None)


def _with_outcome(record: Rollout, member: Member) -> Member:
    """Only a device that runs the rollout's bundle is a success, whatever it calls itself (hawkbit#3185)."""
    if member.state is not DeviceState.CONFIRMED:
        return replace(member, outcome=Outcome.FAILED, failure=member.failure or member.detail or str(member.state))
    if member.running == record.bundle:
        return replace(member, outcome=Outcome.CONFIRMED)
    runs = member.running[:12] if member.running else "nothing"
    detail = f"reported confirmed, but runs {runs}"
    return replace(member, outcome=Outcome.FAILED, detail=detail, failure=member.failure or detail)


def is_waiting(record: Rollout, member: Member) -> bool:
    """Say whether ``member`` has everything and waits for the time at which it may switch."""
    timed = record.policy.window is not None or record.policy.not_before is not None
    return timed and member.attempt == FORWARD and member.online and member.state is DeviceState.STAGED


def excuse(record: Rollout, now: float) -> Rollout:
    """Return ``record`` with a step timeout that does not count the wait of its devices for their window.

    The fleet does not know the devices' time zones. So it believes one that says it waits, but no longer than the
    window is ever closed: a device that never gets through its self-test is late in the end.
    """
    policy = record.policy
    members = [member for member in record.members.values() if member.wave == record.wave]
    if record.state is not State.RUNNING or not any(is_waiting(record, member) for member in members):
        return record
    closed = 0.0 if policy.window is None else policy.window.longest_wait_seconds
    if now > max(record.wave_started_at, policy.not_before or 0) + closed:
        return record
    if now - record.step_started_at < min(_EXCUSE_STEP_SECONDS, policy.step_timeout_seconds / 2):
        return record
    return replace(record, step_started_at=now)


def event_of(record: Rollout, verdict: Verdict | None) -> Event | None:
    """Return what the gate's verdict, or the devices' return, makes of the rollout; None when nothing changes."""
    if record.state is State.ROLLING_BACK:
        return Event.RECALLED if _is_recalled(record) else None
    if verdict is None or record.state not in (State.RUNNING, State.PAUSED):
        return None
    if verdict.decision is Decision.ROLL_BACK:
        return Event.WAVE_FAILED
    if record.state is State.PAUSED:
        return None
    if verdict.decision is Decision.PROMOTE:
        return Event.LAST_WAVE_PASSED if record.wave == len(record.waves) - 1 else Event.WAVE_PASSED
    return Event.WAVE_TIMED_OUT if verdict.timed_out else None


def is_settled(record: Rollout, jobs: Mapping[str, str | None]) -> bool:
    """Say whether nothing more can come of ``record``: it ended, and no device still works on a job it gave.

    ``jobs`` maps each device to the job it was given last by any rollout. An ended rollout goes on hearing from
    offline devices that return until another rollout takes them.
    """
    if record.state in ACTIVE:
        return False
    return not any(
        member.exposed and not _is_done(member) and jobs.get(member.device) == record.job_of(member)
        for member in record.members.values()
    )


def _is_done(member: Member) -> bool:
    if member.withdrawn:
        return member.returned or member.previous is None or member.attempt >= _LAST_ATTEMPT
    return member.outcome is not None


def _is_recalled(record: Rollout) -> bool:
    return all(
        member.returned or not member.online or member.previous is None
        for member in record.members.values()
        if member.exposed
    )

"""The life cycle of one update on one device. Pure: no I/O, no clock, no threads.

Rules, all of them in the table (:mod:`edgeopt_agent.update.transitions`) and in :func:`step`:

1. A command follows from the state that is *entered*, so resuming after a power cut is entering the saved state once
   more. Every command may be carried out twice.
2. An event that does not belong to the state, or to the job under way, changes nothing.
3. The same job offered twice does nothing, unless it was superseded in between. A newer job supersedes one that is
   under way: first the device goes back to what it last committed to, then it takes the new offer. A bundle that has
   failed on this device ``FAILURE_LIMIT`` times is rejected when a job comes again under which it failed; a new job
   may try it once more.
4. Before ACTIVATING the committed slot serves and a failure leaves it untouched (FAILED, REJECTED). From ACTIVATING
   on a failure goes back to it (ROLLED_BACK). Only CONFIRMED commits.
5. An update that was cut off in ACTIVATING or BAKING starts ACTIVATING again: it is tested and baked from the
   beginning. After ``MAX_ENTRIES`` states entered since the download it leaves by the failure edge instead, for then
   the update itself may be what takes the device down. Restarts while it downloads or waits do not count.
6. At rest, a bundle whose runner cannot be kept alive, or with which the agent itself was started ``MAX_STARTS`` times
   without a steady run, falls back to the bundle before it, if that is still there; a person at the device may order
   the same. A committed bundle that does not start and has nothing to fall back to is tried again and again.
7. A final state is reported when the device has *settled* in it, not before; and once more when what serves changed.
8. A withdrawn offer ends an update that has not switched yet; afterwards the device keeps what it runs.
9. A device downloads at any time; from STAGED it goes on inside its window only, and not before ``not_before``. A test
   that outlasts the window leads back to STAGED. A device that was cut off after the switch does not wait again.
10. A variant that this board cannot load or run (its runtime is broken here, say) is not taken again; if the bundle has
    another one, that is fetched and tested under the same job.
11. What has not begun to switch when the deadline passes has failed, wherever it waits; before it began, rejected.
12. An offer becomes OFFERED when it is trusted, not before (:mod:`edgeopt_agent.update.door`); see :func:`is_let_in`.
13. A disk that refuses before STAGED is tried again with growing pauses: ``TRIES`` times in some minutes, with a
    deadline ``TRIES_TO_DEADLINE`` times in some hours. Each try is reported with its reason; a restart begins anew.

Example::

    update, commands = step(Update(), Happened(Event.OFFERED, desired=desired), now=1_795_300_000)
    update.state, commands                          # OFFERED, (Command.REPORT, Command.EXAMINE)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeopt_agent.update.transitions import (
    FINAL,
    IGNORED,
    ON_ENTER,
    PREPARING,
    SWITCHED,
    TRANSITIONS,
    UNDER_WAY,
    Command,
    Event,
    State,
)
from edgeopt_contract.messages import Desired, Result

__all__ = [
    "FAILURE_LIMIT",
    "FINAL",
    "IGNORED",
    "MAX_ENTRIES",
    "MAX_STARTS",
    "ON_ENTER",
    "SLOTS",
    "TRANSITIONS",
    "TRIES",
    "TRIES_TO_DEADLINE",
    "UNDER_WAY",
    "Command",
    "Event",
    "Failure",
    "Happened",
    "State",
    "Update",
    "bake_fault",
    "is_let_in",
    "retry_pause_seconds",
    "step",
    "switch_wait_seconds",
    "why_not_back",
]

SLOTS = ("a", "b")
MAX_ENTRIES = 20  # the straight way enters 4 counted states; a restart while baking adds 2
MAX_STARTS = 5  # in a row, each cut off before a steady run
FAILURE_LIMIT = 3  # one may be the world's fault, three are not
TRIES = 7  # in all; the pauses between them are 315 s together
TRIES_TO_DEADLINE = 13  # 3.4 hours
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 3600.0
_FAILURES_KEPT = 16
_BAKE_MINIMUM_REQUESTS = 20
_BAKE_GREATEST_ERROR_SHARE = 0.5
_BAKE_CRASHES = 3  # in all, for a crash in between good answers is a crash still
_COUNTED = (State.VERIFYING, State.SELF_TEST, State.ACTIVATING, State.BAKING)


@dataclass(frozen=True, slots=True)
class Failure:
    """A bundle failed on this device under a job."""

    job: str
    bundle: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """All that is kept across a power cut.

    ``committed`` is the slot to which the device goes back whatever happens; ``fallback`` the slot that was committed
    before it, as long as nothing has overwritten it. ``pending`` is an offer that waits until the device has settled.
    ``failures`` are the latest on this device, newest last; ``starts`` counts those without a steady run since.
    """

    state: State = State.IDLE
    desired: Desired | None = None
    pending: Desired | None = None
    committed: str | None = None
    fallback: str | None = None
    switched: bool = False  # this update moved the pointer at some time
    settled: bool = False
    result: Result | None = None
    detail: str = ""
    entries: int = 0
    retries: int = 0  # since the disk began to refuse
    starts: int = 0
    failures: tuple[Failure, ...] = ()
    at: float = 0.0  # when the state was entered, seconds since 1970

    @property
    def job(self) -> str:
        """The job under way, or the last one; empty before the first."""
        return self.desired.job if self.desired else ""

    @property
    def target(self) -> str:
        """The slot that this update fills: the one that is not committed."""
        return SLOTS[1] if self.committed == SLOTS[0] else SLOTS[0]


@dataclass(frozen=True, slots=True)
class Happened:
    """An event with its facts.

    ``job`` names the job that it is about; events of another job are stale. ``desired`` comes with OFFERED,
    ``serving`` with SETTLED and RESTARTED: whether the committed bundle answers.
    """

    event: Event
    job: str = ""
    detail: str = ""
    desired: Desired | None = None
    serving: bool = True


def step(
    update: Update, happened: Happened, now: float, utc_offset_seconds: int = 0
) -> tuple[Update, tuple[Command, ...]]:
    """Return the next record and the commands to carry out once it is saved.

    ``now`` in seconds since 1970; ``utc_offset_seconds`` is what the device's zone adds to UTC at that time.
    """
    event = happened.event
    if event is Event.OFFERED:
        return _offer(update, happened, now)
    if (update.state, event) not in TRANSITIONS or (happened.job and happened.job != update.job):
        return update, ()
    if update.state in FINAL:
        return _rest(update, happened, now)
    happened = _judge(update, happened, now, utc_offset_seconds)
    if happened.event is Event.RESTARTED:
        return _restart(update, happened, now)
    entered, commands = _enter(update, happened, now)
    if entered.state is State.STAGED and entered.desired is not None:
        wait = switch_wait_seconds(entered.desired, now, utc_offset_seconds)
        entered = replace(entered, detail=f"waits {wait:.0f} s until it may switch") if wait else entered
    return entered, commands


def is_let_in(update: Update, desired: Desired, running: str | None) -> bool:
    """Say whether an offer needs no trust: it changes nothing by rule 3, or is what serves a device at rest."""
    if update.pending is not None and update.pending.job == desired.job:
        return True
    if update.job == desired.job and update.state is not State.SUPERSEDED:
        return True
    at_rest = update.state is State.IDLE or (update.state in FINAL and update.settled)
    return at_rest and desired.bundle == running


def retry_pause_seconds(retries: int) -> float:
    """Return how long to wait before the try number ``retries`` after the first one; 0 for the first."""
    return min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** (retries - 1)) if retries else 0.0


def switch_wait_seconds(desired: Desired, now: float, utc_offset_seconds: int) -> float:
    """Return how long a device must wait until it may switch: 0 inside the window and after ``not_before``."""
    wait = max(0.0, desired.not_before - now) if desired.not_before is not None else 0.0
    if desired.window is None:
        return wait
    return wait + desired.window.wait_seconds(now + wait, utc_offset_seconds)


def why_not_back(update: Update) -> str | None:
    """Say why this device cannot go back to the bundle before, or None when it can."""
    if update.state in SWITCHED:
        return None if update.committed is not None else "there is no bundle before the one that is being tried"
    if update.state in PREPARING:
        return f"{update.job} is {update.state} and has not switched: what serves is the bundle before it"
    return None if update.fallback is not None else "the bundle before is not on this device any more"


def bake_fault(requests: int, errors: int, crashes: int) -> str | None:
    """Say why a bundle that is baking is unhealthy, or None: ``errors`` of its ``requests`` failed so far."""
    if crashes >= _BAKE_CRASHES:
        return f"the runner crashed {crashes} times while baking"
    if requests >= _BAKE_MINIMUM_REQUESTS and errors > _BAKE_GREATEST_ERROR_SHARE * requests:
        return f"{errors} of {requests} requests failed while baking"
    return None


def _judge(update: Update, happened: Happened, now: float, utc_offset_seconds: int) -> Happened:
    """Return what the event comes to when the deadline, the window and earlier failures are looked at."""
    desired, event = update.desired, happened.event
    if desired is None or update.state not in PREPARING:
        return happened
    goes_on = event not in (Event.FAULT, Event.REFUSED, Event.WITHDRAWN, Event.ALREADY_RUNNING)
    if goes_on and desired.deadline is not None and desired.deadline < now:
        passed = f"the deadline passed {now - desired.deadline:.0f} s ago, while {update.state}"
        return Happened(Event.EXPIRED, detail=f"{passed}: {happened.detail}" if happened.detail else passed)
    if event is Event.DISK_REFUSED:
        return _try_again(update, desired, happened)
    if event is Event.ACCEPTED and (guard := _too_many_failures(update, desired)):
        return Happened(Event.REFUSED, detail=guard)
    if event is Event.PASSED and switch_wait_seconds(desired, now, utc_offset_seconds):
        return Happened(Event.CLOSED)
    return happened


def _try_again(update: Update, desired: Desired, happened: Happened) -> Happened:
    """Return the same event, with when it is tried again, or the fault that it is after so many tries."""
    tries = TRIES if desired.deadline is None else TRIES_TO_DEADLINE
    made = update.retries + 1
    if made >= tries:
        return Happened(Event.FAULT, detail=f"tried {tries} times: {happened.detail}")
    return replace(
        happened,
        detail=f"tried {made} of {tries} times, again in {retry_pause_seconds(made):.0f} s: {happened.detail}",
    )


def _too_many_failures(update: Update, desired: Desired) -> str | None:
    """Say why the offer would only fail again, or None."""
    failures = [failure for failure in update.failures if failure.bundle == desired.bundle]
    if len(failures) < FAILURE_LIMIT or desired.job not in {failure.job for failure in failures}:
        return None
    return (
        f"it failed on this device {len(failures)} times; offer it with a new job. The last time: {failures[-1].reason}"
    )


def _offer(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    desired = happened.desired
    at_rest = update.state in FINAL and update.settled
    if desired is None or (not at_rest and update.pending and update.pending.job == desired.job):
        return update, ()
    if update.job == desired.job and update.state is not State.SUPERSEDED:
        waited = update.pending is not None and update.pending.job == desired.job
        return (replace(update, pending=None) if waited else update), ()  # rule 3
    if update.state in FINAL and not at_rest:
        return replace(update, pending=desired), ()
    if update.state in UNDER_WAY:
        why = Happened(Event.OFFERED, detail=f"superseded by {desired.job}")
        return _enter(replace(update, pending=desired), why, now)
    fresh = Update(
        desired=desired,
        committed=update.committed,
        fallback=update.fallback,
        state=update.state,
        failures=update.failures,
    )
    return _enter(fresh, Happened(Event.OFFERED), now)


def _rest(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    """Step from a final state."""
    match happened.event:
        case Event.SETTLED:
            return _settle(update, happened, now)
        case Event.RESTARTED:
            return _restart(update, happened, now)
        case Event.STEADY:
            return replace(update, starts=0), ()
        case Event.SERVES:
            result = _result(update, serving=True)
            if not update.settled or update.result is result:
                return update, ()
            return replace(update, result=result, detail="it started at last", at=now), (Command.REPORT,)
        case _:  # FAULT or ORDERED_BACK
            return _enter(update, happened, now) if update.fallback is not None else (update, ())


def _settle(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    if update.settled:
        return update, ()
    if not happened.serving and update.fallback is not None:
        return _enter(update, Happened(Event.FAULT, detail=happened.detail or "it could not be started"), now)
    detail = "; ".join(part for part in (update.detail, happened.detail) if part)
    settled = replace(update, settled=True, result=_result(update, serving=happened.serving), detail=detail, at=now)
    return settled, (Command.REPORT, *_beside(update, serving=happened.serving), *_waiting(update))


def _restart(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    beside = _beside(update, serving=happened.serving)
    if update.settled and update.fallback is not None:
        starts = update.starts + 1
        if starts >= MAX_STARTS or not happened.serving:
            often = f"the agent was started {starts} times and never ran steadily"
            return _enter(update, Happened(Event.FAULT, detail=happened.detail or often), now)  # rule 6
        return replace(update, starts=starts), _waiting(update)
    if update.settled or update.state is State.IDLE:
        return update, (*beside, *_waiting(update))
    if update.state in _COUNTED and update.entries >= MAX_ENTRIES:
        reason = f"restarted too often while {update.state}"
        return _enter(update, Happened(Event.FAULT, detail=reason), now)  # rule 5
    entered, commands = _enter(update, Happened(Event.RESTARTED, detail=update.detail), now)
    return entered, (*beside, *commands) if entered.state not in FINAL else commands


def _beside(update: Update, *, serving: bool) -> tuple[Command, ...]:
    return () if serving or update.committed is None else (Command.SERVE,)


def _waiting(update: Update) -> tuple[Command, ...]:
    return (Command.TAKE_PENDING,) if update.pending else ()


def _enter(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    state = TRANSITIONS[update.state, happened.event]
    refused = happened.event is Event.DISK_REFUSED
    entered = replace(
        update,
        state=state,
        detail=happened.detail,
        entries=update.entries + (state in _COUNTED) - (refused and update.state in _COUNTED),  # no fault of its own
        retries=0 if happened.event is Event.RESTARTED else update.retries + refused,
        starts=0,
        failures=_failures(update, happened),
        settled=False,
        result=None,
        at=now,
    )
    if state is State.VERIFYING:
        entered = replace(entered, fallback=None)  # the spare slot is about to be overwritten
    elif state is State.STAGED:
        entered = replace(entered, retries=0)
    elif state is State.ACTIVATING:
        entered = replace(entered, switched=True)
    elif state is State.CONFIRMED and update.switched and update.state is not state:
        entered = replace(entered, committed=update.target, fallback=update.committed)
    elif state is State.ROLLED_BACK and update.state in FINAL and happened.event is not Event.RESTARTED:
        entered = replace(entered, committed=update.fallback, fallback=None, switched=True)
    report = (Command.REPORT,) if (state is not update.state or refused) and state not in FINAL else ()
    command = ON_ENTER[state]
    return entered, (*report, *((command,) if command else ()))


def _failures(update: Update, happened: Happened) -> tuple[Failure, ...]:
    """Return the failures with the one that happened; only a fault speaks against the bundle."""
    tried = update.state in UNDER_WAY or update.state is State.CONFIRMED  # else another bundle was offered than runs
    if happened.event is not Event.FAULT or update.desired is None or not tried:
        return update.failures
    failure = Failure(update.job, update.desired.bundle, happened.detail)
    return (*update.failures, failure)[-_FAILURES_KEPT:]


def _result(update: Update, *, serving: bool) -> Result:
    """Say what the device runs now that it has settled."""
    if not serving:
        return Result.RUNS_NOTHING
    if update.state is State.CONFIRMED:
        return Result.RUNS_NEW
    return Result.RUNS_OLD_RESTORED if update.switched else Result.RUNS_OLD_UNTOUCHED

"""The life cycle of one update on one device. Pure: no I/O, no clock, no threads.

Rules, all of them in the table and in :func:`step`:

1. A command follows from the state that is *entered*, so resuming after a power cut is entering the saved state once
   more. Every command may be carried out twice.
2. An event that does not belong to the state, or to the job under way, changes nothing.
3. The same job offered twice does nothing, unless it was superseded in between. A newer job supersedes one that is
   under way: first the device goes back to what it last committed to, then it takes the new offer.
4. Before ACTIVATING the committed slot serves and a failure leaves it untouched (FAILED, REJECTED). From ACTIVATING
   on a failure goes back to it (ROLLED_BACK). Only CONFIRMED commits.
5. An update that was cut off in ACTIVATING or BAKING starts ACTIVATING again: it is tested and baked from the
   beginning. After ``MAX_ENTRIES`` states entered since the download it leaves by the failure edge instead, for then
   the update itself may be what takes the device down. Restarts while downloading do not count.
6. A confirmed bundle whose runner cannot be kept alive falls back to the bundle before it, if that is still there.
7. A final state is reported when the device has *settled* in it, not before.
8. A withdrawn offer ends an update that has not switched yet; afterwards the device keeps what it runs.

Example::

    update, commands = step(Update(), Happened(Event.OFFERED, desired=desired), now=1_795_300_000)
    update.state, commands                          # OFFERED, (Command.REPORT, Command.EXAMINE)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from edgeopt_contract.messages import Desired, DeviceState, Result

__all__ = [
    "FINAL",
    "MAX_ENTRIES",
    "ON_ENTER",
    "SLOTS",
    "TRANSITIONS",
    "UNDER_WAY",
    "Command",
    "Event",
    "Happened",
    "State",
    "Update",
    "bake_fault",
    "step",
]

State = DeviceState

SLOTS = ("a", "b")
MAX_ENTRIES = 20  # the straight way enters 5 counted states; a restart while baking adds 2
_BAKE_MINIMUM_REQUESTS = 20
_BAKE_GREATEST_ERROR_SHARE = 0.5
_BAKE_CRASHES = 3  # in all, for a crash in between good answers is a crash still


class Event(StrEnum):
    """What happened, in the past tense."""

    OFFERED = "offered"  # a desired state with a good signature came
    WITHDRAWN = "withdrawn"  # the fleet desires nothing any more
    ACCEPTED = "accepted"
    ALREADY_RUNNING = "already_running"  # the offered bundle serves, and its self-test passed just now
    REFUSED = "refused"  # the offer can never succeed on this device
    FETCHED = "fetched"
    VERIFIED = "verified"
    LOADED = "loaded"
    PASSED = "passed"
    ACTIVATED = "activated"
    BAKED = "baked"
    FAULT = "fault"
    SETTLED = "settled"  # the command of a final state was carried out
    RESTARTED = "restarted"


class Command(StrEnum):
    """What the shell must do; safe to do twice."""

    REPORT = "report"  # number a report of this state, in the same transaction that saves it
    EXAMINE = "examine"  # does the offered bundle serve already?
    FETCH = "fetch"
    ASSEMBLE = "assemble"  # into the spare slot, and verify every byte
    LOAD = "load"  # start a second runner on the spare slot
    TEST = "test"  # golden inputs through the second runner
    SWITCH = "switch"  # move the pointer, let the new runner answer, test it once more
    WATCH = "watch"  # for the bake time
    COMMIT = "commit"  # stop what is not needed any more
    TAKE_PENDING = "take_pending"  # OFFERED happened with what waits in ``pending``
    RESTORE = "restore"  # pointer and runner back to the committed slot, if they ever left it


_PREPARING = (State.OFFERED, State.DOWNLOADING, State.VERIFYING, State.STAGED, State.SELF_TEST)
_SWITCHED = (State.ACTIVATING, State.BAKING)
FINAL = (State.CONFIRMED, State.FAILED, State.ROLLED_BACK, State.SUPERSEDED, State.REJECTED)
UNDER_WAY = (*_PREPARING, *_SWITCHED)
_COUNTED = (State.VERIFYING, State.STAGED, State.SELF_TEST, State.ACTIVATING, State.BAKING)

# Everything that decides where an update goes next.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.OFFERED): State.OFFERED,
    (State.IDLE, Event.RESTARTED): State.IDLE,
    # the straight way
    (State.OFFERED, Event.ACCEPTED): State.DOWNLOADING,
    (State.OFFERED, Event.ALREADY_RUNNING): State.CONFIRMED,
    (State.DOWNLOADING, Event.FETCHED): State.VERIFYING,
    (State.VERIFYING, Event.VERIFIED): State.STAGED,
    (State.STAGED, Event.LOADED): State.SELF_TEST,
    (State.SELF_TEST, Event.PASSED): State.ACTIVATING,
    (State.ACTIVATING, Event.ACTIVATED): State.BAKING,
    (State.BAKING, Event.BAKED): State.CONFIRMED,
    # it cannot be, or goes wrong
    (State.OFFERED, Event.REFUSED): State.REJECTED,
    (State.DOWNLOADING, Event.REFUSED): State.REJECTED,
    **{(state, Event.FAULT): State.FAILED for state in _PREPARING},
    **{(state, Event.FAULT): State.ROLLED_BACK for state in (*_SWITCHED, State.CONFIRMED)},
    # the fleet changes its mind
    **{(state, Event.OFFERED): State.SUPERSEDED for state in UNDER_WAY},
    **{(state, Event.WITHDRAWN): State.SUPERSEDED for state in _PREPARING},
    **{(state, Event.OFFERED): State.OFFERED for state in FINAL},
    **{(state, Event.SETTLED): state for state in FINAL},
    # power cuts
    (State.OFFERED, Event.RESTARTED): State.OFFERED,
    (State.DOWNLOADING, Event.RESTARTED): State.DOWNLOADING,
    (State.VERIFYING, Event.RESTARTED): State.DOWNLOADING,  # a block may have been damaged: ask for what is missing
    (State.STAGED, Event.RESTARTED): State.STAGED,
    (State.SELF_TEST, Event.RESTARTED): State.STAGED,  # the second runner is gone
    (State.ACTIVATING, Event.RESTARTED): State.ACTIVATING,
    (State.BAKING, Event.RESTARTED): State.ACTIVATING,
    **{(state, Event.RESTARTED): state for state in FINAL},
}

ON_ENTER: dict[State, Command | None] = {
    State.IDLE: None,
    State.OFFERED: Command.EXAMINE,
    State.DOWNLOADING: Command.FETCH,
    State.VERIFYING: Command.ASSEMBLE,
    State.STAGED: Command.LOAD,
    State.SELF_TEST: Command.TEST,
    State.ACTIVATING: Command.SWITCH,
    State.BAKING: Command.WATCH,
    State.CONFIRMED: Command.COMMIT,
    State.FAILED: Command.RESTORE,
    State.ROLLED_BACK: Command.RESTORE,
    State.SUPERSEDED: Command.RESTORE,
    State.REJECTED: Command.RESTORE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """All that is kept across a power cut.

    ``committed`` is the slot to which the device goes back whatever happens; ``fallback`` the slot that was committed
    before it, as long as nothing has overwritten it. ``pending`` is an offer that waits until the device has settled.
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
    ``serving`` with SETTLED: whether the committed bundle answers.
    """

    event: Event
    job: str = ""
    detail: str = ""
    desired: Desired | None = None
    serving: bool = True


def step(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    """Return the next record and the commands to carry out once it is saved; ``now`` in seconds since 1970."""
    event = happened.event
    if event is Event.OFFERED:
        return _offer(update, happened, now)
    if (update.state, event) not in TRANSITIONS or (happened.job and happened.job != update.job):
        return update, ()
    if event is Event.SETTLED:
        return _settle(update, happened, now)
    if event is Event.RESTARTED:
        return _restart(update, now)
    if event is Event.FAULT and update.state is State.CONFIRMED and update.fallback is None:
        return update, ()  # rule 6: there is nothing better; the supervisor goes on restarting it
    deadline = update.desired.deadline if update.desired else None
    if event is Event.ACCEPTED and deadline is not None and deadline < now:
        happened = Happened(Event.REFUSED, detail=f"the deadline passed {now - deadline:.0f} s ago")
    return _enter(update, happened, now)


def bake_fault(requests: int, errors: int, crashes: int) -> str | None:
    """Say why a bundle that is baking is unhealthy, or None: ``errors`` of its ``requests`` failed so far."""
    if crashes >= _BAKE_CRASHES:
        return f"the runner crashed {crashes} times while baking"
    if requests >= _BAKE_MINIMUM_REQUESTS and errors > _BAKE_GREATEST_ERROR_SHARE * requests:
        return f"{errors} of {requests} requests failed while baking"
    return None


def _offer(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    desired = happened.desired
    at_rest = update.state in FINAL and update.settled
    if desired is None or (not at_rest and update.pending and update.pending.job == desired.job):
        return update, ()
    if update.job == desired.job and update.state is not State.SUPERSEDED:
        return update, ()  # rule 3
    if update.state in FINAL and not at_rest:
        return replace(update, pending=desired), ()
    if update.state in UNDER_WAY:
        why = Happened(Event.OFFERED, detail=f"superseded by {desired.job}")
        return _enter(replace(update, pending=desired), why, now)
    fresh = Update(desired=desired, committed=update.committed, fallback=update.fallback, state=update.state)
    return _enter(fresh, Happened(Event.OFFERED), now)


def _settle(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    if update.settled:
        return update, ()
    detail = "; ".join(part for part in (update.detail, happened.detail) if part)
    settled = replace(update, settled=True, result=_result(update, serving=happened.serving), detail=detail, at=now)
    return settled, (Command.REPORT, *_waiting(update))


def _restart(update: Update, now: float) -> tuple[Update, tuple[Command, ...]]:
    if update.settled or update.state is State.IDLE:
        return update, _waiting(update)
    if update.state in _COUNTED and update.entries >= MAX_ENTRIES:
        reason = f"restarted too often while {update.state}"
        return _enter(update, Happened(Event.FAULT, detail=reason), now)  # rule 5
    return _enter(update, Happened(Event.RESTARTED, detail=update.detail), now)


def _waiting(update: Update) -> tuple[Command, ...]:
    return (Command.TAKE_PENDING,) if update.pending else ()


def _enter(update: Update, happened: Happened, now: float) -> tuple[Update, tuple[Command, ...]]:
    state = TRANSITIONS[update.state, happened.event]
    entered = replace(
        update,
        state=state,
        detail=happened.detail,
        entries=update.entries + (state in _COUNTED),
        settled=False,
        result=None,
        at=now,
    )
    if state is State.VERIFYING:
        entered = replace(entered, fallback=None)  # the spare slot is about to be overwritten
    elif state is State.ACTIVATING:
        entered = replace(entered, switched=True)
    elif state is State.CONFIRMED and update.switched and update.state is not state:
        entered = replace(entered, committed=update.target, fallback=update.committed)
    elif state is State.ROLLED_BACK and update.state is State.CONFIRMED:
        entered = replace(entered, committed=update.fallback, fallback=None, switched=True)
    report = (Command.REPORT,) if state is not update.state and state not in FINAL else ()
    command = ON_ENTER[state]
    return entered, (*report, *((command,) if command else ()))


def _result(update: Update, *, serving: bool) -> Result:
    """Say what the device runs now that it has settled."""
    if not serving:
        return Result.RUNS_NOTHING
    if update.state is State.CONFIRMED:
        return Result.RUNS_NEW
    return Result.RUNS_OLD_RESTORED if update.switched else Result.RUNS_OLD_UNTOUCHED

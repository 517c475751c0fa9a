"""The table of one update's life on one device: states, events, commands, and which event leads where.

It only lists; :mod:`edgeopt_agent.update.lifecycle` holds the rules and steps through it. The diagram in
docs/states.md is generated from it. Example::

    TRANSITIONS[State.OFFERED, Event.ACCEPTED]      # State.DOWNLOADING
    ON_ENTER[State.DOWNLOADING]                     # Command.FETCH
"""

from __future__ import annotations

from enum import StrEnum

from edgeopt_contract.messages import DeviceState

__all__ = [
    "FINAL",
    "IGNORED",
    "ON_ENTER",
    "PREPARING",
    "STATES",
    "SWITCHED",
    "TRANSITIONS",
    "UNDER_WAY",
    "Command",
    "Event",
    "State",
]

State = DeviceState
STATES = tuple(state for state in State if state not in (State.SHADOWING, State.DONE))  # those two are not an update's


class Event(StrEnum):
    """What happened, in the past tense."""

    OFFERED = "offered"  # a desired state came, and is trusted
    WITHDRAWN = "withdrawn"  # the fleet desires nothing any more
    ACCEPTED = "accepted"
    ALREADY_RUNNING = "already_running"  # the offered bundle serves, and its self-test passed just now
    REFUSED = "refused"  # the offer can never succeed on this device
    FETCHED = "fetched"
    VERIFIED = "verified"
    OPENED = "opened"  # the window is open, and it is not too early
    CLOSED = "closed"  # the window closed during the self-test
    EXPIRED = "expired"  # the deadline passed
    DISK_REFUSED = "disk_refused"  # it may be better later: space may become free
    UNSUITABLE = "unsuitable"  # the variant does not run on this board; the bundle has another
    PASSED = "passed"
    ACTIVATED = "activated"
    BAKED = "baked"
    FAULT = "fault"
    ORDERED_BACK = "ordered_back"  # somebody at the device wants the bundle before
    SETTLED = "settled"  # the command of a final state was carried out
    SERVES = "serves"  # the committed bundle, which did not start before, answers
    STEADY = "steady"  # the agent has run for a while, or ends because it was told to
    RESTARTED = "restarted"


class Command(StrEnum):
    """What the shell must do; safe to do twice."""

    REPORT = "report"  # number a report of this state, in the same transaction that saves it
    EXAMINE = "examine"  # does the offered bundle serve already, and is it trusted still?
    FETCH = "fetch"
    ASSEMBLE = "assemble"  # into the spare slot, and verify every byte
    AWAIT = "await"  # until switch_wait_seconds() is 0, but not past the deadline
    TEST = "test"  # start a second runner on the spare slot, and give it the golden inputs
    SWITCH = "switch"  # move the pointer, let the new runner answer, test it once more
    WATCH = "watch"  # for the bake time
    COMMIT = "commit"  # stop what is not needed any more
    TAKE_PENDING = "take_pending"  # OFFERED happened with what waits in ``pending``
    RESTORE = "restore"  # pointer and runner back to the committed slot, if they ever left it
    SERVE = "serve"  # beside all else: try to start the committed bundle, with growing pauses, until it answers


PREPARING = (State.OFFERED, State.DOWNLOADING, State.VERIFYING, State.STAGED, State.SELF_TEST)
SWITCHED = (State.ACTIVATING, State.BAKING)
FINAL = (State.CONFIRMED, State.FAILED, State.ROLLED_BACK, State.SUPERSEDED, State.REJECTED)
UNDER_WAY = (*PREPARING, *SWITCHED)

# Everything that decides where an update goes next.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.OFFERED): State.OFFERED,
    (State.IDLE, Event.RESTARTED): State.IDLE,
    # the straight way
    (State.OFFERED, Event.ACCEPTED): State.DOWNLOADING,
    (State.OFFERED, Event.ALREADY_RUNNING): State.CONFIRMED,
    (State.DOWNLOADING, Event.FETCHED): State.VERIFYING,
    (State.VERIFYING, Event.VERIFIED): State.STAGED,
    (State.STAGED, Event.OPENED): State.SELF_TEST,
    (State.SELF_TEST, Event.PASSED): State.ACTIVATING,
    (State.SELF_TEST, Event.CLOSED): State.STAGED,
    (State.SELF_TEST, Event.UNSUITABLE): State.DOWNLOADING,
    (State.ACTIVATING, Event.ACTIVATED): State.BAKING,
    (State.BAKING, Event.BAKED): State.CONFIRMED,
    # it cannot be, or goes wrong
    (State.OFFERED, Event.REFUSED): State.REJECTED,
    (State.DOWNLOADING, Event.REFUSED): State.REJECTED,
    (State.OFFERED, Event.EXPIRED): State.REJECTED,
    **{(state, Event.EXPIRED): State.FAILED for state in PREPARING if state is not State.OFFERED},
    **{(state, Event.FAULT): State.FAILED for state in PREPARING},
    **{(state, Event.FAULT): State.ROLLED_BACK for state in (*SWITCHED, *FINAL)},
    **{(state, Event.ORDERED_BACK): State.ROLLED_BACK for state in (*SWITCHED, *FINAL)},
    # the disk refuses for a while
    (State.OFFERED, Event.DISK_REFUSED): State.OFFERED,
    (State.DOWNLOADING, Event.DISK_REFUSED): State.DOWNLOADING,
    (State.VERIFYING, Event.DISK_REFUSED): State.DOWNLOADING,  # ask for what is missing now
    # the fleet changes its mind
    **{(state, Event.OFFERED): State.SUPERSEDED for state in UNDER_WAY},
    **{(state, Event.WITHDRAWN): State.SUPERSEDED for state in PREPARING},
    **{(state, Event.OFFERED): State.OFFERED for state in FINAL},
    **{(state, Event.SETTLED): state for state in FINAL},
    **{(state, Event.SERVES): state for state in FINAL},
    **{(state, Event.STEADY): state for state in FINAL},
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


def _but(*states: State) -> tuple[State, ...]:
    return tuple(state for state in STATES if state not in states)


# The pairs that change nothing, on purpose; with the table they are all pairs that there are, and a test counts them.
IGNORED: dict[Event, tuple[State, ...]] = {
    Event.WITHDRAWN: _but(*PREPARING),  # what has switched or ended stays as it is
    # late answers: the update has gone on to another state
    Event.ACCEPTED: _but(State.OFFERED),
    Event.ALREADY_RUNNING: _but(State.OFFERED),
    Event.REFUSED: _but(State.OFFERED, State.DOWNLOADING),
    Event.FETCHED: _but(State.DOWNLOADING),
    Event.VERIFIED: _but(State.VERIFYING),
    Event.OPENED: _but(State.STAGED),
    Event.CLOSED: _but(State.SELF_TEST),
    Event.EXPIRED: _but(*PREPARING),
    Event.DISK_REFUSED: _but(State.OFFERED, State.DOWNLOADING, State.VERIFYING),  # elsewhere it is a fault
    Event.UNSUITABLE: _but(State.SELF_TEST),
    Event.PASSED: _but(State.SELF_TEST),
    Event.ACTIVATED: _but(State.ACTIVATING),
    Event.BAKED: _but(State.BAKING),
    Event.SETTLED: _but(*FINAL),
    Event.FAULT: (State.IDLE,),  # nothing was ever committed that could be left
    Event.ORDERED_BACK: (State.IDLE, *PREPARING),  # what serves is untouched by this update
    # an update under way says by itself what came of it
    Event.SERVES: _but(*FINAL),
    Event.STEADY: _but(*FINAL),
}

ON_ENTER: dict[State, Command | None] = {
    State.IDLE: None,
    State.OFFERED: Command.EXAMINE,
    State.DOWNLOADING: Command.FETCH,
    State.VERIFYING: Command.ASSEMBLE,
    State.STAGED: Command.AWAIT,
    State.SELF_TEST: Command.TEST,
    State.ACTIVATING: Command.SWITCH,
    State.BAKING: Command.WATCH,
    State.CONFIRMED: Command.COMMIT,
    State.FAILED: Command.RESTORE,
    State.ROLLED_BACK: Command.RESTORE,
    State.SUPERSEDED: Command.RESTORE,
    State.REJECTED: Command.RESTORE,
}

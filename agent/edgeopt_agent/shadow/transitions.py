"""The table of one shadow's life on one device: states, events, commands, and which event leads where.

It only lists; :mod:`edgeopt_agent.shadow.lifecycle` holds the rules and steps through it. The diagram in docs/states.md
is generated from it. Example::

    TRANSITIONS[State.SELF_TEST, Event.PASSED]      # State.SHADOWING
    ON_ENTER[State.SHADOWING]                       # Command.RUN
"""

from __future__ import annotations

from enum import StrEnum

from edgeopt_contract.messages import DeviceState

__all__ = ["FINAL", "IGNORED", "ON_ENTER", "STATES", "TRANSITIONS", "UNDER_WAY", "Command", "Event", "State"]

State = DeviceState


class Event(StrEnum):
    """What happened, in the past tense."""

    OFFERED = "offered"
    WITHDRAWN = "withdrawn"  # the fleet wants no shadow any more
    ACCEPTED = "accepted"  # it is trusted, and something serves that it can be compared with
    REFUSED = "refused"  # it can never run on this device
    FETCHED = "fetched"
    VERIFIED = "verified"
    PASSED = "passed"
    DISK_REFUSED = "disk_refused"  # it may be better later
    FAULT = "fault"
    OVERTAKEN = "overtaken"  # another bundle serves than the one that it is compared with
    EXPIRED = "expired"  # its time is over
    PAUSED = "paused"  # there is no room for it now
    RESUMED = "resumed"
    STEADY = "steady"  # the agent has run with it for a while, or ends because it was told to
    SETTLED = "settled"  # the command of a final state was carried out
    RESTARTED = "restarted"


class Command(StrEnum):
    """What the shell must do; safe to do twice."""

    REPORT = "report"  # number a report of this state, in the same transaction that saves it
    EXAMINE = "examine"  # may it run here?
    FETCH = "fetch"
    ASSEMBLE = "assemble"  # into its own place, and verify every byte
    TEST = "test"  # start its runner, and give it the golden inputs
    RUN = "run"  # start its runner if there is none, and let it see what is answered
    END = "end"  # its runner, and all that it has on the disk
    TAKE_PENDING = "take_pending"  # OFFERED happened with what waits in ``pending``


UNDER_WAY = (State.OFFERED, State.DOWNLOADING, State.VERIFYING, State.SELF_TEST, State.SHADOWING)
FINAL = (State.DONE, State.FAILED, State.REJECTED, State.SUPERSEDED)
STATES = (State.IDLE, *UNDER_WAY, *FINAL)
_READY = (State.SELF_TEST, State.SHADOWING)

# Everything that decides where a shadow goes next.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.IDLE, Event.OFFERED): State.OFFERED,
    (State.IDLE, Event.RESTARTED): State.IDLE,
    # the straight way
    (State.OFFERED, Event.ACCEPTED): State.DOWNLOADING,
    (State.DOWNLOADING, Event.FETCHED): State.VERIFYING,
    (State.VERIFYING, Event.VERIFIED): State.SELF_TEST,
    (State.SELF_TEST, Event.PASSED): State.SHADOWING,
    (State.SHADOWING, Event.EXPIRED): State.DONE,
    (State.SHADOWING, Event.PAUSED): State.SHADOWING,
    (State.SHADOWING, Event.RESUMED): State.SHADOWING,
    (State.SHADOWING, Event.STEADY): State.SHADOWING,
    # it cannot be, or goes wrong
    (State.OFFERED, Event.REFUSED): State.REJECTED,
    (State.DOWNLOADING, Event.REFUSED): State.REJECTED,
    (State.SELF_TEST, Event.REFUSED): State.REJECTED,
    (State.OFFERED, Event.EXPIRED): State.REJECTED,
    **{(state, Event.EXPIRED): State.FAILED for state in (State.DOWNLOADING, State.VERIFYING, State.SELF_TEST)},
    **{(state, Event.FAULT): State.FAILED for state in UNDER_WAY},
    # the disk refuses for a while
    (State.OFFERED, Event.DISK_REFUSED): State.OFFERED,
    (State.DOWNLOADING, Event.DISK_REFUSED): State.DOWNLOADING,
    (State.VERIFYING, Event.DISK_REFUSED): State.DOWNLOADING,  # ask for what is missing now
    # the world changes its mind
    **{(state, Event.OFFERED): State.SUPERSEDED for state in UNDER_WAY},
    **{(state, Event.WITHDRAWN): State.SUPERSEDED for state in UNDER_WAY},
    **{(state, Event.OVERTAKEN): State.SUPERSEDED for state in _READY},
    **{(state, Event.OFFERED): State.OFFERED for state in FINAL},
    **{(state, Event.SETTLED): state for state in FINAL},
    # power cuts
    (State.OFFERED, Event.RESTARTED): State.OFFERED,
    (State.DOWNLOADING, Event.RESTARTED): State.DOWNLOADING,
    (State.VERIFYING, Event.RESTARTED): State.DOWNLOADING,  # a block may have been damaged: ask for what is missing
    (State.SELF_TEST, Event.RESTARTED): State.SELF_TEST,
    (State.SHADOWING, Event.RESTARTED): State.SHADOWING,  # its runner is started and tested again
    **{(state, Event.RESTARTED): state for state in FINAL},
}


def _but(*states: State) -> tuple[State, ...]:
    return tuple(state for state in STATES if state not in states)


# The pairs that change nothing, on purpose; with the table they are all pairs that there are, and a test counts them.
IGNORED: dict[Event, tuple[State, ...]] = {
    Event.WITHDRAWN: _but(*UNDER_WAY),
    Event.ACCEPTED: _but(State.OFFERED),
    Event.REFUSED: _but(State.OFFERED, State.DOWNLOADING, State.SELF_TEST),
    Event.FETCHED: _but(State.DOWNLOADING),
    Event.VERIFIED: _but(State.VERIFYING),
    Event.PASSED: _but(State.SELF_TEST),
    Event.DISK_REFUSED: _but(State.OFFERED, State.DOWNLOADING, State.VERIFYING),  # elsewhere it is a fault
    Event.FAULT: _but(*UNDER_WAY),
    Event.OVERTAKEN: _but(*_READY),  # what has counted nothing yet is compared with whatever serves then
    Event.EXPIRED: _but(*UNDER_WAY),
    **{event: _but(State.SHADOWING) for event in (Event.PAUSED, Event.RESUMED, Event.STEADY)},
    Event.SETTLED: _but(*FINAL),
}

ON_ENTER: dict[State, Command | None] = {
    State.IDLE: None,
    State.OFFERED: Command.EXAMINE,
    State.DOWNLOADING: Command.FETCH,
    State.VERIFYING: Command.ASSEMBLE,
    State.SELF_TEST: Command.TEST,
    State.SHADOWING: Command.RUN,
    **dict.fromkeys(FINAL, Command.END),
}

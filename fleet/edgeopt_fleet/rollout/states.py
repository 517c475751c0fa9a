"""Where a rollout can be, and every rule about where it goes next.

A table and its words, nothing else. :func:`edgeopt_fleet.rollout.step` follows it; docs/states.md is drawn from it.
Example::

    TRANSITIONS[State.RUNNING, Event.PAUSED]      # State.PAUSED
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ACTIVE", "TRANSITIONS", "Command", "Event", "IllegalTransitionError", "State"]


class State(StrEnum):
    """Where a rollout is."""

    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    OBSERVING = "observing"  # both arms are where they should be, and are watched before they are compared
    SUCCEEDED = "succeeded"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What happened to a rollout: by people, by the clock, by the gate, or by the devices."""

    SUBMITTED = "submitted"
    APPROVED = "approved"
    DENIED = "denied"
    SCHEDULED = "scheduled"
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    ROLL_BACK_ORDERED = "roll_back_ordered"
    WAVE_PASSED = "wave_passed"
    LAST_WAVE_PASSED = "last_wave_passed"
    PLACED = "placed"  # the last wave passed, and two arms are to be observed
    OBSERVED = "observed"
    WAVE_TIMED_OUT = "wave_timed_out"
    TIMED_OUT = "timed_out"
    WAVE_FAILED = "wave_failed"
    TOO_MANY_FAILED = "too_many_failed"
    SUPERSEDED = "superseded"
    RECALLED = "recalled"


class Command(StrEnum):
    """What the shell must do in the transaction that saves a state."""

    CLAIM = "claim"  # rollouts of lower priority offer nothing any more to these devices
    EXPOSE_WAVE = "expose_wave"  # remember what every device has served so far: the gate compares against it
    WITHDRAW_ALL = "withdraw_all"  # every exposed device goes back
    WITHDRAW_ARM = "withdraw_arm"  # every exposed device of the arm at fault goes back, unconfirmed ones of the other
    WITHDRAW_UNCONFIRMED = "withdraw_unconfirmed"  # every exposed device goes back, but for confirmed ones
    RELEASE = "release"  # the rollout holds its devices no longer


# Every rule about where a rollout goes next is in this table.
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.DRAFT, Event.SUBMITTED): State.AWAITING_APPROVAL,
    (State.DRAFT, Event.SCHEDULED): State.SCHEDULED,
    (State.DRAFT, Event.STARTED): State.RUNNING,
    (State.DRAFT, Event.CANCELLED): State.CANCELLED,
    (State.AWAITING_APPROVAL, Event.APPROVED): State.SCHEDULED,
    (State.AWAITING_APPROVAL, Event.DENIED): State.CANCELLED,
    (State.AWAITING_APPROVAL, Event.CANCELLED): State.CANCELLED,
    (State.SCHEDULED, Event.STARTED): State.RUNNING,
    (State.SCHEDULED, Event.CANCELLED): State.CANCELLED,
    (State.RUNNING, Event.PAUSED): State.PAUSED,
    (State.RUNNING, Event.CANCELLED): State.CANCELLED,
    (State.RUNNING, Event.ROLL_BACK_ORDERED): State.ROLLING_BACK,
    (State.RUNNING, Event.WAVE_PASSED): State.RUNNING,
    (State.RUNNING, Event.LAST_WAVE_PASSED): State.SUCCEEDED,
    (State.RUNNING, Event.PLACED): State.OBSERVING,
    (State.RUNNING, Event.WAVE_TIMED_OUT): State.PAUSED,
    (State.RUNNING, Event.TIMED_OUT): State.CANCELLED,
    (State.RUNNING, Event.WAVE_FAILED): State.ROLLING_BACK,
    (State.RUNNING, Event.TOO_MANY_FAILED): State.ROLLING_BACK,
    (State.RUNNING, Event.SUPERSEDED): State.CANCELLED,
    (State.PAUSED, Event.RESUMED): State.RUNNING,
    (State.PAUSED, Event.CANCELLED): State.CANCELLED,
    (State.PAUSED, Event.ROLL_BACK_ORDERED): State.ROLLING_BACK,
    (State.PAUSED, Event.TIMED_OUT): State.CANCELLED,
    (State.PAUSED, Event.WAVE_FAILED): State.ROLLING_BACK,
    (State.PAUSED, Event.TOO_MANY_FAILED): State.ROLLING_BACK,
    (State.PAUSED, Event.SUPERSEDED): State.CANCELLED,
    (State.OBSERVING, Event.CANCELLED): State.CANCELLED,
    (State.OBSERVING, Event.ROLL_BACK_ORDERED): State.ROLLING_BACK,
    (State.OBSERVING, Event.OBSERVED): State.SUCCEEDED,
    (State.OBSERVING, Event.TIMED_OUT): State.CANCELLED,
    (State.OBSERVING, Event.WAVE_FAILED): State.ROLLING_BACK,
    (State.OBSERVING, Event.TOO_MANY_FAILED): State.ROLLING_BACK,
    (State.OBSERVING, Event.SUPERSEDED): State.CANCELLED,
    (State.ROLLING_BACK, Event.RECALLED): State.ROLLED_BACK,
}

ACTIVE = frozenset(state for state, _ in TRANSITIONS)  # the others are final


class IllegalTransitionError(Exception):
    """The event does not belong to the state; the record is unchanged."""

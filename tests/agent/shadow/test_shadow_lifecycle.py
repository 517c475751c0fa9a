"""The life cycle of a shadow: the table is total, its rules hold for every history of events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.shadow.lifecycle import Happened, Trial, step
from edgeopt_agent.shadow.transitions import (
    FINAL,
    IGNORED,
    ON_ENTER,
    STATES,
    TRANSITIONS,
    UNDER_WAY,
    Command,
    Event,
    State,
)
from edgeopt_agent.update.lifecycle import MAX_STARTS, TRIES
from edgeopt_contract.messages import Shadow

NOW = 1_795_300_000.0
_STRAIGHT = (Event.ACCEPTED, Event.FETCHED, Event.VERIFIED, Event.PASSED)


def order(job: str = "s-1", bundle: str = "a") -> Shadow:
    """An order."""
    return Shadow(job=job, bundle=bundle * 64, share=0.5, until=1_795_400_000)


def after(*events: Event | Happened, trial: Trial | None = None) -> tuple[Trial, list[Command]]:
    """Return what the events lead to from an offer on, and all commands."""
    trial, commands = step(trial or Trial(), Happened(event=Event.OFFERED, order=order()), NOW)
    given_out = list(commands)
    for event in events:
        happened = event if isinstance(event, Happened) else Happened(event=event)
        trial, commands = step(trial, happened, NOW)
        given_out += commands
    return trial, given_out


def test_every_pair_of_state_and_event_is_listed_or_ignored_on_purpose() -> None:
    """Nothing is ignored by accident."""
    ignored = {(state, event) for event, states in IGNORED.items() for state in states}
    assert not ignored & set(TRANSITIONS)
    assert {(state, event) for state in STATES for event in Event} == ignored | set(TRANSITIONS)
    assert set(STATES) == set(ON_ENTER)


def test_no_state_is_a_trap_and_none_out_of_reach() -> None:
    """From everywhere there is a way to an end, by its time at the latest; from nowhere a way to a state of updates."""
    assert {TRANSITIONS[state, Event.EXPIRED] for state in UNDER_WAY} <= set(FINAL)
    assert set(TRANSITIONS.values()) == set(STATES)
    reached = {State.IDLE}
    while more := {end for (start, _), end in TRANSITIONS.items() if start in reached} - reached:
        reached |= more
    assert set(STATES) == reached


def test_straight_way_reports_each_state_once_and_ends_with_nothing_left() -> None:
    """The last report comes when END was carried out."""
    trial, commands = after(*_STRAIGHT, Event.EXPIRED)
    assert (State.DONE, False) == (trial.state, trial.settled)
    assert 5 == commands.count(Command.REPORT)
    assert Command.END is commands[-1]
    settled, commands = step(trial, Happened(event=Event.SETTLED), NOW)
    assert (True, (Command.REPORT,)) == (settled.settled, commands)
    assert (settled, ()) == step(settled, Happened(event=Event.SETTLED), NOW)


@pytest.mark.parametrize("count", range(5))
def test_another_job_begins_when_the_first_has_settled(count: int) -> None:
    """From every state under way: superseded, ended, and only then taken up."""
    trial, _ = after(*_STRAIGHT[:count])
    trial, commands = step(trial, Happened(event=Event.OFFERED, order=order("s-2")), NOW)
    assert (State.SUPERSEDED, (Command.END,), "s-2") == (trial.state, commands, trial.pending and trial.pending.job)
    trial, commands = step(trial, Happened(event=Event.SETTLED), NOW)
    assert (Command.REPORT, Command.TAKE_PENDING) == commands
    trial, commands = step(trial, Happened(event=Event.OFFERED, order=trial.pending), NOW)
    assert (State.OFFERED, "s-2", None, "") == (trial.state, trial.job, trial.pending, trial.champion)
    assert (Command.REPORT, Command.EXAMINE) == commands


def test_same_job_offered_again_changes_nothing() -> None:
    """The order is retained: it comes again after every connection, also when the shadow has ended."""
    for events in ((), _STRAIGHT, (*_STRAIGHT, Event.EXPIRED, Event.SETTLED)):
        trial, _ = after(*events)
        assert (trial, ()) == step(trial, Happened(event=Event.OFFERED, order=order()), NOW)


def test_order_taken_back_before_it_began_is_forgotten() -> None:
    """What waited for the end of another shadow is withdrawn with it."""
    trial, _ = after(Event.ACCEPTED)
    trial, _ = step(trial, Happened(event=Event.OFFERED, order=order("s-2")), NOW)
    trial, _ = step(trial, Happened(event=Event.WITHDRAWN), NOW)
    trial, commands = step(trial, Happened(event=Event.SETTLED), NOW)
    assert (Command.REPORT,) == commands


def test_restart_goes_on_with_the_same_champion() -> None:
    """A shadow that was cut off starts its runner again; what it is compared with is remembered."""
    trial, _ = after(*_STRAIGHT[:3], Happened(event=Event.PASSED, champion="c" * 64))
    again, commands = step(trial, Happened(event=Event.RESTARTED), NOW + 60)
    assert (State.SHADOWING, "c" * 64, 1) == (again.state, again.champion, again.starts)
    assert (Command.RUN,) == commands
    assert 0 == step(again, Happened(event=Event.STEADY), NOW)[0].starts


def test_shadow_that_takes_the_device_down_fails() -> None:
    """So many starts without a steady run in between are too many."""
    trial, _ = after(*_STRAIGHT)
    for _ in range(MAX_STARTS):
        assert State.SHADOWING is trial.state
        trial, commands = step(trial, Happened(event=Event.RESTARTED), NOW)
    assert (State.FAILED, (Command.END,)) == (trial.state, commands)


def test_disk_that_refuses_is_tried_again_and_not_for_ever() -> None:
    """Each try is reported; then it has failed."""
    trial, _ = after(Event.ACCEPTED)
    for _ in range(TRIES - 1):
        trial, commands = step(trial, Happened(event=Event.DISK_REFUSED, detail="full"), NOW)
        assert (Command.REPORT, Command.FETCH) == commands
    trial, _ = step(trial, Happened(event=Event.DISK_REFUSED, detail="full"), NOW)
    assert (State.FAILED, f"tried {TRIES} times: full") == (trial.state, trial.detail)


def test_stale_answer_changes_nothing() -> None:
    """What belongs to another job, or to a state that was left."""
    trial, _ = after(*_STRAIGHT)
    for happened in (Happened(event=Event.FAULT, job="other"), Happened(event=Event.FETCHED)):
        assert (trial, ()) == step(trial, happened, NOW)


EVENTS = st.one_of(
    st.sampled_from([event for event in Event if event is not Event.OFFERED]).map(lambda e: Happened(event=e)),
    st.sampled_from(["s-1", "s-2", "s-3"]).map(lambda job: Happened(event=Event.OFFERED, order=order(job))),
)


@given(allowed=st.sets(st.integers(0, 5)), events=st.lists(EVENTS, max_size=60))
def test_whatever_happens_the_record_makes_sense(allowed: set[int], events: list[Happened]) -> None:
    """Entering is resuming; a job has an order; a pending order waits for an end; settled states keep nothing."""
    trial = Trial()
    for index, happened in enumerate(events):
        if index % 6 in allowed:
            continue
        before = trial
        trial, commands = step(trial, happened, NOW + index)
        assert trial.state in STATES
        assert (trial.order is None) == (trial.state is State.IDLE)
        if before.state in FINAL and not before.settled and happened.event is not Event.SETTLED:
            assert trial.state is before.state
        if trial.pending is not None:
            assert trial.state in FINAL
        if trial.state is not before.state:
            assert ON_ENTER[trial.state] in commands
        assert replace(trial, at=0.0).job == trial.job

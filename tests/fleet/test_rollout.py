from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeopt_contract.messages import DeviceState, Result
from edgeopt_contract.windows import Window
from edgeopt_fleet.gate import Criterion, Decision, Outcome, Policy, Reason, Verdict
from edgeopt_fleet.rollout import (
    ACTIVE,
    TRANSITIONS,
    Command,
    Event,
    IllegalTransitionError,
    Rollout,
    Sighting,
    State,
    Wanted,
    create,
    desired,
    event_of,
    excuse,
    is_settled,
    is_waiting,
    observe,
    step,
)

OLD, NEW = "0" * 64, "1" * 64
DEVICES = [f"cam-{number}" for number in range(5)]
CONFIRMED, FAILED = DeviceState.CONFIRMED, DeviceState.FAILED


def draft(previous: str | None = OLD, waves: tuple[int, ...] = (20, 50, 100)) -> Rollout:
    """Return a draft over five devices that run ``previous``."""
    empty = Rollout(name="v2", bundle=NEW, cohort="all", waves=waves, policy=Policy(), created_at=1.0, updated_at=1.0)
    return create(empty, dict.fromkeys(DEVICES, previous))


def running(previous: str | None = OLD) -> Rollout:
    """Return a rollout whose first wave is exposed."""
    return step(draft(previous), Event.STARTED, 2.0)[0]


def canary(record: Rollout) -> str:
    """Return the one device of the first wave."""
    return next(member.device for member in record.members.values() if member.wave == 0)


def report(record: Rollout, device: str, state: DeviceState, runs: str | None, attempt: int = 1) -> Rollout:
    """Return ``record`` after ``device`` reported ``state`` of its ``attempt``-th job."""
    seen = Sighting(online=True, running=runs, job=f"v2.{attempt}.{device}", state=state)
    return observe(record, {device: seen})


def verdict(decision: Decision, *, timed_out: bool = False) -> Verdict:
    """Return a verdict with some reason."""
    return Verdict(decision, (Reason(Criterion.ROWS, "because"),), timed_out=timed_out)


NIGHT = Window(start="02:00", end="04:00")


def at_night(**changes: object) -> Rollout:
    """Return a rollout whose first wave is exposed at 2 s and may switch at night only."""
    policy = replace(Policy(window=NIGHT, step_timeout_seconds=600.0), **changes)
    return step(replace(draft(), policy=policy), Event.STARTED, 2.0)[0]


def test_devices_are_told_the_window_on_the_way_there_only() -> None:
    """The update waits for the night; the way back does not."""
    record = at_night(not_before=500)
    device = canary(record)
    there = Wanted(job=f"v2.1.{device}", bundle=NEW, not_before=500, window=NIGHT)
    assert {device: there} == desired(record)
    record, _ = step(record, Event.ROLL_BACK_ORDERED, 3.0)
    assert {device: Wanted(job=f"v2.2.{device}", bundle=OLD)} == desired(record)


def test_a_device_that_waits_for_its_window_is_not_late() -> None:
    """The timeout begins again while it waits, at most once a minute, and runs on once it goes on."""
    record = at_night()
    device = canary(record)
    waiting = report(record, device, DeviceState.STAGED, OLD)
    assert is_waiting(waiting, waiting.members[device])
    assert waiting == excuse(waiting, 50.0)
    excused = excuse(waiting, 70_000.0)
    assert (70_000.0, 2.0) == (excused.step_started_at, excused.wave_started_at)
    testing = report(excused, device, DeviceState.BAKING, OLD)
    assert testing == excuse(testing, 70_900.0)


@pytest.mark.parametrize("state", [DeviceState.DOWNLOADING, DeviceState.SELF_TEST, DeviceState.OFFERED])
def test_only_waiting_is_excused(state: DeviceState) -> None:
    """A device that hangs in a download is late, window or not."""
    record = at_night()
    silent = report(record, canary(record), state, OLD)
    assert silent == excuse(silent, 9000.0)


def test_nobody_waits_for_longer_than_a_window_is_closed() -> None:
    """A device that says for ever that it waits is late in the end; so is one that has no window to wait for."""
    record = at_night(not_before=1000)
    device = canary(record)
    waiting = report(record, device, DeviceState.STAGED, OLD)
    end = 1000 + 22 * 3600
    assert end == excuse(waiting, end).step_started_at
    assert waiting == excuse(waiting, end + 1)
    free = report(running(), device, DeviceState.STAGED, OLD)
    assert free == excuse(free, 5000.0)


def test_why_a_device_failed_stays_known() -> None:
    """The first reason is kept when the device is sent back, and when it reports other things."""
    record = running()
    device = canary(record)
    seen = Sighting(online=True, running=OLD, job=f"v2.1.{device}", state=FAILED, detail="disk full")
    record = observe(record, {device: seen})
    record, _ = step(record, Event.WAVE_FAILED, 3.0)
    record = report(record, device, CONFIRMED, OLD, attempt=2)
    assert ("", "disk full", True) == (
        record.members[device].detail,
        record.members[device].failure,
        record.members[device].returned,
    )


def test_a_draft_wants_nothing() -> None:
    """Nobody is exposed before the start."""
    assert {} == desired(draft())


def test_start_exposes_the_first_wave_only() -> None:
    """The canary is offered the bundle under a job id that follows from the record."""
    record, commands = step(draft(), Event.STARTED, 2.0)
    device = canary(record)
    assert {device: Wanted(job=f"v2.1.{device}", bundle=NEW)} == desired(record)
    assert (Command.EXPOSE_WAVE, Command.PUBLISH) == commands
    assert (0, 2.0, 2.0) == (record.wave, record.wave_started_at, record.step_started_at)


def test_waves_follow_each_other_to_success() -> None:
    """Each passed wave exposes the next; the last one ends the rollout."""
    record = running()
    exposed = []
    for _ in range(3):
        exposed.append(len(desired(record)))
        event = event_of(record, verdict(Decision.PROMOTE))
        assert event is not None
        record, _ = step(record, event, 3.0)
    assert [1, 3, 5] == exposed
    assert State.SUCCEEDED == record.state


def test_success_that_is_not_hawkbit_3185() -> None:
    """A device that calls itself confirmed but runs the old bundle is a failure (hawkbit#3185)."""
    record = running()
    device = canary(record)
    member = report(record, device, CONFIRMED, OLD).members[device]
    assert Outcome.FAILED == member.outcome
    assert "runs 000000000000" in member.detail
    assert Outcome.CONFIRMED == report(record, device, CONFIRMED, NEW).members[device].outcome


@pytest.mark.parametrize("state", [DeviceState.SUPERSEDED, DeviceState.DOWNLOADING, DeviceState.BAKING])
def test_states_that_are_no_outcome(state: DeviceState) -> None:
    """A device under way, or superseded, has not executed."""
    record = running()
    device = canary(record)
    seen = report(record, device, state, OLD).members[device]
    assert (None, state) == (seen.outcome, seen.state)


@pytest.mark.parametrize("job", [None, "v2.0.cam-0", "v1.1.cam-0", "v2.2.cam-0"])
def test_reports_of_other_jobs_move_nothing(job: str | None) -> None:
    """What another rollout or an older attempt reports is not this update's outcome."""
    record = running()
    device = canary(record)
    other = job.replace("cam-0", device) if job else None
    seen = observe(record, {device: Sighting(online=True, running=NEW, job=other, state=CONFIRMED)})
    assert seen.members[device].outcome is None
    assert seen.members[device].state is None


def test_a_confirmed_device_that_falls_back_later_is_a_failure() -> None:
    """The newest report of the job counts."""
    record = running()
    device = canary(record)
    record = report(report(record, device, CONFIRMED, NEW), device, DeviceState.ROLLED_BACK, OLD)
    assert Outcome.FAILED == record.members[device].outcome


def test_pause_keeps_watching() -> None:
    """Paused: a good wave waits for the operator, a harmful one is rolled back all the same."""
    paused, _ = step(running(), Event.PAUSED, 3.0)
    assert event_of(paused, verdict(Decision.PROMOTE)) is None
    assert event_of(paused, verdict(Decision.HOLD, timed_out=True)) is None
    assert Event.WAVE_FAILED == event_of(paused, verdict(Decision.ROLL_BACK))


def test_a_wave_that_times_out_is_paused_and_resuming_gives_it_more_time() -> None:
    """Nothing hangs for ever without a person being told (hawkbit#693)."""
    record = running()
    event = event_of(record, verdict(Decision.HOLD, timed_out=True))
    assert Event.WAVE_TIMED_OUT == event
    paused, _ = step(record, Event.WAVE_TIMED_OUT, 9.0)
    resumed, _ = step(paused, Event.RESUMED, 10.0)
    assert (State.RUNNING, 2.0, 10.0) == (resumed.state, resumed.wave_started_at, resumed.step_started_at)


def test_roll_back_reaches_every_exposed_device() -> None:
    """Also the confirmed one; it ends when the online ones are back and does not wait for the absent."""
    record, _ = step(running(), Event.WAVE_PASSED, 3.0)
    first, second, third = sorted(desired(record))
    record = report(record, first, CONFIRMED, NEW)
    record, commands = step(record, Event.WAVE_FAILED, 4.0)

    assert (Command.PUBLISH,) == commands
    assert {name: Wanted(job=f"v2.2.{name}", bundle=OLD) for name in (first, second, third)} == desired(record)
    record = observe(record, {third: Sighting(online=False, running=NEW)})
    record = report(record, second, CONFIRMED, OLD, attempt=2)
    record = observe(record, {first: Sighting(online=True, running=NEW)})
    assert event_of(record, None) is None
    record = report(record, first, CONFIRMED, OLD, attempt=2)
    assert Event.RECALLED == event_of(record, None)
    ended, _ = step(record, Event.RECALLED, 5.0)
    assert OLD == desired(ended)[third].bundle


def test_a_device_without_a_previous_bundle_keeps_what_it_runs() -> None:
    """Rolling back the first version ever wants nothing of the device, and does not wait for it."""
    record, _ = step(running(previous=None), Event.ROLL_BACK_ORDERED, 3.0)
    assert [None] == [wanted.bundle for wanted in desired(record).values()]
    assert Event.RECALLED == event_of(record, None)


def test_a_device_that_fails_to_go_back_is_asked_again_but_not_for_ever() -> None:
    """Each attempt is a new job; after the last one the rollout stays where it is, for a person to see."""
    record, _ = step(running(), Event.ROLL_BACK_ORDERED, 3.0)
    device = canary(record)
    record = observe(record, {device: Sighting(online=True, running=NEW)})
    for attempt in (2, 3, 4, 5):
        assert attempt == record.members[device].attempt
        record = report(record, device, FAILED, NEW, attempt=attempt)
    assert 5 == record.members[device].attempt
    assert event_of(record, None) is None
    assert Event.RECALLED == event_of(report(record, device, CONFIRMED, OLD, attempt=5), None)


def test_cancel_leaves_confirmed_devices_and_withdraws_the_others() -> None:
    """The confirmed keeps its job and bundle; unfinished and failed ones go back."""
    record, _ = step(running(), Event.WAVE_PASSED, 3.0)
    kept, failed, unfinished = sorted(desired(record))
    record = report(report(record, kept, CONFIRMED, NEW), failed, FAILED, OLD)
    record, _ = step(record, Event.CANCELLED, 4.0)

    wanted = desired(record)
    assert Wanted(job=f"v2.1.{kept}", bundle=NEW) == wanted[kept]
    assert {OLD} == {wanted[failed].bundle, wanted[unfinished].bundle}


def test_an_ended_rollout_is_settled_when_nothing_more_can_come_of_it() -> None:
    """It hears from the absent until they return or another rollout takes them."""
    record = running()
    device = canary(record)
    assert not is_settled(record, {})
    ended = replace(record, state=State.SUCCEEDED)
    assert not is_settled(ended, {device: f"v2.1.{device}"})
    assert is_settled(ended, {device: f"v3.1.{device}"})
    assert is_settled(report(ended, device, CONFIRMED, NEW), {device: f"v2.1.{device}"})


def test_what_a_device_runs_when_it_is_exposed_is_what_it_goes_back_to() -> None:
    """A bundle that an earlier rollout delivered late is not forgotten."""
    late = "2" * 64
    record = draft()
    device = canary(record)
    record = observe(record, {device: Sighting(online=True, running=late)})
    record, _ = step(record, Event.STARTED, 2.0)
    assert late == record.members[device].previous


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_only_the_table_moves_a_rollout(state: State, event: Event) -> None:
    """Every pair that is not in the table is refused and says what was tried."""
    record = replace(running(), state=state)
    if (state, event) in TRANSITIONS:
        assert TRANSITIONS[state, event] == step(record, event, 3.0)[0].state
    else:
        with pytest.raises(IllegalTransitionError, match=str(state)):
            step(record, event, 3.0)


def test_terminal_is_terminal() -> None:
    """No transition leaves a state that is not active, and every active one can be left."""
    assert {state for state, _ in TRANSITIONS} == ACTIVE


class RolloutMachine(RuleBasedStateMachine):
    """Random rollouts; each run draws from a random subset of what may happen (swarm testing)."""

    @initialize(
        seed=st.integers(0, 2**16),
        waves=st.sampled_from([(100,), (20, 50, 100), (10, 40)]),
        allowed=st.sets(st.sampled_from(["operator", "gate", "reports", "liars", "offline"]), min_size=2),
    )
    def begin(self, seed: int, waves: tuple[int, ...], allowed: set[str]) -> None:
        """Choose what may happen in this run."""
        self.random = random.Random(seed)
        self.allowed = allowed
        self.record = draft(self.random.choice([OLD, None]), waves)
        self.online = dict.fromkeys(DEVICES, True)
        previous = next(iter(self.record.members.values())).previous
        self.runs: dict[str, str | None] = dict.fromkeys(DEVICES, previous)
        self.history: list[Sighting] = []
        self.exposed: set[str] = set()
        if "operator" not in allowed:
            self.apply(Event.STARTED)

    def apply(self, event: Event) -> None:
        """Take one step and hold who may be exposed by it."""
        before = self.record
        try:
            self.record, _ = step(before, event, 5.0)
        except IllegalTransitionError:
            assert (before.state, event) not in TRANSITIONS
        now_exposed = set(desired(self.record))
        fresh = now_exposed - self.exposed
        if event not in (Event.STARTED, Event.WAVE_PASSED):
            assert not fresh, "only a start or a passed wave exposes anybody"
        assert {self.record.wave} >= {self.record.members[device].wave for device in fresh}
        self.exposed = now_exposed

    @precondition(lambda self: "operator" in self.allowed)
    @rule(event=st.sampled_from([Event.STARTED, Event.PAUSED, Event.RESUMED, Event.CANCELLED, Event.ROLL_BACK_ORDERED]))
    def operate(self, event: Event) -> None:
        """The operator does something, sensible or not."""
        self.apply(event)

    @precondition(lambda self: "gate" in self.allowed)
    @rule(decision=st.sampled_from(Decision), timed_out=st.booleans())
    def judge(self, decision: Decision, *, timed_out: bool) -> None:
        """The gate gives a verdict."""
        state = self.record.state
        event = event_of(self.record, verdict(decision, timed_out=timed_out))
        if event is None:
            return
        assert not (state is State.PAUSED and event is not Event.WAVE_FAILED)
        assert (state, event) in TRANSITIONS
        self.apply(event)

    @precondition(lambda self: "reports" in self.allowed)
    @rule(device=st.sampled_from(DEVICES), state=st.sampled_from(DeviceState), lie=st.booleans())
    def report(self, device: str, state: DeviceState, *, lie: bool) -> None:
        """A device reports its current job, in any order of states."""
        wanted = desired(self.record).get(device)
        if wanted is None:
            return
        if state is CONFIRMED and not (lie and "liars" in self.allowed):
            self.runs[device] = wanted.bundle or self.runs[device]
        seen = Sighting(
            online=self.online[device],
            running=self.runs[device],
            job=wanted.job,
            state=state,
            result=Result.RUNS_NEW if state is CONFIRMED else None,
        )
        once = observe(self.record, {device: seen})
        member = once.members[device]
        if member.attempt == self.record.members[device].attempt:
            assert once == observe(once, {device: seen}), "seeing the same again changes nothing"
        if member.outcome is Outcome.CONFIRMED and state is CONFIRMED and member.attempt == 1:
            assert NEW == self.runs[device]
        self.record = once

    @precondition(lambda self: "offline" in self.allowed)
    @rule(device=st.sampled_from(DEVICES))
    def toggle(self, device: str) -> None:
        """A device comes or goes."""
        self.online[device] = not self.online[device]
        seen = Sighting(online=self.online[device], running=self.runs[device])
        self.record = observe(self.record, {device: seen})

    @invariant()
    def desired_is_total_and_right(self) -> None:
        """Every exposed member, and nobody else, should run what the state says."""
        if not hasattr(self, "record"):
            return
        wanted = desired(self.record)
        assert len({want.job for want in wanted.values()}) == len(wanted)
        for device, member in self.record.members.items():
            assert (device in wanted) == member.exposed
            if not member.exposed:
                assert member.outcome is None
                continue
            if self.record.state in (State.ROLLING_BACK, State.ROLLED_BACK):
                assert wanted[device].bundle == member.previous
            elif self.record.state is State.CANCELLED:
                kept = member.outcome is Outcome.CONFIRMED and not member.withdrawn
                assert wanted[device].bundle == (NEW if kept else member.previous)
            else:
                assert wanted[device].bundle == NEW

    @invariant()
    def rolled_back_means_that_the_online_ones_are_back(self) -> None:
        """A rollout ends as rolled back only when nobody online is left on the new bundle."""
        if hasattr(self, "record") and self.record.state is State.ROLLING_BACK:
            event = event_of(self.record, None)
            if event is Event.RECALLED:
                for member in self.record.members.values():
                    assert not (member.exposed and member.online and member.previous) or member.returned
                self.apply(event)


RolloutMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestRolloutMachine = RolloutMachine.TestCase

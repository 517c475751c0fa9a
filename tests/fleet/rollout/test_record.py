from __future__ import annotations

from dataclasses import replace

import pytest

from edgeopt_contract.messages import DeviceState
from edgeopt_contract.windows import Window
from edgeopt_fleet.gate import Decision, Outcome, Policy
from edgeopt_fleet.rollout import (
    ACTIVE,
    TRANSITIONS,
    Command,
    Count,
    Event,
    Execution,
    Failure,
    IllegalTransitionError,
    Member,
    Pace,
    Rollout,
    Sighting,
    State,
    Tally,
    Terms,
    Threshold,
    Wanted,
    Wave,
    allowed_offers,
    counts_of,
    event_of,
    excuse,
    forecast_seconds,
    give_up_to_another,
    inherit,
    is_settled,
    observe,
    offer,
    overrun,
    start_event,
    step,
    time_out,
    wanted,
    withdraw,
)
from tests.fleet.rollout.world import verdict

OLD, NEW = "0" * 64, "1" * 64
CONFIRMED, FAILED = DeviceState.CONFIRMED, DeviceState.FAILED
NIGHT = Window(start="02:00", end="04:00")
TERMS = Terms(rollout="v2")
WAVES = tuple(Wave.parse(percent) for percent in (20, 50, 100))


def waiting(wave: int = 0, previous: str | None = OLD) -> Member:
    """Return a device that waits for its turn."""
    return Member(device="cam-1", wave=wave, place=0, bundle=NEW, previous=previous)


def exposed(wave: int = 0, previous: str | None = OLD) -> Member:
    """Return a device that was offered the bundle."""
    return offer(waiting(wave, previous), Sighting(online=True, running=previous))


def report(member: Member, state: DeviceState, runs: str | None, terms: Terms = TERMS, now: float = 5.0) -> Member:
    """Return ``member`` after it reported ``state`` of its job."""
    seen = Sighting(online=True, running=runs, job=terms.job_of(member), state=state)
    return observe(member, seen, terms, now)


def rollout(*members: Member, state: State = State.RUNNING, **changes: object) -> Rollout:
    """Return a rollout whose first wave began at 2 s, with these members."""
    record = Rollout(
        name="v2", bundle=NEW, cohort="all", waves=WAVES, policy=Policy(), created_at=1.0, updated_at=1.0, state=state,
        started_at=2.0, wave_started_at=2.0, step_started_at=2.0, tally=Tally().moved([(None, m) for m in members]),
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]  # whatever a test changes


# --- one device ---------------------------------------------------------------------------------------------------


def test_devices_are_told_the_window_on_the_way_there_only() -> None:
    """The update waits for the night; the way back does not."""
    record = rollout(policy=Policy(window=NIGHT, not_before=500))
    there, back = exposed(), withdraw(exposed(), keep_confirmed=False)
    assert Wanted(job="v2.1.cam-1", bundle=NEW, not_before=500, window=NIGHT) == wanted(record, there)
    assert Wanted(job="v2.2.cam-1", bundle=OLD) == wanted(record, back)
    assert wanted(record, waiting()) is None


def test_why_a_device_failed_stays_known() -> None:
    """The first reason is kept when the device is sent back, and when it reports other things."""
    seen = Sighting(online=True, running=OLD, job="v2.1.cam-1", state=FAILED, detail="disk full")
    member = withdraw(observe(exposed(), seen, TERMS, 5.0), keep_confirmed=False)
    member = report(member, CONFIRMED, OLD)
    assert ("", "disk full", True) == (member.detail, member.failure, member.returned)


@pytest.mark.parametrize("state", [DeviceState.SUPERSEDED, DeviceState.DOWNLOADING, DeviceState.BAKING])
def test_states_that_are_no_outcome(state: DeviceState) -> None:
    """A device under way, or superseded, has not executed."""
    seen = report(exposed(), state, OLD)
    assert (None, state) == (seen.outcome, seen.state)


@pytest.mark.parametrize("job", [None, "v2.0.cam-1", "v1.1.cam-1", "v2.2.cam-1"])
def test_reports_of_other_jobs_move_nothing(job: str | None) -> None:
    """What another rollout or an older attempt reports is not this update's outcome."""
    seen = observe(exposed(), Sighting(online=True, running=NEW, job=job, state=CONFIRMED), TERMS, 5.0)
    assert (None, None) == (seen.outcome, seen.state)


def test_the_newest_report_of_the_job_counts() -> None:
    """A confirmed device that falls back later is a failure; one that was timed out and confirms is none."""
    member = report(report(exposed(), CONFIRMED, NEW), DeviceState.ROLLED_BACK, OLD)
    assert (Outcome.FAILED, Failure.ROLLED_BACK) == (member.outcome, member.kind)
    terms = replace(TERMS, device_timeout_seconds=10.0)
    late = time_out(report(exposed(), DeviceState.DOWNLOADING, OLD, terms), terms, 15.0)
    assert (Outcome.FAILED, Failure.TIMED_OUT) == (late.outcome, late.kind)
    assert (Outcome.CONFIRMED, None) == ((done := report(late, CONFIRMED, NEW, terms)).outcome, done.kind)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (FAILED, Failure.FAILED),
        (DeviceState.REJECTED, Failure.REJECTED),
        (DeviceState.ROLLED_BACK, Failure.ROLLED_BACK),
    ],
)
def test_kinds_of_failure(state: DeviceState, kind: Failure) -> None:
    """Each is counted as what it is."""
    member = report(exposed(), state, OLD)
    assert (kind, True) == (member.kind, Count(kind) in counts_of(member))


def test_retries_are_no_failures_and_no_device_is_asked_for_ever() -> None:
    """Two retries: the third failure counts, and no other one (boto3#4656). Each attempt is a job of its own."""
    terms = replace(TERMS, retries=2)
    member, jobs = exposed(), []
    for _ in range(2):
        jobs.append(terms.job_of(member))
        member = report(member, FAILED, OLD, terms)
        assert (None, True) == (member.outcome, member.again)
        assert Count.FAILED not in counts_of(member)
        assert member == report(member, FAILED, OLD, terms), "the same report again is no other failure"
        member = offer(member, Sighting(online=True, running=OLD))
    jobs.append(terms.job_of(member))
    member = report(member, FAILED, OLD, terms)
    assert (Outcome.FAILED, False, 3) == (member.outcome, member.again, len(set(jobs)))


@pytest.mark.parametrize("state", [DeviceState.REJECTED, DeviceState.ROLLED_BACK])
def test_a_device_that_said_no_is_not_asked_again(state: DeviceState) -> None:
    """Neither is one that was disturbed already."""
    assert Outcome.FAILED is report(exposed(), state, OLD, replace(TERMS, retries=3)).outcome


def test_a_device_has_its_time_from_its_first_report_and_not_while_it_waits() -> None:
    """Silence runs no clock; a night's wait does not either; a hanging self-test does."""
    terms = replace(TERMS, device_timeout_seconds=60.0, timed=True)
    member = exposed()
    assert member == time_out(member, terms, 1e9)
    member = report(member, DeviceState.DOWNLOADING, OLD, terms, now=100.0)
    assert 160.0 == member.deadline
    assert 160.0 == report(member, DeviceState.VERIFYING, OLD, terms, now=150.0).deadline
    member = report(member, DeviceState.STAGED, OLD, terms, now=150.0)
    assert member.deadline is None
    member = report(member, DeviceState.SELF_TEST, OLD, terms, now=9000.0)
    assert member.outcome is time_out(member, terms, 9059.0).outcome is None
    assert "no end within 60 s" in time_out(member, terms, 9060.0).failure


def test_a_device_that_fails_to_go_back_is_asked_again_but_not_for_ever() -> None:
    """Each attempt is a new job; after the last one the rollout stays where it is, for a person to see."""
    member = withdraw(exposed(), keep_confirmed=False)
    for attempt in (2, 3, 4, 5):
        assert (attempt, True) == (member.attempt, member.open)
        member = report(member, FAILED, NEW)
    assert (5, False) == (member.attempt, member.open)
    assert report(member, CONFIRMED, OLD).returned


def test_what_a_device_runs_when_it_is_exposed_is_what_it_goes_back_to() -> None:
    """A bundle that an earlier rollout delivered late is not forgotten; a retry does not change it."""
    member = offer(waiting(), Sighting(online=True, running="2" * 64))
    assert "2" * 64 == member.previous
    member = report(member, FAILED, NEW, replace(TERMS, retries=1))
    assert "2" * 64 == offer(member, Sighting(online=True, running=NEW)).previous


def test_a_bundle_that_no_rollout_found_good_is_nothing_to_go_back_to() -> None:
    """A device that is taken in the middle of another rollout goes back to what it ran before that one."""
    other = replace(exposed(previous="3" * 64), bundle="2" * 64)
    heir = offer(inherit(waiting(), other), Sighting(online=True, running="2" * 64))
    assert "3" * 64 == heir.previous
    good = report(other, CONFIRMED, "2" * 64)
    assert "2" * 64 == offer(inherit(waiting(), good), Sighting(online=True, running="2" * 64)).previous


def test_what_another_rollout_took_is_left_alone() -> None:
    """It is neither sent back, nor heard, nor waited for; an outcome it had still counts."""
    taken = give_up_to_another(exposed())
    assert taken == withdraw(taken, keep_confirmed=False) == report(taken, CONFIRMED, NEW)
    assert wanted(rollout(), taken) is None
    assert Count.MEMBERS not in counts_of(taken)
    done = give_up_to_another(report(exposed(), FAILED, OLD))
    assert {Count.MEMBERS, Count.FAILED} <= set(counts_of(done))


# --- the whole ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_only_the_table_moves_a_rollout(state: State, event: Event) -> None:
    """Every pair that is not in the table is refused and says what was tried."""
    record = rollout(state=state)
    if (state, event) in TRANSITIONS:
        assert TRANSITIONS[state, event] == step(record, event, 3.0)[0].state
    else:
        with pytest.raises(IllegalTransitionError, match=str(state)):
            step(record, event, 3.0)


def test_terminal_is_terminal() -> None:
    """Three ends, and every other state can be left."""
    assert {State.SUCCEEDED, State.ROLLED_BACK, State.CANCELLED} == set(State) - ACTIVE


def test_the_way_to_the_first_offer() -> None:
    """A draft is scheduled, and starts when it is time; one that needs approval waits for that before."""
    draft = rollout(waiting(), state=State.DRAFT, execution=Execution(start_at=1000))
    assert Event.SCHEDULED == start_event(draft)
    scheduled, _ = step(draft, Event.SCHEDULED, 3.0)
    assert (None, Event.STARTED) == (event_of(scheduled, None, 999.0), event_of(scheduled, None, 1000.0))
    started, commands = step(scheduled, Event.STARTED, 1000.0)
    assert ((Command.CLAIM, Command.EXPOSE_WAVE), 1000.0) == (commands, started.started_at)
    careful = replace(draft, approval=True)
    assert Event.SUBMITTED == start_event(careful)
    with pytest.raises(IllegalTransitionError):
        step(careful, Event.STARTED, 3.0)
    asked, _ = step(careful, Event.SUBMITTED, 3.0)
    assert event_of(asked, None, 1e12) is None
    assert State.SCHEDULED == step(asked, Event.APPROVED, 4.0)[0].state
    assert State.CANCELLED == step(asked, Event.DENIED, 4.0)[0].state


def test_a_wave_passes_when_all_were_asked_and_the_gate_says_so() -> None:
    """A rate that has not come to everybody yet holds the wave, whatever the gate says of the others."""
    promote = verdict(Decision.PROMOTE)
    assert Event.WAVE_PASSED == event_of(rollout(exposed()), promote, 3.0)
    assert event_of(rollout(exposed(), waiting()), promote, 3.0) is None
    assert Event.WAVE_PASSED == event_of(rollout(exposed(), waiting(wave=1)), promote, 3.0)
    assert event_of(rollout(exposed()), None, 3.0) is None
    assert Event.LAST_WAVE_PASSED == event_of(rollout(exposed(wave=2), wave=2), promote, 3.0)


def test_pause_keeps_watching() -> None:
    """Paused: a good wave waits for the operator, a harmful one is rolled back all the same; nobody is offered it."""
    paused = rollout(exposed(), state=State.PAUSED)
    assert event_of(paused, verdict(Decision.PROMOTE), 3.0) is None
    assert event_of(paused, verdict(Decision.HOLD), 1e9) is None
    assert Event.WAVE_FAILED == event_of(paused, verdict(Decision.ROLL_BACK), 3.0)
    assert (0, None) == (allowed_offers(paused, 3.0), allowed_offers(rollout(), 3.0))


def test_a_wave_that_times_out_is_paused_and_resuming_gives_it_more_time() -> None:
    """Nothing hangs for ever without a person being told (hawkbit#693)."""
    record = rollout(exposed())
    assert Event.WAVE_TIMED_OUT == event_of(record, verdict(Decision.HOLD), 3700.0)
    paused, _ = step(record, Event.WAVE_TIMED_OUT, 9.0)
    resumed, _ = step(paused, Event.RESUMED, 10.0)
    assert (State.RUNNING, 2.0, 10.0) == (resumed.state, resumed.wave_started_at, resumed.step_started_at)


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
def test_the_total_time_is_an_end(state: State) -> None:
    """Also of a rollout that was paused and forgotten."""
    record = rollout(exposed(), state=state, execution=Execution(total_timeout_seconds=100.0))
    assert event_of(record, None, 102.0) is None
    assert Event.TIMED_OUT == event_of(record, None, 102.1)
    assert (Command.WITHDRAW_UNCONFIRMED, Command.RELEASE) == step(record, Event.TIMED_OUT, 103.0)[1]


def test_failures_of_one_kind_over_their_threshold_roll_back() -> None:
    """2 of 4 timed out: more than 40 % of at least four; the words say of which kind."""
    lost = replace(exposed(), outcome=Outcome.FAILED, kind=Failure.TIMED_OUT)
    good = replace(exposed(), outcome=Outcome.CONFIRMED)
    lenient = Policy(failure_threshold=1.0)
    execution = Execution(thresholds=(Threshold(Failure.TIMED_OUT, 40.0, 4),))
    record = rollout(lost, lost, good, good, policy=lenient, execution=execution)
    assert Event.TOO_MANY_FAILED == event_of(record, None, 3.0)
    assert "2 of 4 executed devices timed out in this wave (50%, at most 40% allowed)" == overrun(record)
    assert "" == overrun(rollout(lost, lost, good, policy=lenient, execution=execution))
    assert overrun(rollout(lost, lost, good, good)), "the policy's own threshold is for any kind"


def test_a_rollout_that_lost_all_its_devices_is_over() -> None:
    """A more urgent one took them: nothing is left to succeed at."""
    assert Event.SUPERSEDED == event_of(rollout(give_up_to_another(waiting())), None, 3.0)


def test_roll_back_ends_when_the_online_ones_are_back() -> None:
    """It does not wait for the absent, nor for one that has nothing to go back to; settled is it when all are."""
    going = withdraw(exposed(), keep_confirmed=False)
    absent = replace(going, online=False)
    stays = withdraw(exposed(previous=None), keep_confirmed=False)
    back = report(going, CONFIRMED, OLD)
    assert event_of(rollout(going, absent, state=State.ROLLING_BACK), None, 5.0) is None
    ending = rollout(back, absent, stays, state=State.ROLLING_BACK)
    assert Event.RECALLED == event_of(ending, None, 5.0)
    ended, _ = step(ending, Event.RECALLED, 5.0)
    assert not is_settled(ended)
    assert is_settled(rollout(back, stays, state=State.ROLLED_BACK))
    assert not is_settled(rollout(back, stays))


def test_a_device_that_waits_for_its_window_is_not_late() -> None:
    """The timeout begins again while it waits, at most once a minute, and no longer than the window is ever closed."""
    policy = Policy(window=NIGHT, step_timeout_seconds=600.0)
    held = report(exposed(), DeviceState.STAGED, OLD)
    record = rollout(held, policy=policy)
    assert record == excuse(record, 50.0)
    assert (70_000.0, 2.0) == ((e := excuse(record, 70_000.0)).step_started_at, e.wave_started_at)
    late = replace(record, policy=replace(policy, not_before=1000))
    end = 1000 + 22 * 3600
    assert end == excuse(late, end).step_started_at
    assert late == excuse(late, end + 1)
    silent = rollout(report(exposed(), DeviceState.DOWNLOADING, OLD), policy=policy)
    assert silent == excuse(silent, 9000.0)
    free = rollout(held)
    assert free == excuse(free, 5000.0)


def test_a_forecast_follows_the_rate() -> None:
    """30 devices at 10 a minute that doubles with each 10: a minute, half a minute, a quarter."""
    pace = Pace(maximum_per_minute=40, base_rate_per_minute=10, number_of_notified_things=10)
    record = rollout(*[waiting(0)] * 10, *[waiting(1)] * 20, execution=Execution(pace=pace))
    assert [60.0, 105.0, 105.0] == forecast_seconds(record)
    assert [0.0, 0.0, 0.0] == forecast_seconds(rollout(waiting()))


@pytest.mark.parametrize(
    "wrong",
    [{"retries": 11}, {"retries": -1}, {"priority": 1001}, {"device_timeout_seconds": 0.0}, {"start_at": -1}],
)
def test_what_cannot_be_carried_out_is_refused(wrong: dict[str, float]) -> None:
    """A record that exists is one that can be."""
    with pytest.raises(ValueError, match="expected"):
        Execution(**wrong)  # type: ignore[arg-type]  # that is what is tested

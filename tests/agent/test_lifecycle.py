"""The update's life cycle against a model of a device: what must hold on every way through the table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeopt_agent.update.lifecycle import (
    FAILURE_LIMIT,
    FINAL,
    IGNORED,
    MAX_ENTRIES,
    MAX_STARTS,
    ON_ENTER,
    SLOTS,
    TRANSITIONS,
    TRIES,
    TRIES_TO_DEADLINE,
    UNDER_WAY,
    Command,
    Event,
    Happened,
    State,
    Update,
    bake_fault,
    is_let_in,
    retry_pause_seconds,
    step,
    switch_wait_seconds,
    why_not_back,
)
from edgeopt_agent.update.transitions import STATES
from edgeopt_contract.messages import Desired, Result
from edgeopt_contract.windows import Window

NOW = 1_795_300_000.0
SUCCESS = {
    Command.EXAMINE: Event.ACCEPTED,
    Command.FETCH: Event.FETCHED,
    Command.ASSEMBLE: Event.VERIFIED,
    Command.AWAIT: Event.OPENED,
    Command.TEST: Event.PASSED,
    Command.SWITCH: Event.ACTIVATED,
    Command.WATCH: Event.BAKED,
    Command.COMMIT: Event.SETTLED,
    Command.RESTORE: Event.SETTLED,
}


def desired(job: str = "job-1", bundle: str = "ab" * 32, **fields: Any) -> Desired:
    """A desired state; nobody verifies it here."""
    return Desired(job=job, bundle=bundle, bake_seconds=1, **fields)


def offered(job: str = "job-1", **fields: Any) -> Happened:
    """The event of an offer."""
    return Happened(Event.OFFERED, desired=desired(job, **fields))


@dataclass
class Disk:
    """What a device would do to its disk when it carries out commands; slots hold job names."""

    pointer: str | None = None
    slots: dict[str, str] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    tested: set[str] = field(default_factory=set)
    reports: list[tuple[str, State, Result | None]] = field(default_factory=list)

    def carry_out(self, update: Update, command: Command) -> None:
        """Change the disk as the shell does."""
        if command is Command.REPORT:
            self.reports.append((update.job, update.state, update.result))
        elif command is Command.ASSEMBLE:
            assert update.target != self.pointer, "the slot that serves must not be overwritten"
            self.slots[update.target] = update.job
            self.verified.discard(update.target)
            self.tested.discard(update.target)
        elif command is Command.AWAIT:
            self.verified.add(update.target)  # it was entered because ASSEMBLE succeeded
        elif command is Command.SWITCH:
            self.tested.add(update.target)  # it was entered because TEST succeeded
            self.pointer = update.target
        elif command is Command.RESTORE:
            self.pointer = update.committed


@dataclass
class Run:
    """A record, its disk, and the command that is being worked on."""

    update: Update = field(default_factory=Update)
    disk: Disk = field(default_factory=Disk)
    working_on: Command | None = None

    def happen(self, happened: Happened) -> None:
        """Step, then carry out, as the shell does."""
        self.update, commands = step(self.update, happened, NOW)
        for command in commands:
            if command is Command.TAKE_PENDING:
                self.happen(Happened(Event.OFFERED, desired=self.update.pending))
            elif command in (Command.REPORT, Command.SERVE):
                self.disk.carry_out(self.update, command)
            else:
                self.disk.carry_out(self.update, command)
                self.working_on = command

    def succeed(self) -> None:
        """Let the command that is being worked on succeed."""
        if self.working_on is not None:
            command, self.working_on = self.working_on, None
            self.happen(Happened(SUCCESS[command], job=self.update.job))

    def finish(self) -> None:
        """Let everything succeed until nothing is left to do."""
        for _ in range(50):
            if self.working_on is None:
                return
            self.succeed()
        raise AssertionError(f"still busy in {self.update}")


JOBS = st.sampled_from(["job-1", "job-2", "job-3"])
EVENTS = st.sampled_from(list(Event))


@st.composite
def histories(draw: st.DrawFn) -> list[Happened]:
    """A swarm draw: each history uses a random subset of the events."""
    subset = draw(st.lists(EVENTS, min_size=1, unique=True))
    happened = []
    for event in draw(st.lists(st.sampled_from(subset), max_size=60)):
        if event is Event.OFFERED:
            happened.append(offered(draw(JOBS)))
        else:
            happened.append(
                Happened(event, job=draw(st.sampled_from(["", "job-1", "job-2"])), serving=draw(st.booleans()))
            )
    return happened


@st.composite
def stories(draw: st.DrawFn) -> list[str]:
    """A swarm draw of what befalls a device whose commands mostly succeed."""
    kinds = ["good luck", "fault", "restart", "offer 1", "offer 2", "offer 3", "withdraw", "already running"]
    subset = draw(st.lists(st.sampled_from(kinds), min_size=1, unique=True))
    return draw(st.lists(st.sampled_from(subset), max_size=80))


def tell(run: Run, story: list[str]) -> None:
    """Let ``story`` happen to ``run``."""
    for chapter in story:
        match chapter.split():
            case ["good", "luck"]:
                run.succeed()
            case ["fault"]:
                run.happen(Happened(Event.FAULT, job=run.update.job, detail="bad luck"))
            case ["restart"]:
                run.working_on = None
                run.happen(Happened(Event.RESTARTED))
            case ["offer", number]:
                run.happen(offered(f"job-{number}"))
            case ["withdraw"]:
                run.happen(Happened(Event.WITHDRAWN))
            case ["already", "running"]:
                if run.working_on is Command.EXAMINE and run.update.committed is not None:
                    run.happen(Happened(Event.ALREADY_RUNNING, job=run.update.job))


def test_straight_way_ends_confirmed_on_the_new_slot() -> None:
    """With good luck an offer passes every state once and commits to the slot it filled."""
    run = Run()
    run.happen(offered())
    run.finish()

    states = [state for _, state, _ in run.disk.reports]
    assert ["offered", "downloading", "verifying", "staged", "self_test", "activating", "baking", "confirmed"] == states
    assert (State.CONFIRMED, "a", None, Result.RUNS_NEW) == (
        run.update.state,
        run.update.committed,
        run.update.fallback,
        run.update.result,
    )


def test_every_state_knows_what_a_restart_does_and_what_to_do() -> None:
    """The table is total where it must be: each state has a command and an edge for a power cut and an offer."""
    for state in STATES:
        assert state in ON_ENTER
        assert (state, Event.RESTARTED) in TRANSITIONS
        assert (state, Event.OFFERED) in TRANSITIONS
    for state in UNDER_WAY:
        assert (state, Event.FAULT) in TRANSITIONS
    for state in FINAL:
        assert TRANSITIONS[state, Event.SETTLED] is state


def test_every_pair_of_state_and_event_is_listed_or_ignored_on_purpose() -> None:
    """Nothing is ignored by accident: the table and the list of what changes nothing are all pairs, and share none."""
    ignored = {(state, event) for event, states in IGNORED.items() for state in states}
    assert not ignored & set(TRANSITIONS)
    assert {(state, event) for state in STATES for event in Event} == ignored | set(TRANSITIONS)
    print(f"\n{len(TRANSITIONS)} pairs lead on, {len(ignored)} are ignored on purpose, of {len(STATES) * len(Event)}")


def test_every_state_has_a_way_to_confirmed() -> None:
    """No state of the table is a trap."""
    to_confirmed = {State.CONFIRMED}
    while more := {start for (start, _), end in TRANSITIONS.items() if end in to_confirmed} - to_confirmed:
        to_confirmed |= more
    assert set(STATES) == to_confirmed


def test_every_state_is_reached_from_idle() -> None:
    """No state of the contract is out of reach."""
    reached = {State.IDLE}
    while more := {end for (start, _), end in TRANSITIONS.items() if start in reached} - reached:
        reached |= more
    assert set(STATES) == reached


@given(histories())
def test_event_outside_the_table_changes_nothing(history: list[Happened]) -> None:
    """An event that does not belong to the state, or to the job, gives the same record and no command."""
    update = Update()
    for happened in history:
        after, commands = step(update, happened, NOW)
        foreign = bool(happened.job) and happened.job != update.job and happened.event is not Event.OFFERED
        if (update.state, happened.event) not in TRANSITIONS or foreign:
            assert (update, ()) == (after, commands)
        update = after


@given(histories())
def test_commands_follow_from_the_state_entered(history: list[Happened]) -> None:
    """Whatever led there, at most a report, the state's own command, or taking what is pending."""
    update = Update()
    for happened in history:
        update, commands = step(update, happened, NOW)
        beside = (Command.REPORT, Command.TAKE_PENDING, Command.SERVE)
        work = [command for command in commands if command not in beside]
        assert work in ([], [ON_ENTER[update.state]])


@given(stories())
@example(["offer 1", *["good luck"] * 9, "offer 2", *["good luck"] * 6, "restart", "fault"])
def test_at_rest_the_pointer_names_the_committed_slot(story: list[str]) -> None:
    """Settled or idle, the pointer is on the committed slot, which was verified and tested (or there is none)."""
    run = Run()
    tell(run, story)
    update, disk = run.update, run.disk
    if update.state is State.IDLE or update.settled:
        assert update.committed == disk.pointer
    if update.committed is not None:
        assert update.committed in disk.verified & disk.tested
    assert disk.pointer is None or disk.pointer in disk.verified & disk.tested
    assert update.fallback is None or update.fallback in set(SLOTS) - {update.committed}


@given(stories())
@example(["offer 1", "offer 2", "offer 1"])
def test_good_luck_converges(story: list[str]) -> None:
    """From any point that bad luck may lead to, good luck alone brings the newest offer to its end."""
    run = Run()
    tell(run, story)
    run.working_on = None
    run.happen(Happened(Event.RESTARTED))
    run.finish()
    assert run.update.state in (*FINAL, State.IDLE)
    assert run.update.pending is None

    run.happen(offered("job-new"))
    run.finish()
    assert ("job-new", State.CONFIRMED) == (run.update.job, run.update.state)
    assert "job-new" == run.disk.slots[run.disk.pointer or ""]


@given(stories())
def test_each_ended_job_is_reported_once_with_a_result(story: list[str]) -> None:
    """A final report carries a result, and no other does; a confirmed job may later be reported as rolled back."""
    run = Run()
    tell(run, story)
    for _, state, result in run.disk.reports:
        assert (state in FINAL) == (result is not None)
    for (job, state, _), (next_job, next_state, _) in zip(run.disk.reports, run.disk.reports[1:], strict=False):
        if job == next_job and state in FINAL:
            assert next_state is State.ROLLED_BACK or (state, next_state) == (State.SUPERSEDED, State.OFFERED)


@pytest.mark.parametrize("state", [s for s in UNDER_WAY if s not in (State.OFFERED, State.DOWNLOADING, State.STAGED)])
def test_restart_loop_is_left_by_the_failure_edge(state: State) -> None:
    """An update during which the device restarts again and again is given up, and the old bundle serves."""
    run = Run(Update(committed="a"), Disk(pointer="a", verified={"a"}, tested={"a"}))
    run.happen(offered())
    for _ in range(20 * MAX_ENTRIES):
        if run.update.state in FINAL:
            break
        if run.update.state is state:
            run.working_on = None
            run.happen(Happened(Event.RESTARTED))
        else:
            run.succeed()
    assert run.update.state in (State.FAILED, State.ROLLED_BACK)
    assert "restarted too often" in run.update.detail
    run.finish()
    assert "a" == run.disk.pointer


def test_restarts_while_downloading_are_not_held_against_the_bundle() -> None:
    """A device on a weak battery that needs a hundred starts to download still reaches CONFIRMED."""
    run = Run()
    run.happen(offered())
    run.succeed()
    for _ in range(100):
        run.happen(Happened(Event.RESTARTED))
    run.finish()
    assert State.CONFIRMED is run.update.state


def test_restarts_while_waiting_for_the_window_are_not_held_against_the_bundle() -> None:
    """A device that is switched off every night may wait a month for its window."""
    run = Run()
    run.happen(offered())
    while run.update.state is not State.STAGED:
        run.succeed()
    for _ in range(100):
        run.happen(Happened(Event.RESTARTED))
    run.finish()
    assert State.CONFIRMED is run.update.state


def test_same_job_twice_does_nothing() -> None:
    """A retained message that the broker repeats starts nothing, wherever the update is."""
    run = Run()
    run.happen(offered())
    while run.working_on is not None:
        assert (run.update, ()) == step(run.update, offered(), NOW)
        run.succeed()
    assert (run.update, ()) == step(run.update, offered(), NOW)


def test_rolled_back_job_is_not_tried_again_until_a_new_job_comes() -> None:
    """After a local fallback the retained offer of the same job changes nothing; a new job starts again."""
    run = Run(Update(committed="a"), Disk(pointer="a", verified={"a"}, tested={"a"}))
    run.happen(offered())
    while run.update.state is not State.BAKING:
        run.succeed()
    run.happen(Happened(Event.FAULT, detail="it crashed"))
    run.finish()
    assert (State.ROLLED_BACK, Result.RUNS_OLD_RESTORED, "a") == (
        run.update.state,
        run.update.result,
        run.disk.pointer,
    )

    assert (run.update, ()) == step(run.update, offered(), NOW)
    run.happen(Happened(Event.RESTARTED))
    assert State.ROLLED_BACK is run.update.state
    run.happen(offered("job-2"))
    assert State.OFFERED is run.update.state


def test_newer_offer_while_baking_goes_back_first() -> None:
    """A recall during the bake restores the committed slot, reports SUPERSEDED, and only then takes the new offer."""
    run = Run(Update(committed="a"), Disk(pointer="a", verified={"a"}, tested={"a"}))
    run.happen(offered())
    while run.update.state is not State.BAKING:
        run.succeed()
    assert "b" == run.disk.pointer

    run.happen(offered("job-2"))
    assert (State.SUPERSEDED, "a") == (run.update.state, run.disk.pointer)
    run.succeed()

    assert (State.OFFERED, "job-2") == (run.update.state, run.update.job)
    assert ("job-1", State.SUPERSEDED, Result.RUNS_OLD_RESTORED) in run.disk.reports


def test_latest_of_several_offers_wins_while_settling() -> None:
    """Offers that arrive while the device goes back are replaced by the newest."""
    run = Run()
    run.happen(offered("job-1"))
    run.happen(offered("job-2"))
    run.happen(offered("job-3"))
    run.finish()
    assert ("job-3", State.CONFIRMED) == (run.update.job, run.update.state)
    assert "job-2" not in {job for job, _, _ in run.disk.reports}


def test_superseded_job_may_be_offered_again() -> None:
    """The fleet wants one, then another, then the first again: the first is what ends up confirmed."""
    run = Run()
    run.happen(offered("job-1"))
    run.happen(offered("job-2"))
    run.happen(offered("job-1"))
    run.finish()
    assert ("job-1", State.CONFIRMED) == (run.update.job, run.update.state)


def test_stale_answer_of_an_older_job_is_ignored() -> None:
    """What an abandoned download says at last is not taken for the new one's."""
    run = Run()
    run.happen(offered("job-1"))
    run.succeed()
    run.happen(offered("job-2"))
    run.succeed()
    run.succeed()
    assert (State.DOWNLOADING, "job-2") == (run.update.state, run.update.job)
    assert (run.update, ()) == step(run.update, Happened(Event.FETCHED, job="job-1"), NOW)


def test_withdrawn_before_the_switch_ends_untouched_and_after_it_changes_nothing() -> None:
    """An empty desired state stops an update that has not switched; a device that bakes keeps what it runs."""
    run = Run(Update(committed="a"), Disk(pointer="a", verified={"a"}, tested={"a"}))
    run.happen(offered())
    run.succeed()
    run.happen(Happened(Event.WITHDRAWN))
    run.finish()
    assert (State.SUPERSEDED, Result.RUNS_OLD_UNTOUCHED) == (run.update.state, run.update.result)

    run.happen(offered("job-2"))
    while run.update.state is not State.BAKING:
        run.succeed()
    assert (run.update, ()) == step(run.update, Happened(Event.WITHDRAWN), NOW)


def test_first_bundle_that_fails_leaves_nothing() -> None:
    """Without an older bundle a failure while baking leaves an empty pointer and says so."""
    run = Run()
    run.happen(offered())
    while run.update.state is not State.BAKING:
        run.succeed()
    run.happen(Happened(Event.FAULT))
    run.happen(Happened(Event.SETTLED, serving=False))
    assert (State.ROLLED_BACK, Result.RUNS_NOTHING, None) == (run.update.state, run.update.result, run.disk.pointer)


def test_confirmed_bundle_falls_back_while_the_older_one_is_there() -> None:
    """A confirmed bundle that cannot be kept alive gives way to the one before it; without one it stays."""
    confirmed = Update(
        state=State.CONFIRMED, desired=desired(), committed="b", fallback="a", switched=True, settled=True
    )
    after, commands = step(confirmed, Happened(Event.FAULT, detail="3 crashes"), NOW)
    assert (State.ROLLED_BACK, "a", None, (Command.RESTORE,)) == (
        after.state,
        after.committed,
        after.fallback,
        commands,
    )

    alone = replace(confirmed, fallback=None)
    assert (alone, ()) == step(alone, Happened(Event.FAULT), NOW)


def test_fallback_is_given_up_when_its_slot_is_overwritten() -> None:
    """From VERIFYING on the older bundle is gone, so nothing may count on it."""
    update = Update(state=State.DOWNLOADING, desired=desired(), committed="b", fallback="a")
    after, _ = step(update, Happened(Event.FETCHED), NOW)
    assert ("a", None) == (after.target, after.fallback)


@pytest.mark.parametrize(("deadline", "state"), [(int(NOW) - 1, State.REJECTED), (int(NOW) + 1, State.DOWNLOADING)])
def test_offer_past_its_deadline_is_rejected(deadline: int, state: State) -> None:
    """A device that was away for too long does not start an update that nobody waits for."""
    update, _ = step(Update(), offered(deadline=deadline), NOW)
    update, _ = step(update, Happened(Event.ACCEPTED), NOW)
    assert state is update.state


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ((0, 0, 0), None),
        ((19, 19, 0), None),
        ((20, 10, 0), None),
        ((20, 11, 0), "11 of 20 requests failed while baking"),
        ((1000, 500, 2), None),
        ((1000, 501, 0), "501 of 1000 requests failed while baking"),
        ((5, 3, 3), "the runner crashed 3 times while baking"),
    ],
)
def test_bake_fault(counts: tuple[int, int, int], reason: str | None) -> None:
    """A bake is called off by three crashes, or when more than half of at least twenty requests failed."""
    assert reason == bake_fault(*counts)


# --- windows and deadlines --------------------------------------------------------------------------------------------

NIGHT = Window(start="02:00", end="04:00")
MIDNIGHT = 1_795_305_600.0  # 2026-11-22 00:00 UTC


def test_switch_waits_for_the_window_in_the_devices_own_zone() -> None:
    """The wait counts to the window's opening by local time, from not_before on when that is later."""
    assert 0.0 == switch_wait_seconds(desired(), MIDNIGHT, 0)
    assert 7200.0 == switch_wait_seconds(desired(window=NIGHT), MIDNIGHT, 0)
    assert 0.0 == switch_wait_seconds(desired(window=NIGHT), MIDNIGHT, 7200)
    assert 60.0 == switch_wait_seconds(desired(not_before=int(MIDNIGHT) + 60), MIDNIGHT, 0)
    after_tonight = desired(window=NIGHT, not_before=int(MIDNIGHT) + 5 * 3600)
    assert 26 * 3600.0 == switch_wait_seconds(after_tonight, MIDNIGHT, 0)


def test_test_that_outlasts_the_window_waits_for_the_next_one() -> None:
    """A bundle never begins to answer outside its window, and the report says how long it waits."""
    wanted = desired(window=NIGHT)
    testing = Update(state=State.SELF_TEST, desired=wanted, committed="a")
    inside, commands = step(testing, Happened(Event.PASSED), MIDNIGHT + 3 * 3600)
    assert (State.ACTIVATING, (Command.REPORT, Command.SWITCH)) == (inside.state, commands)

    outside, commands = step(testing, Happened(Event.PASSED), MIDNIGHT + 4 * 3600)
    assert (State.STAGED, (Command.REPORT, Command.AWAIT)) == (outside.state, commands)
    assert "waits 79200 s" in outside.detail


@pytest.mark.parametrize("state", [State.ACTIVATING, State.BAKING])
def test_device_cut_off_after_the_switch_does_not_wait_again(state: State) -> None:
    """Once the pointer moved the update is carried through, inside the window or not, before the deadline or not."""
    wanted = desired(window=NIGHT, deadline=int(MIDNIGHT) - 1)
    update = Update(state=state, desired=wanted, committed="a", switched=True)
    resumed, _ = step(update, Happened(Event.RESTARTED), MIDNIGHT)
    assert State.ACTIVATING is resumed.state


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.DOWNLOADING, Event.FETCHED),
        (State.DOWNLOADING, Event.RESTARTED),
        (State.VERIFYING, Event.VERIFIED),
        (State.STAGED, Event.OPENED),
        (State.STAGED, Event.EXPIRED),
        (State.STAGED, Event.RESTARTED),
        (State.SELF_TEST, Event.PASSED),
    ],
)
def test_deadline_ends_what_has_not_switched(state: State, event: Event) -> None:
    """Wherever the update waits when the deadline passes, the device keeps what it runs; no bundle is to blame."""
    update = Update(state=state, desired=desired(deadline=int(NOW) - 5), committed="a")
    failed, commands = step(update, Happened(event), NOW)
    assert (State.FAILED, (Command.RESTORE,), ()) == (failed.state, commands, failed.failures)


def test_running_bundle_is_confirmed_after_the_deadline_too() -> None:
    """What serves already needs no time."""
    update = Update(state=State.OFFERED, desired=desired(deadline=int(NOW) - 5), committed="a")
    assert State.CONFIRMED is step(update, Happened(Event.ALREADY_RUNNING), NOW)[0].state


# --- a disk that refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deadline", "tries"), [(None, TRIES), (int(NOW) + 86_400, TRIES_TO_DEADLINE)])
@pytest.mark.parametrize("state", [State.DOWNLOADING, State.VERIFYING])
def test_disk_that_refuses_is_tried_again_a_few_times(state: State, deadline: int | None, tries: int) -> None:
    """Each try is reported with its reason; after the last the update has failed, and the old bundle serves."""
    run = Run(Update(committed="a"), Disk(pointer="a", verified={"a"}, tested={"a"}))
    run.happen(offered(deadline=deadline))
    for made in range(1, tries + 1):
        while run.update.state is not state:
            run.succeed()
        run.happen(Happened(Event.DISK_REFUSED, job="job-1", detail="the disk is full"))
        if made < tries:
            assert (State.DOWNLOADING, Command.FETCH) == (run.update.state, run.working_on)
            assert f"tried {made} of {tries} times, again in" in run.update.detail
    assert (State.FAILED, f"tried {tries} times: the disk is full") == (run.update.state, run.update.detail)
    run.finish()
    assert (Result.RUNS_OLD_UNTOUCHED, "a") == (run.update.result, run.disk.pointer)
    assert run.update.entries <= MAX_ENTRIES // 2, "a disk is not held against the bundle"


def test_disk_that_recovers_is_forgotten() -> None:
    """A try that succeeds leads on; a restart, before which somebody may have freed space, begins to count anew."""
    run = Run()
    run.happen(offered())
    run.succeed()
    run.happen(Happened(Event.DISK_REFUSED))
    assert 1 == run.update.retries
    run.happen(Happened(Event.RESTARTED))
    assert 0 == run.update.retries
    run.happen(Happened(Event.DISK_REFUSED))
    run.finish()
    assert (State.CONFIRMED, 0, ()) == (run.update.state, run.update.retries, run.update.failures)


def test_deadline_ends_the_tries_with_their_reason() -> None:
    """What the disk said last stands in the report."""
    update = Update(state=State.DOWNLOADING, desired=desired(deadline=int(NOW) - 5), committed="a", retries=3)
    failed, _ = step(update, Happened(Event.DISK_REFUSED, detail="the disk is full"), NOW)
    assert State.FAILED is failed.state
    assert failed.detail.endswith("the disk is full")


def test_pauses_grow_to_an_hour() -> None:
    """The first try waits for nothing; those without a deadline take some minutes, the others some hours."""
    pauses = [retry_pause_seconds(made) for made in range(TRIES_TO_DEADLINE)]
    assert [0.0, 5.0, 10.0, 20.0] == pauses[:4]
    assert 315.0 == sum(pauses[:TRIES])
    assert 3.0 * 3600 < sum(pauses) < 4.0 * 3600
    assert 3600.0 == retry_pause_seconds(100)


# --- who needs no trust -----------------------------------------------------------------------------------------------


def test_offers_that_need_no_trust() -> None:
    """Those that change nothing, and the bundle that serves a device at rest; under way, no other."""
    running = "cd" * 32
    for state in UNDER_WAY:
        update = Update(state=state, desired=desired(), committed="a")
        assert is_let_in(update, desired(bundle="ee" * 32), running), "the same job changes nothing"
        assert (update, ()) == step(update, offered(bundle="ee" * 32), NOW)
        assert not is_let_in(update, desired("job-2", bundle=running), running)
    rest = Update(state=State.CONFIRMED, desired=desired(), settled=True)
    assert is_let_in(rest, desired("job-2", bundle=running), running)
    assert not is_let_in(rest, desired("job-2"), running)
    assert not is_let_in(replace(rest, settled=False), desired("job-2", bundle=running), running)
    assert is_let_in(replace(rest, settled=False, pending=desired("job-2")), desired("job-2"), running)
    assert not is_let_in(Update(state=State.SUPERSEDED, desired=desired(), settled=True), desired(), running)
    assert not is_let_in(Update(), desired(), None)


# --- loops ------------------------------------------------------------------------------------------------------------


def fail(run: Run, job: str) -> None:
    """Let ``job`` be offered and fail its self-test."""
    run.happen(offered(job))
    while run.update.state is not State.SELF_TEST:
        run.succeed()
    run.happen(Happened(Event.FAULT, detail="self-test: p: got NaN"))
    run.finish()


def test_bundle_that_failed_too_often_is_rejected_until_a_new_job_comes() -> None:
    """A broker that repeats old offers in turn cannot keep a device busy for ever; a new job may try once more."""
    run = Run(Update(committed="a"), Disk(pointer="a", verified={"a"}, tested={"a"}))
    for _ in range(FAILURE_LIMIT):
        fail(run, "job-1")
        run.happen(offered("other", bundle="cd" * 32))
        run.finish()
    run.happen(offered("job-1"))
    run.finish()
    assert (State.REJECTED, "job-1") == (run.update.state, run.update.job)
    assert f"failed on this device {FAILURE_LIMIT} times; offer it with a new job" in run.update.detail
    assert "got NaN" in run.update.detail

    fail(run, "job-2")
    assert State.FAILED is run.update.state
    run.happen(offered("other-2", bundle="cd" * 32))
    run.finish()
    run.happen(offered("job-2"))
    run.finish()
    assert State.REJECTED is run.update.state
    run.happen(offered("job-3"))
    run.finish()
    assert State.CONFIRMED is run.update.state


CONFIRMED = Update(
    state=State.CONFIRMED,
    desired=desired(),
    committed="b",
    fallback="a",
    switched=True,
    settled=True,
    result=Result.RUNS_NEW,
)


def test_agent_that_is_started_again_and_again_falls_back() -> None:
    """Five starts in a row that never ran steadily end in the bundle before; a steady run in between forgets them."""
    update = CONFIRMED
    for _ in range(MAX_STARTS - 1):
        update, commands = step(update, Happened(Event.RESTARTED), NOW)
        assert () == commands
    steady, _ = step(update, Happened(Event.STEADY), NOW)
    assert CONFIRMED == steady
    update, commands = step(update, Happened(Event.RESTARTED), NOW)
    assert (State.ROLLED_BACK, "a", (Command.RESTORE,)) == (update.state, update.committed, commands)
    assert "started 5 times" in update.detail


def test_crash_loop_without_a_bundle_before_goes_on() -> None:
    """There is nothing better, so nothing is written either."""
    alone = replace(CONFIRMED, fallback=None)
    assert (alone, ()) == step(alone, Happened(Event.RESTARTED), NOW)


# --- what serves at rest ----------------------------------------------------------------------------------------------


def test_bundle_that_does_not_start_gives_way_or_is_tried_again() -> None:
    """With a bundle before it the device falls back; without one it goes on trying, and reports when it serves."""
    dead = Happened(Event.RESTARTED, serving=False, detail="cannot be loaded")
    fallen, commands = step(CONFIRMED, dead, NOW)
    assert (State.ROLLED_BACK, (Command.RESTORE,), "cannot be loaded") == (fallen.state, commands, fallen.detail)

    alone = replace(CONFIRMED, fallback=None)
    assert (alone, (Command.SERVE,)) == step(alone, dead, NOW)
    lost, commands = step(replace(alone, settled=False), Happened(Event.SETTLED, serving=False), NOW)
    assert (Result.RUNS_NOTHING, (Command.REPORT, Command.SERVE)) == (lost.result, commands)
    found, commands = step(lost, Happened(Event.SERVES), NOW)
    assert (Result.RUNS_NEW, (Command.REPORT,)) == (found.result, commands)
    assert (found, ()) == step(found, Happened(Event.SERVES), NOW)


@pytest.mark.parametrize("state", [State.DOWNLOADING, State.STAGED])
def test_committed_bundle_is_tried_again_while_an_update_waits(state: State) -> None:
    """A device that serves nothing does not wait for the window before it tries what it has."""
    update = Update(state=state, desired=desired(), committed="a")
    _, commands = step(update, Happened(Event.RESTARTED, serving=False), NOW)
    assert (Command.SERVE, ON_ENTER[state]) == commands


@pytest.mark.parametrize("state", FINAL)
def test_person_at_the_device_goes_back_from_any_rest(state: State) -> None:
    """While the bundle before is there, an order at the device leads to it, whatever became of the last update."""
    update = replace(CONFIRMED, state=state)
    assert why_not_back(update) is None
    back, commands = step(update, Happened(Event.ORDERED_BACK, detail="ordered at the device"), NOW)
    assert (State.ROLLED_BACK, "a", (Command.RESTORE,)) == (back.state, back.committed, commands)
    assert () == back.failures
    settled, _ = step(back, Happened(Event.SETTLED), NOW)
    assert Result.RUNS_OLD_RESTORED is settled.result
    assert (settled, ()) == step(settled, Happened(Event.ORDERED_BACK), NOW)
    assert "not on this device any more" in str(why_not_back(settled))


def test_order_to_go_back_is_refused_while_nothing_has_switched() -> None:
    """What serves during a download is the bundle before already."""
    update = Update(state=State.DOWNLOADING, desired=desired(), committed="b", fallback="a")
    assert "job-1 is downloading and has not switched" in str(why_not_back(update))
    assert (update, ()) == step(update, Happened(Event.ORDERED_BACK), NOW)
    baking = replace(update, state=State.BAKING, fallback=None)
    assert why_not_back(baking) is None
    assert State.ROLLED_BACK is step(baking, Happened(Event.ORDERED_BACK), NOW)[0].state
    assert why_not_back(replace(baking, committed=None)) is not None


def test_recall_to_the_other_slot_goes_the_straight_way() -> None:
    """The bundle before may be offered again as a new job; its slot is the target, so nothing need be fetched."""
    offered_again, _ = step(CONFIRMED, offered("recall", bundle="cd" * 32), NOW)
    assert ("a", "a") == (offered_again.target, offered_again.fallback)

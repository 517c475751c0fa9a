"""Who gets which of two bundles, and what the record of such a rollout does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.gate import Margins, Outcome, Policy
from edgeopt_fleet.rollout import (
    ARMS,
    Arm,
    Candidate,
    Command,
    Event,
    Failure,
    IllegalTransitionError,
    Member,
    Rollout,
    State,
    Tally,
    Trial,
    Wave,
    assign,
    at_fault,
    conclude,
    draw,
    draw_arms,
    draw_members,
    keeps_confirmed,
    look_pause,
    overrun,
    step,
)

OLD, A, B = "0" * 64, "a" * 64, "b" * 64
FLEETS = st.dictionaries(st.text("abcdef0123456789", min_size=1, max_size=6), st.sampled_from("xyz"), max_size=80)
SHARES = st.sampled_from([(50, 50), (30, 30), (90, 10), (1, 99), (20, 40)])


def trial(percents: tuple[int, int] = (50, 50), **words: Any) -> Trial:
    """Return two arms."""
    arms = tuple(Arm(bundle=bundle, percent=percent) for bundle, percent in zip((A, B), percents, strict=True))
    return Trial(arms=arms, **words)


@given(fleet=FLEETS, percents=SHARES, name=st.text("xyz-1", min_size=1, max_size=6))
def test_members_are_as_many_as_their_share_in_every_hardware_class(
    fleet: dict[str, str], percents: tuple[int, int], name: str
) -> None:
    """Within one device of the exact share, class by class; the same each time."""
    members = draw_members(name, fleet, trial(percents))
    assert len(members) == len(set(members))
    for kind in "xyz":
        there = [device for device in fleet if fleet[device] == kind]
        mine = [device for device in members if fleet[device] == kind]
        assert abs(len(mine) - len(there) * sum(percents) / 100) <= 1
    assert members == draw_members(name, dict(reversed(fleet.items())), trial(percents))


@given(
    fleet=FLEETS, percents=SHARES, waves=st.sampled_from([("100%",), ("20%", "50%", "100%"), ("hardware:x", "100%")])
)
def test_both_arms_are_alike_in_every_wave_and_hardware_class(
    fleet: dict[str, str], percents: tuple[int, int], waves: tuple[str, ...]
) -> None:
    """Within two devices of the share: of each class, of each wave, however waves choose."""
    candidates = {name: Candidate(hardware=kind) for name, kind in fleet.items()}
    places = assign("ab", candidates, [Wave.parse(wave) for wave in waves])
    arms = draw_arms("ab", places, fleet, trial(percents))
    assert set(places) == set(arms)
    groups: dict[str, list[str]] = {}
    for device, arm in arms.items():
        for key in (f"class {fleet[device]}", f"wave {places[device].wave}"):
            groups.setdefault(key, []).append(arm)
    for drawn in groups.values():
        assert abs(drawn.count("A") - len(drawn) * percents[0] / sum(percents)) <= 2


def test_the_draw_depends_on_rollout_and_device_only() -> None:
    """Another rollout draws otherwise, and over many rollouts a device is in either arm as often."""
    fleet = {f"cam-{n}": ("x",) for n in range(20)}
    drawn = [draw(f"r{n}", fleet, (50, 50)) for n in range(400)]
    assert 350 < len({tuple(one.items()) for one in drawn})
    for device in fleet:
        assert 140 < sum(one[device] for one in drawn) < 260, "of 400; five deviations are 50"
    alone = Counter(draw(f"r{n}", {"cam-1": ("x",)}, (50, 50))["cam-1"] for n in range(400))
    assert 140 < alone[0] < 260, "who comes first has no arm of its own"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Arm(bundle=A, percent=0),
        lambda: Arm(bundle=A, percent=100),
        lambda: Trial(arms=(Arm(bundle=A, percent=50),)),
        lambda: trial((60, 50)),
        lambda: trial(observe_seconds=0.0),
        lambda: trial(observe_seconds=float("nan")),
        lambda: Trial(arms=(Arm(bundle=A, percent=50), Arm(bundle=A, percent=50))),
        lambda: Margins(confidence=1.0),
        lambda: Margins(confidence=0.4),
        lambda: Margins(latency=-0.1),
        lambda: Margins(drift=float("nan")),
        lambda: Margins(minimum_rows=-1),
    ],
)
def test_a_trial_that_cannot_be_is_not_made(wrong: Any) -> None:
    """A value says what was expected."""
    with pytest.raises(ValueError, match="expected"):
        wrong()


def test_an_observation_ends_with_enough_rows_or_after_twice_its_time() -> None:
    """Rows of the arm that served fewer count."""
    one = trial(observe_seconds=100.0, margins=Margins(minimum_rows=50))
    assert not one.is_over(99.0, [100, 100])
    assert one.is_over(100.0, [100, 50])
    assert not one.is_over(199.0, [100, 49])
    assert one.is_over(200.0, [100, 0])
    assert not one.is_over(100.0, [])


def member(device: str, arm: str, outcome: Outcome | None, kind: Failure | None = None) -> Member:
    """Return a device of the first wave that was offered its arm's bundle."""
    bundle = A if arm == "A" else B
    return Member(
        device=device,
        wave=0,
        place=0,
        bundle=bundle,
        arm=arm,
        previous=OLD,
        attempt=1,
        tries=1,
        outcome=outcome,
        kind=kind,
    )


def rollout(*members: Member, **changes: Any) -> Rollout:
    """Return a running rollout of two arms in one wave."""
    record = Rollout(
        name="ab", bundle=A, cohort="all", waves=(Wave.parse("100%"),), policy=Policy(), created_at=1.0, updated_at=1.0,
        trial=trial(), state=State.RUNNING, started_at=2.0, wave_started_at=2.0, step_started_at=2.0,
        tally=Tally().moved([(None, one) for one in members]),
    )  # fmt: skip
    return replace(record, **changes)


def test_the_arm_of_which_too_many_failed_is_named() -> None:
    """2 of 10 of one arm, above the 10 % allowed, though it is 10 % of all; both arms when both did."""
    good = [member(f"a{n}", "A", Outcome.CONFIRMED) for n in range(10)]
    bad = [member(f"b{n}", "B", Outcome.FAILED if n < 2 else Outcome.CONFIRMED, Failure.FAILED) for n in range(10)]
    record = rollout(*good, *bad)
    assert ("B", "arm B: 2 of 10 executed devices failed in this wave (20%, at most 10% allowed)") == (
        at_fault(record),
        overrun(record),
    )
    assert "AB" == at_fault(rollout(*bad, member("a", "A", Outcome.FAILED, Failure.REJECTED)))
    assert ("", "") == (at_fault(rollout(*good)), overrun(rollout(*good)))


@pytest.mark.parametrize(
    ("fault", "command"), [("B", Command.WITHDRAW_ARM), ("AB", Command.WITHDRAW_ALL), ("", Command.WITHDRAW_ALL)]
)
@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.OBSERVING])
def test_who_goes_back(state: State, fault: str, command: Command) -> None:
    """The arm at fault as a whole; both when both are; of the other one who has not confirmed."""
    record, commands = step(rollout(state=state, fault=fault), Event.WAVE_FAILED, 5.0)
    assert (State.ROLLING_BACK, (command,)) == (record.state, commands)
    for arm in ARMS:
        spared = keeps_confirmed(record, member("d", arm, Outcome.CONFIRMED), command)
        assert (command is Command.WITHDRAW_ARM and arm not in fault) == spared


def test_the_last_wave_of_two_arms_leads_to_an_observation() -> None:
    """Its time counts from then; looks are seldom, and one is due at its end, and again while rows are missing."""
    record, commands = step(rollout(), Event.PLACED, 1000.0)
    assert (State.OBSERVING, 1000.0, ()) == (record.state, record.step_started_at, commands)
    day = 86400.0
    assert pytest.approx((1000.0 - 2.0) / 4) == look_pause(record, 1000.0)
    assert pytest.approx(100.0) == look_pause(record, 1000.0 + day - 100.0), "at the end of the observation"
    assert pytest.approx(day / 8) == look_pause(record, 1000.0 + day)
    assert State.SUCCEEDED is step(record, Event.OBSERVED, 2000.0)[0].state
    with pytest.raises(IllegalTransitionError):
        step(record, Event.PAUSED, 2000.0)


@pytest.mark.parametrize(
    ("changes", "keep", "said"),
    [
        ({"trial": None, "state": State.SUCCEEDED}, "A", "no two arms"),
        ({"state": State.OBSERVING}, "A", "observing"),
        ({"state": State.SUCCEEDED, "kept": "B"}, "A", "kept B"),
        ({"state": State.ROLLED_BACK, "fault": "B", "reason": "slow"}, "B", "slow"),
    ],
)
def test_what_cannot_be_concluded(changes: dict[str, Any], keep: str, said: str) -> None:
    """Before the end, twice, without arms, and for the arm that harmed."""
    with pytest.raises(IllegalTransitionError, match=said):
        conclude(rollout(**changes), keep, 9.0)


def test_a_conclusion_is_kept() -> None:
    """Of a rollout that ended in any way, for an arm that did no harm, or for both."""
    assert "A" == conclude(rollout(state=State.ROLLED_BACK, fault="B"), "A", 9.0).kept
    for state in (State.SUCCEEDED, State.CANCELLED):
        assert "both" == conclude(rollout(state=state), "both", 9.0).kept

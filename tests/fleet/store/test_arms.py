"""A rollout with two arms on a real database: drawn, judged each for itself, observed, compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import col, func, select, update

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.gate import Margins, Metric, Policy
from edgeopt_fleet.gate.arms import Result, Side
from edgeopt_fleet.problems import ProblemError
from edgeopt_fleet.rollout import Arm, Count, Event, State, Trial, Wave
from edgeopt_fleet.store.arms import BOTH
from edgeopt_fleet.store.looks import Looks
from edgeopt_fleet.store.rollout_reports import RolloutReport
from edgeopt_fleet.store.rollouts import Plan
from edgeopt_fleet.store.tables import ArmStartRow, BaselineRow, EvidenceRow
from tests.fleet.conftest import Kit

DEVICES = tuple(f"cam-{number:02}" for number in range(16))
POLICY = Policy(minimum_rows=100, bake_seconds=2.0, interval_seconds=5.0, max_confidence_drop=0.3)
MARGINS = Margins(minimum_rows=500, device_rows=100)


def plan(
    name: str, *bundles: str, percents: tuple[int, int] = (50, 50), waves: tuple[str, ...] = ("50%", "100%")
) -> Plan:
    """Return a plan of two arms, or of one bundle for all."""
    arms = tuple(Arm(bundle=bundle, percent=percent) for bundle, percent in zip(bundles, percents, strict=False))
    return Plan(
        name=name,
        bundle=bundles[0],
        cohort="all",
        waves=tuple(Wave.parse(wave) for wave in waves),
        policy=POLICY,
        trial=Trial(arms=arms, observe_seconds=100.0, margins=MARGINS) if len(arms) > 1 else None,
    )


def by_arm(report: RolloutReport) -> dict[str, list[str]]:
    """Return the devices of each arm."""
    found: dict[str, list[str]] = {}
    for member in report.members.values():
        found.setdefault(member.arm, []).append(member.device)
    return found


def confirm_and_serve(kit: Kit, name: str, values: dict[str, dict[str, Any]]) -> None:
    """Let every device that was offered its bundle confirm it and serve, each arm with its ``values``."""
    for device, member in kit.rollouts.report(name).members.items():
        if member.exposed:
            if member.outcome is None:
                kit.report(device, DeviceState.CONFIRMED, member.bundle)
            for _ in range(3):
                kit.serve(device, member.bundle, **values.get(member.arm, {}))


def carried_out(kit: Kit, name: str, values: dict[str, dict[str, Any]] | None = None) -> State:
    """Bring a rollout through its waves; return the state in which it stands then."""
    kit.rollouts.apply(name, None, kit.now)
    for _ in range(4):
        confirm_and_serve(kit, name, values or {})
        kit.now += 10
        kit.rollouts.advance(name, kit.now)
        kit.rollouts.advance(name, kit.now)
    state: State = kit.rollouts.report(name).rollout.state
    return state


def old_version(kit: Kit) -> str:
    """Enrol all devices, bring a first version to them, and let it serve."""
    kit.enrol(*DEVICES)
    old: str = kit.publish("1")
    kit.rollouts.create(plan("v1", old, waves=("100%",)), kit.now)
    assert State.SUCCEEDED == carried_out(kit, "v1")
    return old


def test_both_arms_are_brought_out_observed_and_compared(kit: Kit) -> None:
    """Waves hold both in proportion; the observation ends with a verdict; devices stay where they are."""
    old = old_version(kit)
    new = kit.publish("2")
    kit.rollouts.create(plan("ab", old, new), kit.now)
    arms = by_arm(kit.rollouts.report("ab"))
    assert {"A": 8, "B": 8} == {arm: len(devices) for arm, devices in arms.items()}
    waves = [[m.arm for m in kit.rollouts.report("ab").members.values() if m.wave == wave] for wave in (0, 1)]
    assert [(4, 4), (4, 4)] == [(wave.count("A"), wave.count("B")) for wave in waves]

    assert State.OBSERVING is carried_out(kit, "ab", {"B": {"confidence": 0.75}})
    began = kit.rollouts.report("ab").rollout.step_started_at
    kit.rollouts.advance("ab", began + 99)
    assert State.OBSERVING is kit.rollouts.report("ab").rollout.state, "no comparison before its time"
    kit.rollouts.advance("ab", began + 105)
    record = kit.rollouts.report("ab").rollout
    assert (State.SUCCEEDED, "A is better: B is less confident") == (record.state, record.reason)
    running = {device: kit.registry.device(device).desired_bundle for device in DEVICES}
    assert running == {device: old if arm == "A" else new for arm, devices in arms.items() for device in devices}
    with kit.database.reading() as session:
        left = [session.exec(select(func.count()).select_from(t)).one() for t in (ArmStartRow, BaselineRow)]
    assert [0, 0] == left, "what was only needed while it ran is forgotten"


def test_the_arm_that_harms_goes_back_alone(kit: Kit) -> None:
    """The other arm's confirmed devices keep what they have; nobody is offered anything any more."""
    old = old_version(kit)
    good, bad = kit.publish("2"), kit.publish("3")
    kit.rollouts.create(plan("ab", good, bad), kit.now)
    assert State.ROLLING_BACK is carried_out(kit, "ab", {"B": {"confidence": 0.2}})
    report = kit.rollouts.report("ab")
    assert "B" == report.rollout.fault
    assert "arm B: the confidence fell by" in report.rollout.reason
    for member in report.members.values():
        wanted = kit.registry.device(member.device).desired_bundle
        if member.wave:
            assert (0, old) == (member.attempt, wanted), "the second wave was never offered anything"
        else:
            assert (old if member.arm == "B" else good) == wanted
            assert (member.arm == "B") == member.withdrawn
    for member in report.members.values():
        if member.withdrawn:
            kit.report(member.device, DeviceState.CONFIRMED, old)
    kit.rollouts.advance("ab", kit.now + 10)
    record = kit.rollouts.report("ab").rollout
    assert (State.ROLLED_BACK, "B") == (record.state, record.fault)


def test_failures_of_one_arm_are_not_diluted_by_the_other(kit: Kit) -> None:
    """One of four updates of arm B fails, none of arm A: 25 % of an arm, above the 20 % allowed; 12.5 % of all."""
    old = old_version(kit)
    new = kit.publish("2")
    one = plan("ab", old, new)
    kit.rollouts.create(replace(one, policy=replace(POLICY, failure_threshold=0.2)), kit.now)
    kit.rollouts.apply("ab", Event.STARTED, kit.now)
    members = [m for m in kit.rollouts.report("ab").members.values() if m.exposed]
    failing = next(m.device for m in members if m.arm == "B")
    for member in members:
        failed = member.device == failing
        kit.report(
            member.device, DeviceState.FAILED if failed else DeviceState.CONFIRMED, old if failed else member.bundle
        )
    kit.rollouts.advance("ab", kit.now + 1)
    record = kit.rollouts.report("ab").rollout
    assert (State.ROLLING_BACK, "B") == (record.state, record.fault)
    assert "arm B: 1 of 4 executed devices failed in this wave (25%, at most 20% allowed)" == record.reason


def test_too_few_rows_are_waited_for_but_not_for_ever(kit: Kit) -> None:
    """After the observation as long again; then it ends and says what was missing."""
    old = old_version(kit)
    new = kit.publish("2")
    one = plan("ab", old, new)
    assert one.trial is not None
    patient = replace(one.trial, margins=replace(MARGINS, minimum_rows=10**6))
    kit.rollouts.create(replace(one, trial=patient), kit.now)
    assert State.OBSERVING is carried_out(kit, "ab")
    began = kit.rollouts.report("ab").rollout.step_started_at
    for seconds, state in ((150.0, State.OBSERVING), (230.0, State.SUCCEEDED)):
        kit.rollouts.advance("ab", began + seconds)
        assert state is kit.rollouts.report("ab").rollout.state
    assert "not enough data" == kit.rollouts.report("ab").rollout.reason


def test_what_is_left_over_keeps_what_it_runs(kit: Kit) -> None:
    """Two arms of a quarter each: half of the devices are no members, and hear of nothing."""
    old = old_version(kit)
    record = kit.rollouts.create(plan("ab", kit.publish("2"), kit.publish("3"), percents=(25, 25)), kit.now)
    assert 8 == record.tally.total(Count.MEMBERS)
    assert (4, 4) == (record.tally.total(Count.MEMBERS, "A"), record.tally.total(Count.MEMBERS, "B"))
    kit.rollouts.apply("ab", Event.STARTED, kit.now)
    members = set(kit.rollouts.report("ab").members)
    assert all(old == kit.registry.device(device).desired_bundle for device in set(DEVICES) - members)


@pytest.mark.parametrize("wrong", ["same", "nobody", "unknown"])
def test_arms_that_cannot_be_are_refused(kit: Kit, wrong: str) -> None:
    """The same bundle twice under two prefixes, one device for two arms, a bundle that is not there."""
    kit.enrol(*DEVICES[:1] if wrong == "nobody" else DEVICES)
    first, second = kit.publish("1"), kit.publish("2")
    bundles = {"same": (first, first[:20]), "nobody": (first, second), "unknown": (first, "f" * 64)}[wrong]
    with pytest.raises(ProblemError, match=r"expected two different|two arms need|no bundle"):
        kit.rollouts.create(plan("ab", *bundles), kit.now)


def test_a_dry_run_of_two_arms_writes_nothing(kit: Kit) -> None:
    """Members and arms are those that it would have."""
    old_version(kit)
    one = plan("ab", kit.publish("2"), kit.publish("3"))
    planned = kit.rollouts.plan(one, kit.now)
    assert (["digits 2", "digits 3"], ()) == ([*planned.bundle_names.values()], planned.problems)
    kit.rollouts.create(one, kit.now)
    assert {m.device: m.arm for m in planned.members} == {
        m.device: m.arm for m in kit.rollouts.report("ab").members.values()
    }


def test_the_comparison_is_made_again_byte_for_byte(kit: Kit) -> None:
    """From stored evidence; the arms' own looks are told apart; who changes the evidence is found."""
    old = old_version(kit)
    kit.rollouts.create(plan("ab", old, kit.publish("2")), kit.now)
    carried_out(kit, "ab", {"B": {"confidence": 0.75}})
    kit.rollouts.advance("ab", kit.rollouts.report("ab").rollout.step_started_at + 105)
    looks = Looks(kit.database)
    (found,) = looks.comparisons("ab")
    assert (Result.A, True, 1) == (found.verdict.result, found.same, found.verdict.number)
    confidence = {one.metric: one for one in found.verdict.differences if not one.group}[Metric.CONFIDENCE]
    assert (Side.A, 8, 8) == (confidence.side, confidence.devices_a, confidence.devices_b)
    assert 0.1 == pytest.approx(confidence.estimate, abs=0.01)
    replayed = looks.replay("ab", {}, 100)
    assert {"A", "B"} == {one.stored.arm for one in replayed}
    assert all(one.same for one in replayed)
    assert all(one.same for one in looks.replay("ab", {"count": "1"}, 100)), "each arm has a history of its own"
    with kit.database.transaction() as session:
        wider = found.stored.policy.replace(b'"confidence_points":0.01', b'"confidence_points":0.5')
        assert wider != found.stored.policy
        session.execute(update(EvidenceRow).where(col(EvidenceRow.arm) == BOTH).values(policy=wider))
    assert [False] == [one.same for one in looks.comparisons("ab")]

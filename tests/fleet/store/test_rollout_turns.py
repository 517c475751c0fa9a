"""What a rollout does to rows: rates, priorities, approval, a dry run, a recall of a large fleet."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest
from sqlalchemy import insert
from sqlmodel import col, select, update

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.acting import Actor, acting_as
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.problems import ConflictError
from edgeopt_fleet.rollout import Event, Execution, Pace, State, Tally, Wave
from edgeopt_fleet.store.changes import next_change
from edgeopt_fleet.store.rollout_rows import members
from edgeopt_fleet.store.rollouts import Plan
from edgeopt_fleet.store.tables import AuditRow, DeviceRow, MemberRow, RolloutRow
from tests.fleet.conftest import Kit

POLICY = Policy(minimum_rows=0, failure_threshold=1.0, step_timeout_seconds=1e6)
DEVICES = [f"cam-{number}" for number in range(6)]
LARGE = int(os.environ.get("EDGEOPT_RECALL_DEVICES", "1000"))  # the whole proof: 5000


def plan(name: str, bundle: str, waves: str = "100%", **execution: object) -> Plan:
    """Return a plan over everybody."""
    return Plan(
        name=name,
        bundle=bundle,
        cohort="all",
        waves=tuple(Wave.parse(wave) for wave in waves.split(",")),
        policy=POLICY,
        execution=Execution(**execution),  # type: ignore[arg-type]  # whatever a test asks for
    )


def check_counts(kit: Kit, name: str) -> None:
    """Compare the counts that are kept with fresh ones."""
    with kit.database.reading() as session:
        row = session.get(RolloutRow, name)
        assert row is not None
        everyone = members(session, select(MemberRow).where(MemberRow.rollout == name))
    assert Tally().moved([(None, member) for member in everyone]).counts == row.tally


def test_a_rate_is_kept_over_turns(kit: Kit) -> None:
    """Two a minute: one at the start, the next half a minute later, whoever is offline as well."""
    kit.enrol(*DEVICES)
    kit.status(DEVICES[0], online=False)
    kit.rollouts.create(plan("v1", kit.publish("1"), pace=Pace(maximum_per_minute=2)), kit.now)
    counts = [len(kit.rollouts.apply("v1", None, kit.now))]
    for _ in range(8):
        kit.now += 15
        counts.append(len(kit.rollouts.advance("v1", kit.now)))
    assert [1, 0, 1, 0, 1, 0, 1, 0, 1] == counts
    check_counts(kit, "v1")


def test_the_more_urgent_rollout_takes_the_devices(kit: Kit) -> None:
    """An equal one is refused; the urgent one takes what was not offered at its start, and the rest as it offers."""
    kit.enrol(*DEVICES)
    slow, fix = kit.publish("slow"), kit.publish("fix")
    kit.rollouts.create(plan("slow", slow, "2 devices,100%"), kit.now)
    kit.rollouts.apply("slow", None, kit.now)
    with pytest.raises(ConflictError, match="as urgent"):
        kit.rollouts.create(plan("fix", fix), kit.now)
    kit.rollouts.create(plan("fix", fix, "50%,100%", priority=900), kit.now)
    kit.rollouts.apply("fix", None, kit.now)
    wanted = {name: desired.job.split(".")[0] for name, desired in kit.outbox.desired().items() if desired}
    fixing = {name for name, rollout in wanted.items() if rollout == "fix"}
    assert (3, {"slow"}) == (len(fixing), set(wanted.values()) - {"fix"} or {"slow"})
    kit.rollouts.advance("slow", kit.now)
    for name in ("slow", "fix"):
        check_counts(kit, name)
    taken = [member.device for member in kit.rollouts.report("slow").members.values() if member.taken]
    assert len(taken) >= 4
    kit.rollouts.apply("fix", Event.ROLL_BACK_ORDERED, kit.now)
    assert {f"fix.2.{name}" for name in fixing} <= {w.job for w in kit.outbox.desired().values() if w} | {
        row.desired_job for row in (kit.registry.device(name) for name in fixing)
    }


def test_approval_comes_before_the_start_and_is_told(kit: Kit) -> None:
    """Nobody is offered anything before; who created and approved it stands in the record and in the log."""
    kit.enrol(*DEVICES)
    with acting_as(Actor(name="alice", via="api")):
        kit.rollouts.create(replace(plan("v1", kit.publish("1")), approval=True), kit.now)
        assert set() == kit.rollouts.apply("v1", None, kit.now)
    assert State.AWAITING_APPROVAL is kit.rollouts.report("v1").rollout.state
    assert [] == kit.rollouts.unsettled()
    with acting_as(Actor(name="bob", via="api")):
        assert set(DEVICES) == kit.rollouts.apply("v1", Event.APPROVED, kit.now, reason="looks good")
    record = kit.rollouts.report("v1").rollout
    assert ("alice", "bob", "looks good") == (record.created_by, record.approved_by, record.approval_reason)
    with kit.database.reading() as session:
        told = session.exec(select(AuditRow.actor, AuditRow.operation).where(AuditRow.subject == "rollout/v1")).all()
    assert ("bob", "rollout.approved") in told
    assert ("alice", "rollout.create") in told


def test_a_start_time_is_waited_for(kit: Kit) -> None:
    """Scheduled until then, with nobody offered anything."""
    kit.enrol(*DEVICES)
    kit.rollouts.create(plan("v1", kit.publish("1"), start_at=2000), kit.now)
    assert set() == kit.rollouts.apply("v1", None, kit.now)
    assert State.SCHEDULED is kit.rollouts.report("v1").rollout.state
    assert set() == kit.rollouts.advance("v1", 1999.0)
    assert set(DEVICES) == kit.rollouts.advance("v1", 2000.0)


def test_a_dry_run_writes_nothing(kit: Kit) -> None:
    """It shows members, waves, who is away and why it would be refused; no row and no desired state is there after."""
    kit.enrol(*DEVICES)
    kit.status(DEVICES[0], online=False)
    bundle = kit.publish("1")
    planned = kit.rollouts.plan(plan("v1", bundle, "50%,100%", pace=Pace(maximum_per_minute=6)), kit.now)
    assert ((), {DEVICES[0]}, set(DEVICES)) == (planned.problems, planned.offline, {m.device for m in planned.members})
    assert ([], {}) == (kit.rollouts.names(), kit.outbox.desired())
    kit.rollouts.create(plan("v1", bundle), kit.now)
    refused = kit.rollouts.plan(plan("v1", bundle), kit.now).problems
    assert ["never used twice", "as urgent"] == [
        words for words in ("never used twice", "as urgent") if any(words in str(problem) for problem in refused)
    ]


def enrol_many(kit: Kit, number: int, running: str) -> None:
    """Write rows of devices that run a bundle; enrolling each with a certificate would take minutes."""
    same = {"tags": {}, "capabilities": {}, "machine": {}, "gauges": {}, "enrolled_at": 1, "running": running}
    rows = [{"id": f"d{index:05}", "online": index % 50 != 0} | same for index in range(number)]
    with kit.database.transaction() as session:
        session.connection().execute(insert(DeviceRow.__table__), rows)  # type: ignore[attr-defined]  # SQLModel makes it


def all_report(kit: Kit, name: str, state: DeviceState, *, online: bool | None = None) -> int:
    """Let every device on a job of the rollout report that it did what it was told; return how many."""
    jobs = col(DeviceRow.desired_job).startswith(f"{name}.")
    here = jobs if online is None else jobs & (col(DeviceRow.online) == online)
    with kit.database.transaction() as session:
        done = session.execute(
            update(DeviceRow)
            .where(here)
            .values(
                job=DeviceRow.desired_job,
                state=str(state),
                running=DeviceRow.desired_bundle,
                changed=next_change(session),
                online=True,
            )
        )
    return int(done.rowcount)  # type: ignore[attr-defined]  # of an UPDATE


@pytest.mark.stateful
@pytest.mark.timeout(280)
def test_a_recall_reaches_all_and_a_look_costs_what_changed(kit: Kit) -> None:
    """20 % of the fleet were offered a bundle and are recalled in one turn; a quiet look reads no member."""
    old, new = kit.publish("old"), kit.publish("new")
    enrol_many(kit, LARGE, old)
    kit.rollouts.create(plan("v2", new, "20%,100%"), kit.now)
    exposed = kit.rollouts.apply("v2", None, kit.now)
    assert LARGE // 5 == len(exposed)
    all_report(kit, "v2", DeviceState.CONFIRMED, online=True)

    started = time.perf_counter()
    back = kit.rollouts.apply("v2", Event.ROLL_BACK_ORDERED, kit.now)
    recall = time.perf_counter() - started
    assert exposed == back
    assert {old} == {wanted.bundle for wanted in kit.outbox.desired(back).values() if wanted}

    absent = LARGE // 5 - all_report(kit, "v2", DeviceState.CONFIRMED, online=True)
    started = time.perf_counter()
    kit.rollouts.advance("v2", kit.now)
    heard = time.perf_counter() - started
    assert State.ROLLED_BACK is kit.rollouts.report("v2").rollout.state
    assert ["v2"] == kit.rollouts.unsettled()
    all_report(kit, "v2", DeviceState.CONFIRMED)  # those that were away, at their return
    kit.rollouts.advance("v2", kit.now)
    assert [] == kit.rollouts.unsettled()
    check_counts(kit, "v2")
    print(
        f"{LARGE} devices, {len(exposed)} exposed, {absent} of them away: orders written in {recall:.2f} s, "
        f"all returns heard in {heard:.2f} s"
    )

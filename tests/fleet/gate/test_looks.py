"""What the gate said is stored with its evidence, explained, and computed again byte for byte."""

from __future__ import annotations

import dataclasses

import pytest
from sqlmodel import col, select, update

from edgeopt_contract.errors import MessageError
from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.gate import Policy, decode
from edgeopt_fleet.gate.replaying import changed_policy
from edgeopt_fleet.problems import InvalidError, NotFoundError
from edgeopt_fleet.rollout import Event, Wave
from edgeopt_fleet.store.looks import Looks
from edgeopt_fleet.store.rollouts import Plan
from edgeopt_fleet.store.tables import EvidenceRow
from tests.fleet.conftest import Api, Kit

DEVICES = tuple(f"cam-{number}" for number in range(6))
POLICY = Policy(minimum_rows=100, bake_seconds=2.0, interval_seconds=5.0)


def rolled_out(kit: Kit, name: str, bundle: str, **values: float) -> None:
    """Bring a bundle to all devices in one wave; each serves, and the gate looks once."""
    plan = Plan(name=name, bundle=bundle, cohort="all", waves=(Wave.parse("100%"),), policy=POLICY)
    kit.rollouts.create(plan, kit.now)
    kit.rollouts.apply(name, Event.STARTED, kit.now)
    for device in DEVICES:
        kit.report(device, DeviceState.CONFIRMED, bundle)
        for _ in range(3):
            kit.serve(device, bundle, **values)
    kit.now += 10
    kit.rollouts.advance(name, kit.now)


def two_versions(kit: Kit) -> Looks:
    """Roll out a first version, and a second one that is less confident."""
    kit.enrol(*DEVICES)
    rolled_out(kit, "v1", kit.publish("1"))
    rolled_out(kit, "v2", kit.publish("2"), confidence=0.4)
    return Looks(kit.database)


def test_every_verdict_is_computed_again_byte_for_byte(kit: Kit) -> None:
    """Looks of both rollouts are kept with policy, rules and evidence, and judge to the same bytes."""
    looks = two_versions(kit)
    first, second = looks.replay("v1", {}, 100), looks.replay("v2", {}, 100)
    assert ["promote"] == [one.verdict.decision for one in first if one.verdict.decision == "promote"]
    assert "roll_back" == second[-1].verdict.decision
    assert all(one.same for one in (*first, *second))
    assert POLICY == changed_policy(second[-1].stored.policy, {})
    assert DEVICES == decode(second[-1].stored.evidence).exposed.devices.names


def test_a_verdict_that_was_tampered_with_differs(kit: Kit) -> None:
    """Whoever writes another verdict, or another policy, into the database is found."""
    looks = two_versions(kit)
    with kit.database.transaction() as session:
        newest = session.exec(select(EvidenceRow).order_by(col(EvidenceRow.id).desc())).first()
        assert newest is not None
        other = newest.policy.replace(b'"max_confidence_drop":0.1', b'"max_confidence_drop":0.9')
        assert other != newest.policy
        session.execute(update(EvidenceRow).where(col(EvidenceRow.id) == newest.id).values(policy=other))
    assert [False] == [one.same for one in looks.replay("v2", {}, 100)][-1:]


def test_another_policy_would_have_decided_otherwise(kit: Kit) -> None:
    """What-if: with half a point of confidence allowed to be lost the second version would have passed."""
    looks = two_versions(kit)
    assert "promote" == looks.replay("v2", {"max_confidence_drop": "0.6"}, 100)[-1].verdict.decision
    assert "hold" == looks.replay("v2", {"failure_limit": "3"}, 100)[-1].verdict.decision
    for wrong in ({"speed": "1"}, {"count": "0"}, {"count": "many"}, {"dry_run": "speed"}):
        with pytest.raises(InvalidError):
            looks.replay("v2", wrong, 100)
    with pytest.raises(NotFoundError):
        looks.explain("v9", 10)


def test_evidence_that_is_cut_short_is_refused(kit: Kit) -> None:
    """Not judged as if it were whole."""
    stored = two_versions(kit).explain("v2", 1)[0].stored
    for broken in (b"", stored.evidence[:-5], b"x" + stored.evidence, dataclasses.replace(stored).verdict):
        with pytest.raises(MessageError, match="stored evidence"):
            decode(broken)


async def test_the_api_explains_and_replays(api: Api) -> None:
    """Findings with figures, reasons in words; and whether each look is judged the same again."""
    two_versions(api.kit)
    shown = await api.call("GET", "rollouts/v2/explanation", 200)
    last = shown["items"][-1]
    assert ("roll_back", "failed", True) == (last["decision"], last["look"], last["same"])
    (confidence,) = [one for one in last["findings"] if (one["metric"], one["group"]) == ("confidence", "")]
    assert "worse" == confidence["standing"]
    assert confidence["lower"] > confidence["allowed"]
    assert any("the confidence fell by 0.4" in reason for reason in last["reasons"])

    again = await api.call("GET", "rollouts/v2/replay", 200)
    assert again["same"]
    other = await api.call("GET", "rollouts/v2/replay?what_if=max_confidence_drop=0.6", 200)
    assert ("promote", False) == (other["items"][-1]["decision"], other["same"])
    await api.call("GET", "rollouts/v9/explanation", 404)
    await api.call("GET", "rollouts/v2/replay?what_if=count=0", 422)

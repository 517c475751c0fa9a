"""Two arms over the API: created, shown, compared, and concluded."""

from __future__ import annotations

from typing import Any

import pytest

from edgeopt_contract.messages import DeviceState
from tests.fleet.conftest import Api

DEVICES = tuple(f"cam-{number:02}" for number in range(16))
OBSERVATION = {"seconds": 100.0, "minimum_rows": 500, "device_rows": 100}
POLICY = {"minimum_rows": 100, "bake_seconds": 2.0, "max_confidence_drop": 0.3}


async def serve_all(api: Api, name: str, worse: float | None = None) -> dict[str, Any]:
    """Let exposed devices confirm and serve, arm B with this confidence; let the worker look; return the rollout."""
    kit = api.kit
    for _ in range(4):
        for device, member in kit.rollouts.report(name).members.items():
            if member.exposed and not member.withdrawn:
                if member.outcome is None:
                    kit.report(device, DeviceState.CONFIRMED, member.bundle)
                for _window in range(3):
                    better = {} if member.arm != "B" or worse is None else {"confidence": worse}
                    kit.serve(device, member.bundle, **better)
        kit.now += 10
        await api.worker.tick()
    return dict(await api.call("GET", f"rollouts/{name}", 200))


async def with_arms(api: Api, **changes: Any) -> tuple[str, str]:
    """Bring a first version out, and begin a rollout ``ab`` of it beside a second one."""
    kit = api.kit
    kit.enrol(*DEVICES)
    old = kit.publish("1")
    body = {"name": "v1", "bundle": old, "waves": [100], "policy": POLICY}
    await api.call("POST", "rollouts", 201, json=body)
    assert "succeeded" == (await serve_all(api, "v1"))["state"]
    new = kit.publish("2")
    arms = [{"bundle": old[:12], "percent": 50}, {"bundle": new[:12], "percent": 50}]
    body = {"name": "ab", "arms": arms, "observation": OBSERVATION, "waves": [50, 100], "policy": POLICY}
    await api.call("POST", "rollouts", 201, json=body | changes)
    return old, new


async def observed(api: Api, worse: float | None = 0.75) -> dict[str, Any]:
    """Bring ``ab`` to its end; return its comparison."""
    assert "observing" == (await serve_all(api, "ab", worse))["state"]
    api.kit.now += 120
    await api.worker.tick()
    return dict(await api.call("GET", "rollouts/ab/comparison", 200))


async def test_two_arms_are_shown_compared_and_concluded(api: Api) -> None:
    """The loser's devices get the winner's bundle by an ordinary rollout; the second decision is refused."""
    old, new = await with_arms(api)
    shown = await api.call("GET", "rollouts/ab", 200)
    assert [("A", old, "digits 1", 8), ("B", new, "digits 2", 8)] == [
        (arm["arm"], arm["bundle"], arm["bundle_name"], arm["members"]) for arm in shown["arms"]
    ]
    assert {"A", "B"} == {member["arm"] for member in shown["members"]}
    early = await api.call("GET", "rollouts/ab/comparison", 200)
    assert (None, 100.0, {"A": 0, "B": 0}) == (early["compared"], early["observe_seconds"], early["rows"])
    await api.call("POST", "rollouts/ab/conclude", 409, json={"keep": "A", "rollout": "rest"})

    found = await observed(api)
    assert ("succeeded", "a_better", True) == (found["state"], found["compared"]["result"], found["compared"]["same"])
    assert "A is better: B is less confident" == found["compared"]["reasons"][0]
    explained = await api.call("GET", "rollouts/ab/explanation", 200)
    assert [found["compared"]] == explained["comparisons"]
    replayed = await api.call("GET", "rollouts/ab/replay", 200)
    assert (True, 1) == (replayed["same"], len(replayed["comparisons"]))

    kept = await api.call("POST", "rollouts/ab/conclude", 200, json={"keep": "A", "rollout": "rest", "waves": [100]})
    rest = kept["rollout"]
    assert ("A", "running", old) == (kept["kept"], rest["state"], rest["bundle"])
    losers = {member["device"] for member in shown["members"] if member["arm"] == "B"}
    assert losers == {member["device"] for member in rest["members"]}
    assert "A" == (await api.call("GET", "rollouts/ab", 200))["kept"]
    await api.call("POST", "rollouts/ab/conclude", 409, json={"keep": "B", "rollout": "rest-2"})
    log = await api.call("GET", "audit?subject=rollout/ab", 200)
    assert "rollout.conclude" in [entry["operation"] for entry in log["items"]]
    assert "succeeded" == (await serve_all(api, "rest"))["state"]
    assert {old} == {api.kit.registry.device(device).desired_bundle for device in DEVICES}


async def test_both_may_stay_and_then_nothing_is_rolled_out(api: Api) -> None:
    """Each device keeps its arm's bundle."""
    await with_arms(api)
    await observed(api, worse=None)
    kept = await api.call("POST", "rollouts/ab/conclude", 200, json={"keep": "both", "rollout": "rest"})
    assert {"kept": "both", "rollout": None} == kept
    await api.call("GET", "rollouts/rest", 404)


async def test_a_conclusion_that_cannot_be_rolled_out_is_not_made(api: Api) -> None:
    """The name is taken: 409, and it may be decided again under another one."""
    await with_arms(api)
    await observed(api)
    await api.call("POST", "rollouts/ab/conclude", 409, json={"keep": "A", "rollout": "v1"})
    assert "" == (await api.call("GET", "rollouts/ab", 200))["kept"]
    await api.call("POST", "rollouts/ab/conclude", 200, json={"keep": "A", "rollout": "rest", "start": False})


async def test_the_rest_is_approved_like_the_rollout_was(api: Api) -> None:
    """A conclusion is no way around four eyes."""
    old, new = await with_arms(api)
    await api.call("POST", "rollouts/ab/cancel", 200)
    await serve_all(api, "ab")
    arms = [{"bundle": new, "percent": 10}, {"bundle": old, "percent": 10}]
    body = {"name": "ab2", "arms": arms, "observation": OBSERVATION, "approval": True}
    assert "awaiting_approval" == (await api.call("POST", "rollouts", 201, json=body))["state"]
    await api.call("POST", "rollouts/ab2/cancel", 200)
    kept = await api.call("POST", "rollouts/ab2/conclude", 200, json={"keep": "A", "rollout": "rest"})
    assert ("awaiting_approval", True) == (kept["rollout"]["state"], kept["rollout"]["approval"])


async def test_a_rollout_without_arms_has_nothing_to_compare_or_to_decide(api: Api) -> None:
    """409 with a reason; 404 for one that is not there."""
    api.kit.enrol("cam-1")
    await api.call("POST", "rollouts", 201, json={"name": "v1", "bundle": api.kit.publish("1")})
    assert "no two arms" in (await api.call("GET", "rollouts/v1/comparison", 409))["detail"]
    keep = {"keep": "A", "rollout": "rest"}
    assert "no two arms" in (await api.call("POST", "rollouts/v1/conclude", 409, json=keep))["detail"]
    await api.call("GET", "rollouts/v9/comparison", 404)
    await api.call("POST", "rollouts/v9/conclude", 404, json=keep)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bundle": None, "arms": []},
        {"bundle": "ab"},
        {"arms": [{"bundle": "ab", "percent": 50}]},
        {"arms": [{"bundle": "ab", "percent": 60}, {"bundle": "cd", "percent": 50}]},
        {"arms": [{"bundle": "ab", "percent": 50}, {"bundle": "ab", "percent": 50}]},
        {"arms": [{"bundle": "ab", "percent": 100}, {"bundle": "cd", "percent": 0}]},
        {"observation": {"seconds": 0.0}},
        {"observation": {"confidence": 1.0}},
        {"observation": {"latency": -1.0}},
    ],
)
async def test_arms_that_cannot_be_are_refused(api: Api, wrong: dict[str, Any]) -> None:
    """422 with what was expected."""
    arms = [{"bundle": "ab", "percent": 50}, {"bundle": "cd", "percent": 50}]
    answer = await api.call("POST", "rollouts", 422, json={"name": "ab", "arms": arms} | wrong)
    assert "expected" in answer["detail"]

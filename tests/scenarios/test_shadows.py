"""A challenger beside the champion with real agents: its agreement is known beforehand, device by device."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.system import System, wait_until
from tests.scenarios.conftest import Fleet, on_first_version
from tests.scenarios.shadow_fields import OTHER

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(600)]

ALIKE, UNLIKE = ("cam-1", "cam-2"), ("cam-3",)  # what they see is answered alike, or not
CAMS = (*ALIKE, *UNLIKE)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Start server, broker and three agents that serve version 1; one of them sees other things than the others."""
    with System(tmp_path) as system:
        system.start_fleet("--tick-seconds", "0.2")
        system.enrol({device: {"site": "test"} for device in CAMS})
        for device in CAMS:
            source = "agreeing" if device in ALIKE else "disagreeing"
            words = ("--source", f"tests.scenarios.shadow_fields:{source}", "--interval", "0.02", "--window", "0.5")
            system.start_agent(device, *words)
        yield on_first_version(system)


def shadow(fleet: Fleet, bundle: str, *options: str) -> None:
    """Let a challenger run beside the champion on every request."""
    fleet.system.edgeopt("shadow", "create", "next", "--bundle", bundle, "--share", "100%", "--for", "1h", *options)


def agreement(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """Return what each device compared so far."""
    return {one["device"]: one for one in fleet.system.get("shadows/next/agreement")["devices"]}


def compared(fleet: Fleet, rows: int) -> Callable[[], bool]:
    """Return whether every device has compared so many rows."""
    return lambda: (
        len(found := agreement(fleet)) == len(CAMS) and all(one["compared"] >= rows for one in found.values())
    )


def go_on(fleet: Fleet, rows: int) -> None:
    """Wait until every device has compared so many rows more."""
    before = agreement(fleet)
    wait_until(
        "every device to go on",
        lambda: all(agreement(fleet)[cam]["compared"] >= before[cam]["compared"] + rows for cam in CAMS),
        seconds=120,
    )


def states(fleet: Fleet) -> dict[str, str]:
    """Return what the members said last."""
    return {one["device"]: one["state"] for one in fleet.system.get("shadows/next")["members"]}


def test_a_challenger_that_differs_on_known_inputs_is_not_recommended(fleet: Fleet) -> None:
    """Two devices agree on everything and one on nothing, exactly; nothing of it is taken for serving."""
    other = fleet.publish("2", weights_seed=OTHER.weights_seed)
    shadow(fleet, other, "--rule", "minimum_rows=50")
    wait_until("every device to compare", compared(fleet, 100), seconds=120)
    found = agreement(fleet)
    for device in CAMS:
        one = found[device]
        assert (one["compared"] if device in ALIKE else 0, 0, 0) == (one["agreed"], one["incomparable"], one["errors"])
        assert one["champion_us"] > 0
        assert one["challenger_us"] > 0
    view = json.loads(fleet.system.edgeopt("shadow", "watch", "next", "--json", expect=3).splitlines()[-1])
    assert "do_not_recommend" == view["verdict"]["decision"]
    look = fleet.system.get("shadows/next/looks")
    assert look["same"]
    assert pytest.approx(2 / 3) == look["items"][-1]["figures"]["over_all"]["share"]
    assert dict.fromkeys(CAMS, fleet.old) == fleet.running()
    windows = [one["bundle"] for cam in CAMS for one in fleet.system.get(f"devices/{cam}/windows")["items"]]
    assert {fleet.old} == set(windows)
    assert "confirmed" == fleet.system.get("devices/cam-1")["update"]["state"]
    fleet.system.edgeopt("shadow", "promote", "next", expect=2)
    fleet.system.edgeopt("shadow", "end", "next")
    wait_until("the devices to let go", lambda: dict.fromkeys(CAMS, "superseded") == states(fleet))


def test_killed_processes_end_no_shadow_and_what_is_recommended_is_promoted(fleet: Fleet) -> None:
    """Server, broker and an agent are killed on the way; all agree, so it is recommended, and its rollout ordinary."""
    same = fleet.publish("3", sharpness=5.0)  # other scores, the same classes
    any_speed = ("--rule", "max_latency_ratio=100000")  # a busy machine says nothing about the time of a challenger
    few_rows = ("--rule", "minimum_rows=50", "--minimum-agreement", "60%", "--rule", "minimum_class_agreement=0.3")
    shadow(fleet, same, *few_rows, *any_speed)
    wait_until("every device to compare", compared(fleet, 30), seconds=120)
    fleet.system.kill_broker()
    go_on(fleet, 10)
    assert fleet.system.server is not None
    fleet.system.server.kill()
    fleet.system.start_fleet()
    agent = fleet.system.agents["cam-2"]
    agent.kill()
    agent.start()
    go_on(fleet, 50)
    fleet.system.edgeopt("shadow", "watch", "next")
    found = agreement(fleet)
    assert {cam: found[cam]["compared"] for cam in CAMS} == {cam: found[cam]["agreed"] for cam in CAMS}
    assert dict.fromkeys(CAMS, fleet.old) == fleet.running(), "it has answered nobody"
    fleet.system.edgeopt("shadow", "promote", "next", "--waves", "100%", "--rollout", "third")
    wait_until("the devices to serve it", lambda: dict.fromkeys(CAMS, same) == fleet.running(), seconds=120)
    wait_until("the shadow to be over there", lambda: set(states(fleet).values()) <= {"superseded", "rejected"})
    slots = [fleet.system.home_of(cam) / "slots" / "shadow" for cam in CAMS]
    wait_until("no place of it to be left on a device", lambda: not any(slot.exists() for slot in slots))

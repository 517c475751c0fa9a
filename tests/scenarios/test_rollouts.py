"""A rollout from end to end with real processes: what goes wrong, when, and how it must end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from demo.system import CommandError, wait_until
from tests.scenarios.conftest import AGENT_OPTIONS, DEVICES, Fleet

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(180)]


def _kill_an_agent(fleet: Fleet, rollout: str) -> None:
    agent = fleet.system.agents[DEVICES[0]]
    agent.kill()
    agent.start()


def _kill_the_broker(fleet: Fleet, rollout: str) -> None:
    fleet.system.kill_broker()


def _kill_the_server(fleet: Fleet, rollout: str) -> None:
    assert fleet.system.server is not None
    fleet.system.server.kill()
    fleet.system.start_fleet()


def _nothing(fleet: Fleet, rollout: str) -> None:
    pass


@dataclass(frozen=True)
class Scenario:
    """What is published, what is done to the system while it rolls out, and how it must end."""

    name: str
    bundle: dict[str, Any]
    disturbance: Callable[[Fleet, str], None]
    state: str
    devices_on_new: int


SCENARIOS = [
    Scenario("a good version", {}, _nothing, "succeeded", 4),
    Scenario("an agent is killed", {}, _kill_an_agent, "succeeded", 4),
    Scenario("the broker is killed", {}, _kill_the_broker, "succeeded", 4),
    Scenario("the server is killed", {}, _kill_the_server, "succeeded", 4),
    Scenario("golden outputs that no device reproduces", {"golden_error": True}, _nothing, "rolled_back", 0),
    Scenario("confidence collapses in the field", {"sharpness": 0.3}, _nothing, "rolled_back", 0),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_rollout_ends_right(fleet: Fleet, scenario: Scenario) -> None:
    """Whatever happens on the way, the rollout reaches its end and the devices run what it says."""
    new = fleet.publish("2", **scenario.bundle)

    fleet.start_rollout("second", new)
    scenario.disturbance(fleet, "second")
    view = fleet.system.wait_for_rollout("second", "succeeded", "rolled_back", "cancelled")

    assert scenario.state == view["state"], view["verdicts"]
    wait_until(
        "the devices to run what they should",
        lambda: scenario.devices_on_new == sum(digest == new for digest in fleet.running().values()),
    )
    assert {new, fleet.old} >= set(fleet.running().values())
    if scenario.state == "rolled_back":
        assert 0 == view["wave"]
        assert 3 == sum(m["state"] == "waiting" for m in view["members"])


def test_pause_exposes_nobody_and_resume_goes_on(fleet: Fleet) -> None:
    """While a rollout is paused no further device is offered the bundle."""
    new = fleet.publish("2")
    fleet.start_rollout("second", new, bake="2s")
    fleet.system.edgeopt("rollout", "pause", "second")

    wait_until("the first wave to end", lambda: "confirmed" in {m["state"] for m in fleet.members("second").values()})
    served = {d["id"]: d["telemetry"]["windows"] for d in fleet.system.get("devices")["items"]}
    wait_until(
        "three more windows of each device",
        lambda: all(d["telemetry"]["windows"] > served[d["id"]] + 3 for d in fleet.system.get("devices")["items"]),
    )
    assert 3 == sum(m["state"] == "waiting" for m in fleet.members("second").values())

    fleet.system.edgeopt("rollout", "resume", "second")
    fleet.system.wait_for_rollout("second", "succeeded")


def test_operator_rolls_back(fleet: Fleet) -> None:
    """``edgeopt rollout roll-back`` brings every exposed device back to what it ran."""
    new = fleet.publish("2")
    fleet.start_rollout("second", new)
    wait_until("a device on the new version", lambda: new in fleet.running().values())

    fleet.system.edgeopt("rollout", "roll-back", "second")

    fleet.system.wait_for_rollout("second", "rolled_back")
    assert {fleet.old} == set(fleet.running().values())


def test_cancel_leaves_confirmed_devices(fleet: Fleet) -> None:
    """After a cancellation nobody else is offered the bundle, and the confirmed keep it."""
    new = fleet.publish("2")
    fleet.start_rollout("second", new)
    wait_until("a confirmed device", lambda: "confirmed" in {m["state"] for m in fleet.members("second").values()})

    fleet.system.edgeopt("rollout", "cancel", "second")

    confirmed = {name for name, member in fleet.members("second").items() if member["state"] == "confirmed"}
    assert "cancelled" == fleet.system.rollout("second")["state"]
    wait_until(
        "the others to be back on the old version",
        lambda: confirmed == {name for name, digest in fleet.running().items() if digest == new},
    )


def test_an_offline_device_does_not_block_and_is_updated_when_it_returns(fleet: Fleet) -> None:
    """The fleet goes on without a device that is away; what it should run waits for it at the broker."""
    absent = DEVICES[3]
    fleet.system.agents[absent].stop()
    wait_until("the device to be offline", lambda: not fleet.system.get(f"devices/{absent}")["online"])
    new = fleet.publish("2")

    fleet.start_rollout("second", new, waves="100%")
    fleet.system.wait_for_rollout("second", "succeeded")
    assert fleet.old == fleet.running()[absent]

    fleet.system.agents[absent].start()
    wait_until("the returned device to run the new version", lambda: new == fleet.running()[absent])


def test_counts_agree_after_everything_was_killed(fleet: Fleet) -> None:
    """What each device numbered is what the server stored: nothing lost, nothing twice."""
    for device in DEVICES:
        fleet.system.agents[device].kill()
    fleet.system.kill_broker()
    _kill_the_server(fleet, "")
    for device in DEVICES:
        fleet.system.start_agent(device, *AGENT_OPTIONS, "--window", "3600")  # nothing new is numbered meanwhile

    def agree(device: str) -> bool:
        spool = fleet.system.agent_status(device)["spool"]
        (stored,) = fleet.system.get(f"devices/{device}/messages")["items"]
        numbered = (spool["session"], spool["last_number"], spool["last_number"], spool["rows"])
        return numbered == (stored["session"], stored["upto"], stored["stored"], stored["rows"])

    for device in DEVICES:
        wait_until(f"the counts of {device} to agree", lambda device=device: agree(device))


def test_a_changed_bundle_is_not_published(fleet: Fleet) -> None:
    """One byte changed in a bundle: exit code 2, one clear message, nothing published."""
    directory = fleet.system.directory / "2"
    fleet.publish("2")
    file = directory / "fp32.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)

    with pytest.raises(CommandError, match="got 2") as failure:
        fleet.system.edgeopt("publish", str(directory))

    assert "expected SHA-256" in str(failure.value)
    assert "Traceback" not in str(failure.value)


def test_a_server_that_is_down_gives_exit_code_5(fleet: Fleet) -> None:
    """An unreachable fleet: exit code 5 and the address, no traceback."""
    assert fleet.system.server is not None
    fleet.system.server.stop()

    with pytest.raises(CommandError, match="got 5") as failure:
        fleet.system.edgeopt("devices")

    assert "127.0.0.1" in str(failure.value)
    assert "Traceback" not in str(failure.value)

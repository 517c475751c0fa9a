"""A shadow that is cut off goes on, and gives way to an update."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from edgeopt_agent.client import Client
from edgeopt_contract.bundle import Bundle
from tests.agent.conftest import Broker, Device, FakeFleet, wait_until
from tests.agent.shadow.conftest import agreement_of, ask_until_compared, compared, port_of
from tests.tiny import Recipe, samples, tiny_bundle

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(120)]

CHALLENGER = Recipe(version="2", weights_seed=8, padding_bytes=300_000)


@pytest.fixture
def challenger(fleet: FakeFleet, champion: Bundle, tmp_path: Path) -> Bundle:
    """Version 2, which shadows."""
    bundle = tiny_bundle(tmp_path / "challenger", CHALLENGER)
    fleet.publish_bundle(bundle)
    fleet.shadow(bundle)
    fleet.wait_for("shadowing", "shadow-1")
    return bundle


def test_kill_9_while_shadowing_loses_and_doubles_nothing(
    fleet: FakeFleet, device: Device, client: Client, challenger: Bundle
) -> None:
    """The next agent starts the runner again and goes on; what was told is told once, what was not is told."""
    ask_until_compared(fleet, client, samples(31, 5))
    fleet.acknowledges = False
    for row in samples(32, 20):
        client.infer(row)
    device.kill()
    fleet.acknowledges = True
    device.start()
    wait_until("two runners", lambda: len(device.runners()) == 2)
    with Client(f"http://127.0.0.1:{port_of(device)}") as again:
        again.wait_until_ready()
        wait_until("the challenger", lambda: ask_once(fleet, again))
    device.stop()
    device.start()
    told = wait_until("all to be told", lambda: settled(device, fleet))
    assert told == sum(window.rows for window in fleet.shadow_windows())
    agreement = agreement_of(fleet.shadow_windows())
    assert 0 <= sum(agreement[:3]) - told <= 1  # the kill may have come between the two counts of one row
    assert ["offered", "downloading", "verifying", "self_test", "shadowing"] == fleet.states("shadow-1")


@pytest.mark.parametrize("state", ["offered", "downloading", "verifying", "self_test"])
def test_kill_9_on_the_way_to_it_goes_on(
    state: str, fleet: FakeFleet, device: Device, champion: Bundle, tmp_path: Path
) -> None:
    """Cut off as soon as a state is reported: it comes to shadow nevertheless, and fetches nothing twice."""
    bundle = tiny_bundle(tmp_path / "challenger", CHALLENGER)
    fleet.publish_bundle(bundle)
    fleet.shadow(bundle)
    fleet.wait_for(state, "shadow-1")
    device.kill()
    device.start()
    fleet.wait_for("shadowing", "shadow-1")
    wait_until("two runners", lambda: len(device.runners()) == 2)
    assert champion.digest == device.status()["running"]["bundle"]


def test_killed_runner_of_the_challenger_comes_back(
    fleet: FakeFleet, device: Device, client: Client, challenger: Bundle
) -> None:
    """The kernel ends it first; the champion's runner, and the shadow, live on."""
    first, second = device.runners()
    scores = {pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (first, second)}
    assert [500, 900] == [scores[first], scores[second]]
    assert min(19, os.getpriority(os.PRIO_PROCESS, first) + 10) == os.getpriority(os.PRIO_PROCESS, second)
    os.kill(second, signal.SIGKILL)
    client.infer(samples(33, 1)[0])
    wait_until("another runner", lambda: len(device.runners()) == 2 and second not in device.runners())
    wait_until("the challenger", lambda: ask_once(fleet, client))
    assert first in device.runners()
    assert "failed" not in fleet.states("shadow-1")


def test_offer_of_the_very_bundle_that_shadows_fetches_nothing(
    fleet: FakeFleet, device: Device, challenger: Bundle
) -> None:
    """Promotion costs no byte, not even the manifest; the shadow ends, for it has nothing to be compared with."""
    fleet.desire(challenger, "job-promote", bake_seconds=0)
    confirmed = fleet.wait_for("confirmed", "job-promote")
    assert challenger.digest == confirmed.running
    (fetched,) = [r.detail for r in fleet.reports("job-promote") if r.state == "verifying"]
    assert fetched.startswith("fetched 0 blocks (0 bytes)"), fetched
    assert "another bundle serves now" == fleet.wait_for("superseded", "shadow-1").detail
    wait_until("its end", lambda: not (device.data / "slots" / "shadow").exists())
    wait_until("the champion's runner alone", lambda: len(device.runners()) == 1)


def test_update_that_fails_leaves_the_shadow(
    fleet: FakeFleet, device: Device, client: Client, challenger: Bundle, tmp_path: Path
) -> None:
    """The challenger makes room for the candidate's test, and goes on when the champion stays."""
    bad = tiny_bundle(tmp_path / "bad", Recipe(version="3", golden_error=True))
    fleet.publish_bundle(bad)
    fleet.desire(bad, "job-bad")
    fleet.wait_for("failed", "job-bad")
    wait_until("the challenger", lambda: ask_once(fleet, client))
    assert device.logged('"event":"shadow_paused"')
    assert ["offered", "downloading", "verifying", "self_test", "shadowing"] == fleet.states("shadow-1")


def test_update_goes_before_a_shadow_that_is_still_coming(
    fleet: FakeFleet, device: Device, champion: Bundle, tmp_path: Path
) -> None:
    """A shadow waits while an update waits for blocks, and begins when that is over, beside the new champion."""
    update = tiny_bundle(tmp_path / "update", Recipe(version="3", padding_bytes=200_000, padding_seed=5))
    missing = next(
        block.sha256 for entry in update.manifest.files for block in entry.blocks if entry.path == "fp32.onnx"
    )
    fleet.publish_bundle(update, leave_out=(missing,))
    fleet.desire(update, "job-update", bake_seconds=0)
    fleet.wait_for("downloading", "job-update")
    bundle = tiny_bundle(tmp_path / "challenger", CHALLENGER)
    fleet.publish_bundle(bundle)
    fleet.shadow(bundle)
    fleet.wait_for("offered", "shadow-1")
    time.sleep(1.5)  # it would be there by now
    assert ["offered"] == fleet.states("shadow-1")
    fleet.publish_bundle(update)
    fleet.wait_for("confirmed", "job-update")
    assert update.digest == fleet.wait_for("shadowing", "shadow-1").running


def test_its_time_passes_while_it_is_offline(
    fleet: FakeFleet, broker: Broker, device: Device, client: Client, champion: Bundle, tmp_path: Path
) -> None:
    """The device ends it by its own clock, and tells when it is back."""
    bundle = tiny_bundle(tmp_path / "challenger", CHALLENGER)
    fleet.publish_bundle(bundle)
    fleet.shadow(bundle, seconds=8)
    fleet.wait_for("shadowing", "shadow-1")
    broker.kill()
    client.infer(samples(36, 1)[0])
    wait_until("its end", lambda: device.status()["shadow"]["state"] == "done")
    wait_until("the champion's runner alone", lambda: len(device.runners()) == 1)
    broker.start()
    fleet.wait_for("done", "shadow-1")
    wait_until("its count", lambda: compared(fleet) == 1)


def test_device_with_one_runner_takes_none(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """Its owner said that there is no room for two models."""
    bundle = tiny_bundle(tmp_path / "champion")
    fleet.publish_bundle(bundle)
    device.start("--one-runner")
    fleet.desire(bundle, "job-champion", bake_seconds=0)
    fleet.wait_for("confirmed", "job-champion")
    fleet.shadow(tiny_bundle(tmp_path / "challenger", CHALLENGER))
    assert "one-runner" in fleet.wait_for("rejected", "shadow-1").detail


def test_status_and_doctor_show_it(fleet: FakeFleet, device: Device, client: Client, challenger: Bundle) -> None:
    """Job, share, how well it agrees, and how long it goes on."""
    ask_until_compared(fleet, client, samples(37, 4))
    shown = device.status()["shadow"]
    assert ("shadow-1", "shadowing", 1.0) == (shown["job"], shown["state"], shown["share"])
    assert (4, 0) == (shown["compared"]["rows"], shown["compared"]["errors"])
    assert 4 == shown["compared"]["agreed"] + shown["compared"]["disagreed"]
    text = device.said("status")
    assert "shadow       shadow-1: shadowing" in text
    assert "4 compared since boot" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "shadow-1 is shadowing" in device.said("doctor")


def ask_once(fleet: FakeFleet, client: Client) -> bool:
    """Ask, and say whether more was compared since."""
    before = compared(fleet)
    client.infer(samples(38, 1)[0])
    time.sleep(0.4)
    return compared(fleet) > before


def settled(device: Device, fleet: FakeFleet) -> int:
    """Return what the device counted of its shadow when the fleet has all of it; 0 until then."""
    status = device.status()
    counted = status["shadow"]["compared"]
    known = status["spool"]["unacknowledged"] == 0 and counted is not None
    return int(counted["rows"]) if known and counted["rows"] == compared(fleet) else 0

"""Waiting, going back and starting at last, with the agent as a real process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeopt_contract.bundle import Bundle
from edgeopt_contract.windows import DAYS, Window
from tests.agent.conftest import Broker, Device, FakeFleet, wait_until
from tests.tiny import Recipe, tiny_bundle

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(90)]


@pytest.fixture
def old(fleet: FakeFleet, device: Device, tmp_path: Path) -> Bundle:
    """Version 1, confirmed on a running device."""
    bundle = tiny_bundle(tmp_path / "1")
    fleet.publish_bundle(bundle)
    device.start()
    fleet.desire(bundle, "job-old", bake_seconds=0)
    fleet.wait_for("confirmed", "job-old")
    return bundle


def offer_new(fleet: FakeFleet, tmp_path: Path, **fields: object) -> Bundle:
    """Offer version 2."""
    new = tiny_bundle(tmp_path / "2", Recipe(version="2", sharpness=5.0))
    fleet.publish_bundle(new)
    fleet.desire(new, "job-new", bake_seconds=0, **fields)
    return new


def rollback(device: Device) -> subprocess.CompletedProcess[str]:
    """``edgeopt-agent rollback``."""
    command = [str(Path(sys.executable).parent / "edgeopt-agent"), "rollback", "--data", str(device.data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_switch_waits_until_it_may(fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path) -> None:
    """The device downloads at once, waits staged with the old model serving, and goes on by itself."""
    soon = int(time.time()) + 12
    new = offer_new(fleet, tmp_path, not_before=soon)
    staged = fleet.wait_for("staged", "job-new")
    assert old.digest == staged.running
    assert "until it may switch" in staged.detail

    confirmed = fleet.wait_for("confirmed", "job-new")
    assert new.digest == confirmed.running
    activating = next(report for report in fleet.reports("job-new") if report.state == "activating")
    assert activating.at >= soon


def test_newer_offer_ends_a_wait_for_the_window(fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path) -> None:
    """A window that is far away holds up no correction; what it held up is given up untouched."""
    today = time.localtime().tm_wday
    closed = Window(start="12:00", end="12:01", days=(DAYS[today - 3],))
    offer_new(fleet, tmp_path, window=closed)
    fleet.wait_for("staged", "job-new")
    assert 86400 < device.status()["update"]["switch_wait_seconds"] < 7 * 86400

    fleet.desire(old, "job-back", bake_seconds=0)
    fleet.wait_for("confirmed", "job-back")
    superseded = fleet.wait_for("superseded", "job-new")
    assert ("runs_old_untouched", old.digest) == (superseded.result, superseded.running)


def test_deadline_ends_a_wait_for_the_window(fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path) -> None:
    """What may not switch before its deadline has failed when that passes."""
    offer_new(fleet, tmp_path, not_before=int(time.time()) + 3600, deadline=int(time.time()) + 10)
    failed = fleet.wait_for("failed", "job-new")
    assert ("runs_old_untouched", old.digest) == (failed.result, failed.running)
    assert "the deadline passed" in failed.detail


def test_person_at_the_device_goes_back_without_a_network(
    broker: Broker, fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path
) -> None:
    """The bundle before answers again while the broker is away; a second order says why there is nothing more."""
    offer_new(fleet, tmp_path)
    fleet.wait_for("confirmed", "job-new")
    broker.kill()

    done = rollback(device)
    assert (0, "the agent was told\n") == (done.returncode, done.stdout)
    wait_until("the old bundle", lambda: device.status()["update"]["state"] == "rolled_back")
    wait_until("its answers", lambda: device.status()["running"]["version"] == "1")

    again = rollback(device)
    assert 2 == again.returncode
    assert "not on this device any more" in again.stderr
    broker.start()
    fleet.republish()
    rolled_back = fleet.wait_for("rolled_back", "job-new")
    assert ("runs_old_restored", old.digest) == (rolled_back.result, rolled_back.running)
    assert "ordered at the device" in rolled_back.detail


def test_order_waits_for_an_agent_that_does_not_run(
    fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path
) -> None:
    """What is ordered while no agent runs is carried out at its next start, once."""
    offer_new(fleet, tmp_path)
    fleet.wait_for("confirmed", "job-new")
    device.stop()
    assert "it will go back when it is started" in rollback(device).stdout
    device.start()
    assert old.digest == fleet.wait_for("rolled_back", "job-new").running


def test_recall_to_the_bundle_in_the_other_slot_fetches_nothing(
    fleet: FakeFleet, device: Device, old: Bundle, tmp_path: Path
) -> None:
    """Everything is on the device already, and verified again before it serves."""
    offer_new(fleet, tmp_path)
    fleet.wait_for("confirmed", "job-new")
    fleet.desire(old, "recall", bake_seconds=0)
    assert old.digest == fleet.wait_for("confirmed", "recall").running
    verifying = next(report for report in fleet.reports("recall") if report.state == "verifying")
    assert "all of it is on the device already" == verifying.detail


def test_bundle_that_does_not_start_is_tried_again(fleet: FakeFleet, device: Device, old: Bundle) -> None:
    """A model that cannot be read at the start serves as soon as it can, without another start."""
    device.stop()
    model = device.data / "slots" / "current" / "fp32.onnx"
    model.rename(model.with_name("away"))
    device.start()
    wait_until("the failure", lambda: device.logged("committed_bundle_not_started"))
    model.with_name("away").rename(model)
    wait_until("its birth", lambda: fleet.statuses[-1].online and fleet.statuses[-1].running == old.digest)

"""The agent as a real process: updates from end to end, and what may go wrong on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.conftest import Device, FakeFleet
from tests.agent.tiny import Recipe, tiny_bundle

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(90)]

STRAIGHT_WAY = [
    "offered", "downloading", "verifying", "staged", "self_test", "activating", "baking", "confirmed",
]  # fmt: skip


@pytest.mark.parametrize("broker", ["nats", "mosquitto"], indirect=True)
def test_update_reaches_confirmed(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """A good bundle goes the straight way, serves the named source, and is counted under its own digest."""
    bundle = tiny_bundle(tmp_path / "1")
    fleet.publish_bundle(bundle)
    device.start()
    fleet.desire(bundle)

    confirmed = fleet.wait_for("confirmed")

    assert STRAIGHT_WAY == fleet.states()
    assert ("runs_new", bundle.digest) == (confirmed.result, confirmed.running)

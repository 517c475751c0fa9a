"""A challenger beside the champion with real processes: from the order to its promotion."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.system import wait_until
from tests.scenarios.conftest import DEVICES, Fleet

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(600)]

_ANY_SPEED = ("--rule", "max_latency_ratio=100000")  # a busy machine says nothing about the time of a challenger


def start_shadow(fleet: Fleet, bundle: str, *options: str) -> None:
    """Create a shadow on all devices."""
    fleet.system.edgeopt(
        "shadow", "create", "next", "--bundle", bundle, "--cohort", "all", "--share", "50%", "--for", "1h",
        *_ANY_SPEED, *options,
    )  # fmt: skip


def shown(fleet: Fleet) -> Any:
    """Return what the fleet says of the shadow."""
    return json.loads(fleet.system.edgeopt("shadow", "show", "next", "--json"))


def test_challenger_that_agrees_is_recommended_and_promoted(fleet: Fleet) -> None:
    """A little sharper, so with the same answers: compared, recommended, rolled out; until then it answers nobody."""
    new = fleet.publish("2", sharpness=4.2)
    start_shadow(fleet, new)

    fleet.system.edgeopt("shadow", "watch", "next", expect=0)

    assert {fleet.old} == set(fleet.running().values())
    view = shown(fleet)
    assert "recommend" == view["verdict"]["decision"], view["verdict"]
    fleet.system.edgeopt("shadow", "promote", "next", "--waves", "100%")
    fleet.system.wait_for_rollout("next", "succeeded")
    assert {new} == set(fleet.running().values())
    statuses = {device: fleet.system.agent_status(device)["shadow"] for device in DEVICES}
    assert {"superseded"} == {status["state"] for status in statuses.values()}
    wait_until("no place of it to be left", lambda: not any(_place(fleet, device).exists() for device in DEVICES))


def _place(fleet: Fleet, device: str) -> Any:
    return fleet.system.home_of(device) / "slots" / "shadow"

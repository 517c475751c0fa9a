"""Two versions side by side on real devices: drawn, served, compared, concluded."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from demo.system import wait_until
from tests.scenarios.conftest import DEVICES, Fleet

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(600)]


def test_the_more_confident_of_two_arms_goes_to_everybody(fleet: Fleet) -> None:
    """Half of the devices run each; the comparison shows which is surer of itself; the conclusion brings it to all."""
    meek, sure = fleet.publish("2", sharpness=2.0), fleet.publish("3", sharpness=6.0)
    fleet.system.edgeopt(
        "rollout", "create", "ab", "--arm", f"{meek}=50", "--arm", f"{sure}=50", "--waves", "100%", "--bake", "0.5s",
        "--minimum-rows", "30", "--observe", "10s", "--observe-rows", "500", "--max-confidence-drop", "100%",
        "--gate", "max_latency_increase=100", "--margin", "latency=100",
    )  # fmt: skip
    wait_until("both arms to be observed", lambda: "observing" == fleet.system.rollout("ab")["state"])
    assert {meek: 2, sure: 2} == Counter(fleet.running().values())

    fleet.system.wait_for_rollout("ab", "succeeded")
    comparison: Any = json.loads(fleet.system.edgeopt("rollout", "compare", "ab", "--json"))["compared"]
    assert ("b_better", True) == (comparison["result"], comparison["same"])
    shown = fleet.system.edgeopt("rollout", "compare", "ab")
    assert all(reason.split(":")[0] in shown for reason in comparison["reasons"])

    fleet.system.edgeopt("rollout", "conclude", "ab", "--keep", "B")
    fleet.system.wait_for_rollout("ab-rest", "succeeded")
    assert dict.fromkeys(DEVICES, sure) == fleet.running()

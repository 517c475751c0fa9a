"""What a challenger does wrong ends its shadow and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeopt_agent.client import Client
from edgeopt_contract.bundle import Bundle
from tests.agent.conftest import Device, FakeFleet, wait_until
from tests.agent.shadow.conftest import CHAMPION
from tests.tiny import POISON, Recipe, samples, softmax, tiny_bundle, weights_of

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(120)]

FAULTS = {
    "hangs": (Recipe(version="2", poisonable=True), "no answer within"),
    "eats memory": (Recipe(version="2", poison_eats_memory=True), "crash"),
    "gives NaN": (Recipe(version="2", poison_gives_nan=True), "NaN"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_thousand_requests_beside_a_challenger_at_fault(
    kind: str, fleet: FakeFleet, device: Device, champion: Bundle, client: Client, tmp_path: Path
) -> None:
    """Every request is answered, with the champion's outputs to the last digit; the shadow fails and says why."""
    recipe, said = FAULTS[kind]
    challenger = tiny_bundle(tmp_path / "challenger", recipe)
    fleet.publish_bundle(challenger)
    rows = samples(21, 1000)
    rows[::2] = POISON
    before = [client.infer(row).outputs["p"] for row in rows[:20]]
    served = champion_rows(fleet, champion)
    fleet.shadow(challenger)
    fleet.wait_for("shadowing", "shadow-1")

    answers = [client.infer(row).outputs["p"] for row in rows]

    assert np.array_equal(before, answers[:20])
    assert np.allclose(softmax(rows @ weights_of(CHAMPION)), answers, atol=1e-5)
    wait_until("the failure", lambda: poke(client) and "failed" in fleet.states("shadow-1"))
    assert said in fleet.wait_for("failed", "shadow-1").detail
    assert not sum(window.errors for window in fleet.telemetry(champion.digest))
    wait_until("all rows", lambda: champion_rows(fleet, champion) >= served + 1000)
    assert not (device.data / "slots" / "shadow").exists()
    assert "confirmed" == fleet.states("job-champion")[-1]
    assert champion.digest == device.status()["running"]["bundle"]


def test_challenger_that_fails_its_self_test_never_runs(
    fleet: FakeFleet, device: Device, champion: Bundle, tmp_path: Path
) -> None:
    """Failed, with the reason; and its job is not tried again when the order comes again."""
    challenger = tiny_bundle(tmp_path / "challenger", Recipe(version="2", golden_error=True))
    fleet.publish_bundle(challenger)
    fleet.shadow(challenger)
    assert "self-test" in fleet.wait_for("failed", "shadow-1").detail
    fleet.shadow(challenger)
    fleet.shadow(challenger, "shadow-2")
    fleet.wait_for("failed", "shadow-2")
    assert 1 == fleet.states("shadow-1").count("failed")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(version="2", inputs=5), "other inputs"),
        (Recipe(version="2", features=("no-such-feature",)), "no-such-feature"),
        (CHAMPION, "it is what serves here"),
    ],
    ids=["other inputs", "another machine's", "what serves"],
)
def test_what_can_never_run_here_is_rejected(
    recipe: Recipe, said: str, fleet: FakeFleet, device: Device, champion: Bundle, tmp_path: Path
) -> None:
    """Rejected, with the reason, and nothing is left on the disk."""
    challenger = champion if recipe is CHAMPION else tiny_bundle(tmp_path / "challenger", recipe)
    fleet.publish_bundle(challenger)
    fleet.shadow(challenger)
    rejected = fleet.wait_for("rejected", "shadow-1")
    assert said in rejected.detail
    assert not (device.data / "slots" / "shadow").exists()
    assert not (device.data / "incoming-shadow").exists()


def test_unsigned_challenger_waits_and_its_time_passes(
    fleet: FakeFleet, device: Device, champion: Bundle, tmp_path: Path
) -> None:
    """A bundle that nobody signed is fetched by nobody."""
    challenger = tiny_bundle(tmp_path / "challenger", Recipe(version="2"))
    fleet.order_shadow(challenger, "shadow-1", share=1.0, seconds=4)
    rejected = fleet.wait_for("rejected", "shadow-1")
    assert any("not among the signed targets" in report.detail for report in fleet.reports("shadow-1"))
    assert "its time was over while offered" in rejected.detail


def champion_rows(fleet: FakeFleet, champion: Bundle) -> int:
    """Return how many rows of the champion the fleet has."""
    return sum(window.rows for window in fleet.telemetry(champion.digest))


def poke(client: Client) -> bool:
    """Ask once more, with poison."""
    client.infer(np.full(4, POISON, np.float32))
    return True

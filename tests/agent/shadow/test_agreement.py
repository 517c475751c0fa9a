"""A shadow on a real device: what it counts is what NumPy says of the same inputs."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edgeopt_agent.client import Client
from edgeopt_contract.agreement import AGREED, DIFFERENCES, DISAGREED, INCOMPARABLE, difference_cell
from edgeopt_contract.bundle import Bundle
from tests.agent.conftest import Device, FakeFleet, wait_until
from tests.agent.shadow.conftest import CHAMPION, agreement_of, ask_until_compared, compared
from tests.tiny import Recipe, samples, softmax, tiny_bundle, weights_of

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(120)]

CHALLENGER = Recipe(version="2", weights_seed=8, padding_bytes=150_000)
STRAIGHT_WAY = ["offered", "downloading", "verifying", "self_test", "shadowing"]


@pytest.mark.parametrize("broker", ["nats", "mosquitto"], indirect=True)
def test_agreement_is_what_numpy_says(
    fleet: FakeFleet, device: Device, champion: Bundle, client: Client, tmp_path: Path
) -> None:
    """Top-1, the differences, both latencies and the classes of 30 known inputs; the champion alone answers."""
    challenger = tiny_bundle(tmp_path / "challenger", CHALLENGER)
    fleet.publish_bundle(challenger)
    fleet.shadow(challenger)
    fleet.wait_for("shadowing", "shadow-1")
    rows = samples(11, 30)

    answers = ask_until_compared(fleet, client, rows)

    ours, theirs = softmax(rows @ weights_of(CHAMPION)), softmax(rows @ weights_of(CHALLENGER))
    assert np.allclose(ours, answers, atol=1e-5)
    agreed = ours.argmax(axis=1) == theirs.argmax(axis=1)
    golden = softmax(samples(1, 16) @ weights_of(CHAMPION))
    cells = [difference_cell(off / golden.std()) for off in np.abs(ours - theirs).mean(axis=1)]
    expected = np.zeros(19, int)
    expected[AGREED], expected[DISAGREED], expected[INCOMPARABLE] = agreed.sum(), (~agreed).sum(), 0
    np.add.at(expected, cells, 1)
    assert 0 < agreed.sum() < 30, "a test of agreement needs both"
    assert tuple(expected) == agreement_of(fleet.shadow_windows())
    windows = fleet.shadow_windows()
    assert 30 == sum(sum(window.cells["champion_latency"]) for window in windows)
    assert 30 == sum(sum(window.latency) for window in windows)
    by_class = np.sum([window.cells["class_agreed"] for window in windows], axis=0)
    assert tuple(np.bincount(ours.argmax(axis=1)[agreed], minlength=4)) == tuple(by_class)
    assert {challenger.digest} == {window.bundle for window in windows}
    assert 30 == sum(expected[DIFFERENCES:])
    assert STRAIGHT_WAY == fleet.states("shadow-1")
    assert not fleet.refused


def test_share_and_counts_of_both_are_independent(
    fleet: FakeFleet, device: Device, champion: Bundle, client: Client, tmp_path: Path
) -> None:
    """A fifth of what is answered is compared or passed over; the champion's windows do not change for it."""
    challenger = tiny_bundle(tmp_path / "challenger", CHALLENGER)
    fleet.publish_bundle(challenger)
    fleet.shadow(challenger, share=0.2)
    fleet.wait_for("shadowing", "shadow-1")

    for row in samples(12, 200):
        client.infer(row)

    wait_until("the champion's rows", lambda: sum(w.rows for w in fleet.telemetry(champion.digest)) == 200)
    wait_until("the challenger's", lambda: compared(fleet) + passed_over(fleet) == 40)
    assert compared(fleet)
    assert not any("shadow" in window.extra for window in fleet.telemetry(champion.digest))
    assert set(fleet.telemetry(champion.digest)[-1].cells) == {"x[0]", "confidence", "class"}


def test_its_time_passes_and_nothing_is_left(
    fleet: FakeFleet, device: Device, champion: Bundle, client: Client, tmp_path: Path
) -> None:
    """Done: its last window comes before its last report; slot, blocks, counts and runner are gone."""
    challenger = tiny_bundle(tmp_path / "challenger", CHALLENGER)
    fleet.publish_bundle(challenger)
    fleet.shadow(challenger, seconds=6)
    fleet.wait_for("shadowing", "shadow-1")
    client.infer(samples(13, 1)[0])

    done = fleet.wait_for("done", "shadow-1")

    assert 1 == compared(fleet)
    assert all(window.number < done.number for window in fleet.shadow_windows())
    assert ("runs_old_untouched", champion.digest) == (done.result, done.running)
    assert done.extra["shadow"] is True
    assert not (device.data / "slots" / "shadow").exists()
    assert not (device.data / "incoming-shadow").exists()
    assert 1 == len(device.runners())
    wait_until("its counts to be told", lambda: not list((device.data / "counts").glob("*shadow*")))
    assert fleet.wait_for("done", "shadow-1").at <= time.time()


def test_withdrawn_order_ends_it(fleet: FakeFleet, device: Device, champion: Bundle, tmp_path: Path) -> None:
    """An empty order is the end; the next job begins anew, and takes the place of the one before while that runs."""
    challenger = tiny_bundle(tmp_path / "challenger", CHALLENGER)
    fleet.publish_bundle(challenger)
    fleet.shadow(challenger)
    fleet.wait_for("shadowing", "shadow-1")
    fleet.end_shadow()
    assert "the fleet withdrew it" == fleet.wait_for("superseded", "shadow-1").detail
    fleet.shadow(challenger, "shadow-2")
    fleet.wait_for("shadowing", "shadow-2")
    fleet.shadow(challenger, "shadow-3")
    fleet.wait_for("shadowing", "shadow-3")
    assert "superseded by shadow-3" == fleet.wait_for("superseded", "shadow-2").detail


def passed_over(fleet: FakeFleet) -> int:
    """Return how many requests a shadow passed over, as far as the fleet knows."""
    return sum(window.cells["sampling"][0] for window in fleet.shadow_windows())

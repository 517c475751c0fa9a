"""A running device that serves a champion over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeopt_agent.client import Client
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.messages import Telemetry
from tests.agent.conftest import Device, FakeFleet, wait_until
from tests.tiny import Recipe, tiny_bundle

CHAMPION = Recipe()


@pytest.fixture
def champion(fleet: FakeFleet, device: Device, tmp_path: Path) -> Bundle:
    """Version 1, confirmed on a device that answers over HTTP."""
    bundle = tiny_bundle(tmp_path / "champion", CHAMPION)
    fleet.publish_bundle(bundle)
    device.start("--source", "http:0", "--infer-timeout", "2")
    fleet.desire(bundle, "job-champion", bake_seconds=0)
    fleet.wait_for("confirmed", "job-champion")
    return bundle


@pytest.fixture
def client(device: Device, champion: Bundle) -> Iterator[Client]:
    """Somebody who asks the device; ``champion`` serves."""
    with Client(f"http://127.0.0.1:{port_of(device)}") as client:
        client.wait_until_ready()
        yield client


def port_of(device: Device) -> int:
    """Return where the agent that was started last listens."""
    events = [json.loads(line) for line in device.log.read_text().splitlines() if '"event":"http_listening"' in line]
    return int(events[-1]["port"])


def agreement_of(windows: list[Telemetry]) -> tuple[int, ...]:
    """Return the cells of ``agreement`` of all windows together."""
    return tuple(np.sum([window.cells["agreement"] for window in windows], axis=0).tolist()) if windows else ()


def compared(fleet: FakeFleet, job: str = "shadow-1") -> int:
    """Return how many rows of a shadow the fleet has."""
    return sum(window.rows for window in fleet.shadow_windows(job))


def ask_until_compared(fleet: FakeFleet, client: Client, rows: np.ndarray, job: str = "shadow-1") -> list[np.ndarray]:
    """Ask for each row, and go on only when it has been compared; return the answers."""
    answers = []
    for row in rows:
        before = compared(fleet, job)
        answers.append(client.infer(row).outputs["p"])
        wait_until("the comparison", lambda before=before: compared(fleet, job) > before)
    return answers

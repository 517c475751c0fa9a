"""A fleet is backed up while it serves a real agent, and restored into the other kind of database and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.system import System, wait_until
from tests.fleet.postgres import Postgres
from tests.scenarios.conftest import AGENT_OPTIONS, Fleet

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(600)]

DEVICE = "cam-1"


@pytest.fixture
def fleet(tmp_path: Path) -> Any:
    """A served fleet with one agent, which serves version 1."""
    with System(tmp_path) as system:
        system.start_fleet("--tick-seconds", "0.2")
        system.enrol({DEVICE: {"site": "test"}})
        system.start_agent(DEVICE, *AGENT_OPTIONS)
        fleet = Fleet(system, "")
        roll_out(fleet, "1")
        yield fleet


def roll_out(fleet: Fleet, version: str) -> str:
    """Bring a version to the device and return its digest."""
    digest = fleet.publish(version)
    fleet.start_rollout(f"v{version}", digest, waves="100%")
    fleet.system.wait_for_rollout(f"v{version}", "succeeded", seconds=120)
    return digest


def windows(fleet: Fleet) -> int:
    """Return how many windows of the device the fleet has."""
    (device,) = fleet.system.get("devices")["items"]
    return int(device["telemetry"]["windows"])


def move(fleet: Fleet, database: str, step: str) -> None:
    """Back the fleet up while it is served, end it, and serve what is restored from the back-up in its place.

    What the device said between back-up and end was acknowledged by a fleet that is gone.
    """
    system, home = fleet.system, fleet.system.directory / "fleet"
    backup = system.directory / f"{step}.backup"
    said = system.command("edgeopt-fleet", "backup", str(home), str(backup))
    assert str(backup) in said
    before = windows(fleet)
    wait_until("more windows after the back-up", lambda: windows(fleet) > before + 2)
    assert system.server is not None
    assert 0 == system.server.stop()
    home.rename(system.directory / f"{step}.gone")
    options = ["--database", database] if database else []
    system.command("edgeopt-fleet", "restore", str(backup), str(home), *options)
    system.start_fleet()


def test_a_real_agent_goes_on_with_a_restored_fleet(fleet: Fleet, postgres: Postgres) -> None:
    """From SQLite to PostgreSQL and back: the same device, whose windows count on, and which takes a new version."""
    agent = fleet.system.agents[DEVICE].pid
    steps: list[tuple[str, Callable[[], str]]] = [("2", lambda: postgres.create("restored_fleet")), ("3", str)]
    for version, database in steps:
        move(fleet, database(), f"before-{version}")
        wait_until("the agent to be back", lambda: fleet.system.get("devices")["items"][0]["online"], 120)
        counted = windows(fleet)
        wait_until("new windows", lambda counted=counted: windows(fleet) > counted, 120)
        digest = roll_out(fleet, version)
        assert {DEVICE: digest} == fleet.running()
    assert agent == fleet.system.agents[DEVICE].pid
    assert fleet.system.agents[DEVICE].process.poll() is None  # type: ignore[union-attr]
    names = {item["name"] for item in fleet.system.get("rollouts")["items"]}
    assert {"v1", "v2", "v3"} == names
    chain = json.loads(fleet.system.edgeopt("audit", "list", "--json"))
    assert chain
    postgres.drop("restored_fleet")

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.system import System, wait_until
from tests.tiny import Recipe, tiny_bundle

DEVICES = ("cam-1", "cam-2", "cam-3", "cam-4")
AGENT_OPTIONS = ("--source", "tests.tiny:field", "--interval", "0.01", "--window", "0.5")


@dataclass
class Fleet:
    """A running fleet whose devices all serve version 1 of the tiny model."""

    system: System
    old: str

    def publish(self, version: str, **options: Any) -> str:
        """Publish another version and return its digest."""
        directory = self.system.directory / version
        tiny_bundle(directory, Recipe(version=version, **options))
        return str(json.loads(self.system.edgeopt("publish", str(directory), "--json"))["digest"])

    def start_rollout(self, name: str, bundle: str, *, waves: str = "25%,50%,100%", bake: str = "0.5s") -> None:
        """Create a rollout over all devices and start it."""
        self.system.edgeopt(
            "rollout", "create", name, "--bundle", bundle, "--cohort", "all", "--waves", waves,
            "--bake", bake, "--minimum-rows", "30", "--json",
            "--gate", "max_latency_increase=100",  # a machine that becomes busy meanwhile says nothing about a bundle
        )  # fmt: skip

    def running(self) -> dict[str, str]:
        """Return what each device runs."""
        return {d["id"]: d["running"] for d in self.system.get("devices")["items"]}

    def members(self, rollout: str) -> dict[str, dict[str, Any]]:
        """Return the members of a rollout by device."""
        return {m["device"]: m for m in self.system.rollout(rollout)["members"]}


def on_first_version(system: System) -> Fleet:
    """Wait for all agents and bring version 1 to them."""
    wait_until("all agents online", lambda: all(d["online"] for d in system.get("devices")["items"]))
    made = Fleet(system, "")
    made.old = made.publish("1")
    made.start_rollout("first", made.old, waves="100%")
    system.wait_for_rollout("first", "succeeded")
    return made


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Start server, broker and four agents, and bring version 1 to all of them."""
    with System(tmp_path) as system:
        system.start_fleet("--tick-seconds", "0.2")
        system.enrol({device: {"site": "test"} for device in DEVICES})
        for device in DEVICES:
            system.start_agent(device, *AGENT_OPTIONS)
        yield on_first_version(system)

"""A fleet whose root and targets keys are people's: published, signed by two of three, rolled out, recalled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from demo.system import System, wait_until
from tests.scenarios.conftest import AGENT_OPTIONS
from tests.tiny import Recipe, tiny_bundle

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(240)]


def test_two_of_three_people_sign_and_the_server_recalls_alone(tmp_path: Path) -> None:
    """Nothing is rolled out unsigned; a bad version is taken back at night, without any of the three keys.

    One device gets everything over MQTT, the other everything over HTTP.
    """
    keys = tmp_path / "laptops"
    with System(tmp_path) as system:
        system.start_fleet("--tick-seconds", "0.2")
        system.enrol({"cam-1": {}, "cam-2": {}})
        system.start_agent("cam-1", *AGENT_OPTIONS)
        system.start_agent("cam-2", *AGENT_OPTIONS, "--delivery", "http")
        wait_until("both online", lambda: all(d["online"] for d in system.get("devices")["items"]))
        old = _publish(system, "1")
        _roll_out(system, "first", old)
        system.wait_for_rollout("first", "succeeded")

        _move_keys(system, keys)
        bad = _publish(system, "2", sharpness=0.01)
        refused = system.edgeopt("rollout", "create", "second", "--bundle", bad, "--cohort", "all", expect=2)
        assert "" == refused
        assert "1 of 2 signatures" in _sign(system, keys / "a.pem", str(tmp_path / "2"))
        assert "2 of 2 signatures, in force" in _sign(system, keys / "c.pem")
        _roll_out(system, "second", bad)

        system.wait_for_rollout("second", "rolled_back", seconds=150)

        served = [
            f'"event":"serves","bundle":"{bad}"' in (tmp_path / f"cam-{number}.log").read_text() for number in (1, 2)
        ]
        assert any(served)
        assert {old} == {device["running"] for device in system.get("devices")["items"]}


def _publish(system: System, version: str, **options: object) -> str:
    directory = system.directory / version
    tiny_bundle(directory, Recipe(version=version, **options))  # type: ignore[arg-type]
    return str(json.loads(system.edgeopt("publish", str(directory), "--json"))["digest"])


def _roll_out(system: System, name: str, bundle: str) -> None:
    system.edgeopt(
        "rollout", "create", name, "--bundle", bundle, "--cohort", "all", "--waves", "100%",
        "--bake", "60s" if name == "second" else "0.5s", "--minimum-rows", "1", "--json",
    )  # fmt: skip


def _move_keys(system: System, keys: Path) -> None:
    """Give root and targets to three people, two of whom must sign."""
    keys.mkdir()
    home = str(system.directory / "fleet")
    for name in "abc":
        system.command("edgeopt-fleet", "keys", "make", str(keys / f"{name}.pem"))
    added = [part for name in "abc" for part in ("--add", str(keys / f"{name}.pub"))]
    for role in ("targets", "root"):
        system.command("edgeopt-fleet", "keys", "rotate", home, role, *added, "--threshold", "2", "--drop-server-keys")
    _sign(system, keys / "a.pem")
    assert "in force" in _sign(system, keys / "b.pem")
    assert "elsewhere" in system.command("edgeopt-fleet", "keys", "list", home)


def _sign(system: System, key: Path, *bundles: str) -> str:
    return system.edgeopt("sign", *bundles, "--key", str(key), "--yes")

"""The commands about people, tokens and the audit log against the real fleet server."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.system import System
from edgeopt.cli import group
from edgeopt.fleet_access import load_access
from edgeopt.fleet_client import FleetClient
from edgeopt_contract.audit import verify_export
from edgeopt_contract.commands import run_command

pytestmark = [pytest.mark.scenario, pytest.mark.rights]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Serve a new fleet in which rollouts need four eyes."""
    with System(tmp_path_factory.mktemp("people")) as running:
        running.command("edgeopt-fleet", "init", str(running.directory / "fleet"), "--tick-seconds", "0.05")
        settings = running.directory / "fleet" / "fleet.toml"
        settings.write_text(settings.read_text().replace('approval = "none"', 'approval = "four-eyes"'))
        running.start_fleet()
        yield running


@pytest.fixture
def run(system: System, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run an edgeopt command against the served fleet."""
    monkeypatch.setenv("EDGEOPT_FLEET", os.fspath(system.operator_file))

    def invoke(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_command(lambda: group.main([*arguments], "edgeopt", standalone_mode=False))
        out, err = capfd.readouterr()
        return code, out, err

    return invoke


def test_a_user_from_beginning_to_end(run: Run, tmp_path: Path) -> None:
    """Made with a file of one's own, asked who it is, refused what is too much, promoted, rotated, revoked."""
    alice = tmp_path / "alice.json"
    code, out, err = run("users", "create", "alice", "--role", "viewer", "--output", str(alice), "--expires", "90d")
    assert (0, "") == (code, out)
    assert f"the access of alice (viewer) is in {alice}" in err
    assert 0o600 == stat.S_IMODE(alice.stat().st_mode)
    as_alice = ("--fleet", str(alice))
    assert "alice, viewer, by the key eok_" in run("users", "whoami", *as_alice)[1]
    code, _, err = run("token", "create", *as_alice)
    assert 2 == code
    assert "needs the role operator or higher, and alice is viewer" in err
    assert "alice is operator" in run("users", "role", "alice", "operator")[1]
    assert 0 == run("token", "create", *as_alice)[0]
    old = json.loads(alice.read_text())["key"]
    assert 0 == run("users", "rotate", *as_alice, "--output", str(alice), "--overlap", "0s")[0]
    assert old != json.loads(alice.read_text())["key"]
    assert 0 == run("users", "whoami", *as_alice)[0]
    listed = {user["name"]: user for user in json.loads(run("users", "--json")[1])}
    assert ["operator", 2] == [listed["alice"]["role"], len(listed["alice"]["keys"])]
    assert "alice" in run("users", "list")[1]
    assert "the key" in run("users", "revoke", "alice", "--key", old[:12])[1]
    assert "alice is revoked" in run("users", "revoke", "alice")[1]
    code, _, err = run("users", "whoami", *as_alice)
    assert 2 == code
    assert "revoked" in err
    code, _, err = run("users", "revoke", "operator")
    assert 2 == code
    assert "no admin" in err


def save_cohort(system: System, name: str) -> None:
    """Save a cohort of the devices at one site."""
    with FleetClient(load_access(system.operator_file)) as client:
        client.save_cohort(name, {"site": name})


def test_tokens_are_listed_and_revoked(run: Run, system: System) -> None:
    """By an id that opens nothing; a cohort's tags come with it."""
    save_cohort(system, "oslo")
    made = json.loads(run("token", "create", "--uses", "3", "--cohort", "oslo", "--tag", "line=2", "--json")[1])
    assert made["id"] not in made["token"]
    listed = {one["id"]: one for one in json.loads(run("token", "list", "--json")[1])}
    assert {"site": "oslo", "line": "2"} == listed[made["id"]]["tags"]
    assert ("oslo", "operator", 3) == tuple(listed[made["id"]][name] for name in ("cohort", "created_by", "uses_left"))
    assert made["token"] not in json.dumps(listed)
    assert f"token {made['id']} is revoked" in run("token", "revoke", made["id"])[1]
    assert made["id"] in run("token", "list")[1]
    assert 2 == run("token", "revoke", "0" * 16)[0]


def test_the_audit_log_is_listed_exported_and_verified(run: Run, system: System, tmp_path: Path) -> None:
    """What was done before stands in it; the export is checked by both programs, and a changed byte is found."""
    save_cohort(system, "bergen")
    (entry,) = json.loads(run("audit", "list", "--subject", "cohort/bergen", "--json")[1])
    assert ("operator", "api", "cohort.put") == (entry["actor"], entry["via"], entry["operation"])
    assert "cohort/bergen" in run("audit", "--actor", "operator", "--limit", "5")[1]
    head = json.loads(run("audit", "verify", "--json")[1])["head"]
    save_cohort(system, "tromso")
    file = tmp_path / "audit.jsonl"
    code, out, _ = run("audit", "export", "--output", str(file))
    assert 0 == code
    assert "unbroken" in out
    assert 0 == run("audit", "verify", "--head", head)[0]
    assert 2 == run("audit", "verify", "--head", "1" * 64)[0]
    assert verify_export(file.read_bytes().splitlines(keepends=True), head).entries > 3
    assert "unbroken" in system.command("edgeopt-fleet", "audit", "verify", str(file), "--head", head)
    file.write_bytes(file.read_bytes().replace(b"bergen", b"bergem", 1))
    system.command("edgeopt-fleet", "audit", "verify", str(file), expect=2)


def test_who_lost_all_keys_gets_in_again_on_the_server_itself(run: Run, system: System, tmp_path: Path) -> None:
    """While it is served; the log names the account that typed the command."""
    key = system.command("edgeopt-fleet", "users", "create", str(system.directory / "fleet"), "rescue").strip()
    access = tmp_path / "rescue.json"
    access.write_text(json.dumps({"url": json.loads(system.operator_file.read_text())["url"], "key": key}))
    assert "rescue, admin" in run("users", "whoami", "--fleet", str(access))[1]
    (entry,) = json.loads(run("audit", "list", "--subject", "user/rescue", "--json")[1])
    assert ("command", True) == (entry["via"], entry["actor"].startswith("command/"))

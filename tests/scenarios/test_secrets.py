"""Secrets through a whole enrolment and update: in no log, in no list of processes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.system import System, wait_until
from edgeopt_agent.credentials.identity import key_file, load_identity
from edgeopt_contract.enrolment import EnrolToken
from tests.tiny import Recipe, tiny_bundle

pytestmark = pytest.mark.scenario

OPTIONS = ("--source", "tests.tiny:field", "--interval", "0.02", "--window", "1")


@contextlib.contextmanager
def watched_processes() -> Iterator[set[str]]:
    """Collect the command lines of all processes of this machine, again and again, while the block runs."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_no_secret_is_in_any_log_or_process_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token, bearer, operator's key and the private key: none is where another user of the machine could look."""
    with System(tmp_path) as system, watched_processes() as seen:
        system.start_fleet("--tls", "--tick-seconds", "0.2")
        token = json.loads(system.edgeopt("token", "create", "--json"))["token"]
        server = json.loads(system.operator_file.read_text())["url"]
        monkeypatch.setenv("EDGEOPT_TOKEN", token)
        home = system.home_of("cam-1")
        system.command("edgeopt-agent", "enroll", "--server", server, "--device", "cam-1", "--data", str(home))
        monkeypatch.delenv("EDGEOPT_TOKEN")
        system.start_agent("cam-1", *OPTIONS, "--log-file", str(tmp_path / "own.log"))
        tiny_bundle(tmp_path / "bundle", Recipe(version="1"))
        digest = json.loads(system.edgeopt("publish", str(tmp_path / "bundle"), "--json"))["digest"]
        waves = ("--waves", "100%", "--bake", "0.2s", "--minimum-rows", "5")
        system.edgeopt("rollout", "create", "v1", "--bundle", digest, *waves)
        system.wait_for_rollout("v1", "succeeded")
        wait_until("the birth of what runs", lambda: system.get("devices/cam-1")["running"] == digest)
        machine = system.get("devices/cam-1")
        identity = load_identity(home)
        key = key_file(home, identity.key).read_text()
        operator = json.loads(system.operator_file.read_text())["key"]

    assert machine["online"]
    logs = [path.read_text() for path in tmp_path.glob("*.log*")]
    assert any('"event":"serves"' in log for log in logs)
    assert any("edgeopt_agent.runner" in line for line in seen), "the watch has seen the runner"
    assert any("edgeopt_agent.trust" in line for line in seen), "and the child that verifies"
    secrets = [EnrolToken.parse(token).secret, identity.access.bearer, operator]
    secrets += [line for line in key.splitlines() if "-----" not in line]
    assert len(secrets) >= 4
    for secret in secrets:
        assert len(secret) > 10
        assert not [log for log in logs if secret in log]
        assert not [line for line in seen if secret in line]

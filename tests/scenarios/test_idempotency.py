"""A server is killed with -9 between carrying a request out and answering it: repeated, the request is answered."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.system import wait_until
from edgeopt.fleet_access import load_access
from edgeopt.fleet_client import FleetClient
from edgeopt.fleet_publishing import publish_bundle
from tests.fleet.conftest import enrol_body, make_bundle

pytestmark = pytest.mark.scenario

FLEET = Path(sys.executable).parent / "edgeopt-fleet"
DEADLY = (sys.executable, "-m", "tests.scenarios.dying_server")
KEY = {"Idempotency-Key": "6f1c1f0e-2f5b-4b8e-9a55-6d1f0c4a8f10"}


@dataclass
class Home:
    """A fleet's directory, and whoever serves it."""

    path: Path

    @property
    def url(self) -> str:
        """Where its API is."""
        return str(json.loads((self.path / "operator.json").read_text())["url"])

    @contextmanager
    def served(self, *program: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Serve it by ``program``, wait until it hears its broker, and end it."""
        command = [*program, "serve", os.fspath(self.path)]
        with (self.path.parent / "log").open("ab") as log:
            server = subprocess.Popen(command, stderr=log, env={**os.environ, **environment})
        try:
            wait_until("the server connected", lambda: self._is_connected(server))
            yield server
        finally:
            server.terminate()
            server.wait()

    def _is_connected(self, server: subprocess.Popen[bytes]) -> bool:
        assert server.poll() is None, (self.path.parent / "log").read_text()
        try:
            return bool(httpx.get(f"{self.url}/healthz", trust_env=False).json()["broker"] == "connected")
        except httpx.TransportError:
            return False

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Make a request as the operator."""
        access = json.loads((self.path / "operator.json").read_text())
        sent = {"Authorization": f"Bearer {access['key']}", **headers}
        return httpx.request(method, f"{self.url}/api/v1/{path}", json=body, headers=sent, trust_env=False, timeout=60)

    def told(self) -> list[str]:
        """Return what the audit log tells of people's orders, oldest first."""
        entries = self.ask("GET", "audit?limit=1000").json()["items"]
        return [entry["operation"] for entry in reversed(entries) if entry["via"] == "api"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A new fleet that nobody serves yet."""
    path = tmp_path / "fleet"
    subprocess.run([FLEET, "init", path], check=True, capture_output=True)
    return Home(path)


@contextmanager
def ready(home: Home) -> Iterator[str]:
    """Serve the fleet for as long as it takes to publish a bundle; give its digest."""
    with home.served(str(FLEET)), FleetClient(load_access(home.path / "operator.json")) as client:
        yield publish_bundle(client, make_bundle(home.path.parent / "bundle", "1"))


REQUESTS: dict[
    str, tuple[str, dict[str, Any], str, list[str]]
] = {  # what is asked for, the list that it adds to, and what the audit log tells of it
    "token": ("tokens", {"uses": 2, "tags": {"site": "oslo"}}, "tokens", ["token.create"]),
    "user": ("users", {"name": "alice", "role": "operator"}, "users", ["user.create"]),
    "key": ("me/rotate", {"overlap_seconds": 600}, "", ["user.rotate"]),
    "rollout": ("rollouts", {"name": "v1", "waves": [100]}, "rollouts", ["rollout.create", "rollout.scheduled"]),
}


def killed(home: Home, where: str, path: str, body: Any) -> None:
    """Send the request to a server that is killed over it."""
    with home.served(*DEADLY, EDGEOPT_TEST_DIES=where) as server:
        with pytest.raises(httpx.TransportError):
            home.ask("POST", path, body, **KEY)
        assert -signal.SIGKILL == server.wait(60)


def prepared(home: Home, what: str) -> tuple[str, Any, str, list[str], list[str]]:
    """Return the request, where its thing is listed, what is told of it, and what was told before."""
    path, body, listed, told = REQUESTS[what]
    before: list[str] = []
    if what == "rollout":
        with ready(home) as digest:
            body = {**body, "bundle": digest}
            token = home.ask("POST", "tokens", {}).json()["token"]
            enrolment = enrol_body(token, "cam-1")
            httpx.post(f"{home.url}/api/v1/devices/enrol", content=enrolment, trust_env=False).raise_for_status()
            before = home.told()
    return path, body, listed, told, before


@pytest.mark.parametrize("what", ["token", "user", "key", "rollout"])
def test_killed_after_the_commit(home: Home, what: str) -> None:
    """The repeated request gets the answer of the first, with its secret, and is not carried out again."""
    path, body, listed, told, before = prepared(home, what)
    killed(home, "after", path, body)
    with home.served(str(FLEET)):
        answer = home.ask("POST", path, body, **KEY)
        assert (201, "true") == (answer.status_code, answer.headers["Idempotent-Replayed"]), answer.text
        again = home.ask("POST", path, body, **KEY)
        assert answer.content == again.content
        assert told == [one for one in home.told()[len(before) :] if one in told], "once"
        if what == "token":
            (token,) = home.ask("GET", "tokens").json()["items"]
            assert answer.json()["id"] == token["id"]
        elif what in ("user", "key"):
            key = {"Authorization": f"Bearer {answer.json()['key']}"}
            assert answer.json()["name"] == home.ask("GET", "me", **key).json()["name"]
        else:
            assert ["v1"] == [one["name"] for one in home.ask("GET", listed).json()["items"]]


@pytest.mark.parametrize("what", ["token", "rollout"])
def test_killed_before_the_commit(home: Home, what: str) -> None:
    """Nothing was done. The repeated request waits until the first is given up, and is carried out once then."""
    path, body, listed, told, before = prepared(home, what)
    killed(home, "before", path, body)
    with home.served(str(FLEET)):
        known = len(home.ask("GET", listed).json()["items"])
        assert before == home.told()
        refused = home.ask("POST", path, body, **KEY)
        assert "urn:edgeopt:problem:in-progress" == refused.json()["type"]
    with closing(sqlite3.connect(home.path / "fleet.db")) as database, database:
        database.execute("UPDATE answer SET created_at = created_at - 61")
    with home.served(str(FLEET)):
        answers = [home.ask("POST", path, body, **KEY) for _ in range(2)]
        assert [201, 201] == [answer.status_code for answer in answers], answers[0].text
        assert answers[0].content == answers[1].content
        assert known + 1 == len(home.ask("GET", listed).json()["items"])
        assert told == [one for one in home.told()[len(before) :] if one in told]

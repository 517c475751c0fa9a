"""No secret where another user of the machine, or whoever reads a log, could see it: every logger at DEBUG."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from demo.system import Program, System, wait_until
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolResponse, EnrolToken
from tests.fleet.conftest import CAPABILITIES
from tests.identity import DeviceKey, enrol_request
from tests.rights import at_debug
from tests.scenarios.test_secrets import watched_processes

pytestmark = [pytest.mark.rights, pytest.mark.scenario]

READY_SECONDS = 120.0
_PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n", re.DOTALL)


def served_at_debug(system: System) -> None:
    """Make a fleet and serve it with every logger at DEBUG."""
    home = system.directory / "fleet"
    system.command("edgeopt-fleet", "init", str(home), "--plain", "--tick-seconds", "0.2")
    command = [sys.executable, str(at_debug.__file__), "serve", str(home), "--verbose"]
    system.server = Program(command, system.directory / "fleet.log", {})
    system.server.start()
    wait_until("the fleet server", system._fleet_is_ready, READY_SECONDS)  # telling everything takes its time


def use_everything(system: System, api: httpx.Client) -> tuple[list[str], list[bytes]]:
    """Make every kind of secret, use it rightly and wrongly; return the secrets, and what must not hold any."""
    said: list[bytes] = []

    def call(method: str, path: str, key: str = "", **options: Any) -> httpx.Response:
        return api.request(method, path, headers={"Authorization": f"Bearer {key}"} if key else {}, **options)

    operator = json.loads(system.operator_file.read_text())["key"]
    alice = call("POST", "/api/v1/users", operator, json={"name": "alice", "role": "operator"}).json()["key"]
    newer = call("POST", "/api/v1/me/rotate", alice, json={}).json()["key"]
    token = call("POST", "/api/v1/tokens", alice, json={}).json()["token"]
    secret, device_key = EnrolToken.parse(token).secret, DeviceKey()
    body = encode(enrol_request(token, "cam-1", device_key, CAPABILITIES))
    enrolled = call("POST", "/api/v1/devices/enrol", content=body)
    assert 201 == enrolled.status_code, enrolled.text
    identity = decode(EnrolResponse, enrolled.content)
    assert identity.mqtt.password is not None
    wrong = [
        call("POST", "/api/v1/devices/enrol", content=encode(enrol_request(token, "thief", DeviceKey(), CAPABILITIES))),
        call("POST", "/api/v1/devices/enrol", content=body[:-1]),
        call("POST", "/api/v1/devices/enrol", content=b'{"token": "' + secret.encode() + b'", "device": 7}'),
        call("GET", f"/api/v1/devices?key={alice}&limit={alice}", alice),
        call("GET", f"/api/v1/devices/{alice}", alice),
        call("GET", f"/{alice}", alice),
        call("GET", f"/api/v1/blocks/{'0' * 64}", identity.bearer),
        call("GET", f"/api/v1/blocks/{'0' * 64}", alice),
        call("GET", "/api/v1/devices", identity.bearer),
        call("GET", "/api/v1/devices", alice + "x"),
        call("POST", "/api/v1/tokens", alice, json={"uses": alice, "tags": {"a": secret}}),
        call("POST", "/api/v1/users", operator, json={"name": newer, "role": newer}),
        call("POST", "/api/v1/users/alice/revoke", operator, json={"prefix": newer}),
    ]
    assert all(answer.status_code >= 400 for answer in wrong)
    echoes = ("invalid", "not-found")  # may name what was asked for, to whoever asked
    said += [a.content for a in wrong if not a.json()["type"].endswith(echoes)]
    for path in ("/api/v1/users", "/api/v1/tokens", "/api/v1/devices", "/api/v1/alerts", "/api/v1/audit/export"):
        answer = call("GET", path, operator)
        assert 200 == answer.status_code, path
        said.append(answer.content)
    said += [call("GET", path).content for path in ("/metrics", "/healthz", "/readyz", "/openapi.json")]
    secrets = [operator, alice, newer, secret, identity.bearer, identity.mqtt.password]
    secrets += secret_lines(device_key.pem().decode())
    return secrets, said


def secret_lines(pem: str) -> list[str]:
    """Return the lines of a private key that hold something of it: its last ones may be the public key alone."""
    key = load_pem_private_key(pem.encode(), None)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [line for line in pem.splitlines() if "-----" not in line and base64.b64decode(line) not in public]


def private_lines(home: Path) -> list[str]:
    """Return the secret lines of the fleet's own private keys."""
    found = [block for path in home.rglob("*") if path.is_file() for block in _PRIVATE.findall(path.read_bytes())]
    return [line for block in found for line in secret_lines(block.decode())]


def test_no_secret_is_in_a_log_a_list_of_processes_an_answer_or_an_open_file(tmp_path: Path) -> None:
    """Keys, tokens, bearers, passwords and private keys, used rightly and wrongly."""
    with System(tmp_path) as system, watched_processes() as seen:
        served_at_debug(system)
        url = json.loads(system.operator_file.read_text())["url"]
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as api:
            secrets, said = use_everything(system, api)
        system.command("edgeopt-fleet", "backup", str(tmp_path / "fleet"), str(tmp_path / "fleet.backup"))
    home = tmp_path / "fleet"
    secrets += private_lines(home)
    assert len(secrets) >= 16
    assert all(len(secret) >= 16 for secret in secrets)
    log = (tmp_path / "fleet.log").read_text()
    assert "DEBUG" in log or '"debug"' in log, "the loggers told what they could"
    assert "token" in log, "SQL statements, too"
    where = {
        "log": [log],
        "list of processes": list(seen),
        "answers": [text.decode() for text in said],
    }
    for place, texts in where.items():
        for secret in secrets:
            found = [text[max(0, text.index(secret) - 80) : text.index(secret)] for text in texts if secret in text]
            assert [] == found, place
    opened = [path for path in [tmp_path / "fleet.backup", *home.rglob("*")] if path.is_file() and holds(path, secrets)]
    assert opened, "operator.json holds one"
    assert [] == [str(path) for path in opened if path.stat().st_mode & 0o077]
    kept = [name for name in ("fleet.db", "fleet.db-wal", "broker/broker.json") if holds(home / name, secrets)]
    assert [] == kept, "of keys, tokens and bearers there are hashes only"
    print(
        f"\n{len(secrets)} secrets; {len(log)} characters of log, {len(seen)} command lines, {len(said)} answers: none"
    )


def holds(path: Path, secrets: list[str]) -> bool:
    """Say whether a secret is in a file, as it is."""
    data = path.read_bytes() if path.exists() else b""
    return any(secret.encode() in data for secret in secrets)

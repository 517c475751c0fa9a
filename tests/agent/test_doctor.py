"""The doctor: what it sees on a device that is well, and on ones that are not."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeopt_agent.device import doctor
from edgeopt_agent.device.checkup import Verdict, describe, fail, good, warn, worst
from edgeopt_agent.device.doctor import examine
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.trust.floor import Floor
from edgeopt_agent.trust.state import State, save_state
from edgeopt_contract.values import digest_of
from tests.agent.conftest import Device, FakeFleet, Signer, free_port, write_identity
from tests.agent.test_cli import agent
from tests.tiny import tiny_bundle


@pytest.fixture
def data(tmp_path: Path, signer: Signer) -> Path:
    """An enrolled device that has never run, whose broker does not answer."""
    data = tmp_path / "device"
    write_identity(data, signer, free_port())
    (data / "device.json").chmod(0o600)
    return data


def found(data: Path) -> dict[str, Any]:
    """Return the worst finding of each check."""
    findings: dict[str, Any] = {}
    for finding in examine(data):
        if finding.check not in findings or worst([findings[finding.check], finding]) is finding.verdict:
            findings[finding.check] = finding
    return findings


def test_device_that_never_ran_hears_what_to_do(data: Path) -> None:
    """No agent, no bundle, no broker: each is said with its advice, and nothing is created."""
    before = sorted(path.name for path in data.iterdir())
    findings = found(data)
    assert Verdict.WARN == findings["agent"].verdict
    assert Verdict.GOOD == findings["identity"].verdict
    assert Verdict.WARN == findings["bundle"].verdict
    assert Verdict.FAIL == findings["broker"].verdict
    assert "is it running" in findings["broker"].advice
    assert Verdict.WARN == findings["server"].verdict
    assert {"disk", "disk speed", "memory", "temperature", "runtime", "clock", "spool", "systemd"} <= set(findings)
    assert all(finding.advice for finding in findings.values() if finding.verdict is not Verdict.GOOD)
    assert before == sorted(path.name for path in data.iterdir())


def test_device_that_is_not_enrolled_is_told_so(tmp_path: Path) -> None:
    """The first step first; the disk is looked at all the same."""
    findings = found(tmp_path)
    assert Verdict.FAIL == findings["identity"].verdict
    assert "token create" in findings["identity"].advice
    assert "disk" in findings


def test_readable_key_is_found(data: Path) -> None:
    """What others may read is named, with the command that helps."""
    (data / "device.json").chmod(0o644)
    finding = found(data)["identity"]
    assert Verdict.FAIL == finding.verdict
    assert f"chmod 600 {data / 'device.json'}" in finding.advice


def test_clock_behind_what_the_fleet_has_stated_is_found(data: Path, signer: Signer) -> None:
    """A device without a clock battery that never reached a time server."""
    state = State(anchor=digest_of(signer.root.encode()), floor=Floor(at=time.time() + 86_400))
    (data / "trust").mkdir()
    save_state(data / "trust", state)
    finding = found(data)["clock"]
    assert Verdict.FAIL == finding.verdict
    assert "set-ntp" in finding.advice


def test_damaged_spool_is_found(data: Path) -> None:
    """Bytes that a worn card has changed."""
    path = data / "agent.db"
    Spool.open(path, now_ms=1).close()
    path.write_bytes(path.read_bytes()[:2048] + b"\xff" * 1024 + path.read_bytes()[3072:])
    assert Verdict.FAIL == found(data)["spool"].verdict


def test_slow_full_or_hot_machines_are_found(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are limits: what a test cannot make happen is told to the doctor."""
    monkeypatch.setattr(doctor, "_SLOW_SYNC_SECONDS", 0.0)
    monkeypatch.setattr(doctor, "_LEAST_DISK", 1 << 60)
    monkeypatch.setattr(doctor, "read_gauges", lambda _: {"memory_bytes": 1e6, "temperature_celsius": 85.0})
    findings = found(data)
    seen = {name: findings[name].verdict for name in ("disk", "disk speed", "memory", "temperature")}
    assert {"disk": "fail", "disk speed": "warn", "memory": "warn", "temperature": "warn"} == seen


class _Broker(threading.Thread):
    """Answers one CONNECT with a return code, and remembers what it got."""

    def __init__(self, code: int) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heard = b""
        self._code = code

    def run(self) -> None:
        """Serve the doctor."""
        connection, _ = self.listener.accept()
        with connection:
            self.heard = connection.recv(1000)
            connection.sendall(b"\x20\x02\x00" + bytes([self._code]))
            connection.recv(1000)


@pytest.fixture(params=[0, 5])
def refusing(request: pytest.FixtureRequest) -> Iterator[_Broker]:
    """A broker that says the code of the test."""
    broker = _Broker(request.param)
    broker.start()
    yield broker
    broker.join(10)
    broker.listener.close()


def test_login_is_tried_and_the_reason_told(refusing: _Broker, tmp_path: Path, signer: Signer) -> None:
    """MQTT's return code becomes words; what was sent is a CONNECT with this device's name."""
    write_identity(tmp_path / "d", signer, refusing.port)
    finding = found(tmp_path / "d")["broker"]
    assert (Verdict.FAIL if refusing._code else Verdict.GOOD) == finding.verdict
    assert ("not allowed" in finding.seen) == bool(refusing._code)
    assert struct.pack("!H", 4) + b"MQTT\x04" in refusing.heard
    assert b"cam-1" in refusing.heard


def test_verdicts_are_ordered_and_described() -> None:
    """The worst counts, and advice stands under what it is about."""
    findings = [good("a", "fine"), warn("b", "so so", "look"), fail("c", "broken", "mend")]
    assert (Verdict.FAIL, Verdict.WARN, Verdict.GOOD) == (worst(findings), worst(findings[:2]), worst([]))
    assert "-> mend" in describe(findings).splitlines()[-1]


@pytest.mark.scenario
@pytest.mark.timeout(90)
def test_running_device_is_well_and_stays_connected(fleet: FakeFleet, device: Device, tmp_path: Path) -> None:
    """Beside a running agent the doctor logs in nowhere, finds all good, and the agent does not notice."""
    bundle = tiny_bundle(tmp_path / "1")
    fleet.publish_bundle(bundle)
    device.start()
    fleet.desire(bundle)
    fleet.wait_for("confirmed")
    births = len(fleet.statuses)

    done = agent("doctor", "--data", str(device.data), "--json")

    findings = {row["check"]: row for row in json.loads(done.stdout)}
    assert "every byte verified" in findings["bundle"]["seen"]
    assert {"good"} == {
        findings[name]["verdict"] for name in ("agent", "bundle", "broker", "fleet", "spool", "runtime")
    }
    text = agent("status", "--data", str(device.data)).stdout
    assert "agent runs (process" in text
    assert "tiny 1" in text
    assert births == len(fleet.statuses)
    assert "secret" not in done.stdout + text


def test_exit_code_says_whether_something_fails(tmp_path: Path) -> None:
    """1 when something fails, with its advice on the screen."""
    done = agent("doctor", "--data", str(tmp_path))
    assert 1 == done.returncode
    assert "fail  identity" in done.stdout
    assert "-> enrol this device" in done.stdout

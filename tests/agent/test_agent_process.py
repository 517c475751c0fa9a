"""What the agent process carries: an event loop, a database, two protocols; no arrays, no keys, no runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.agent.conftest import Device, FakeFleet, wait_until
from tests.tiny import tiny_bundle

HEAVY = ("numpy", "onnxruntime", "ai_edge_litert", "openvino", "cryptography")


def mapped(pid: int) -> str:
    """The files that are mapped into a process."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_agent_that_serves_maps_nothing_heavy(
    fleet: FakeFleet, device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an update, with requests coming in: the libraries are in the runner, and not in the agent."""
    bundle = tiny_bundle(tmp_path / "bundle")
    fleet.publish_bundle(bundle)
    device.start("--source", "tests.tiny:field", "--http", "0")
    fleet.desire(bundle)
    fleet.wait_for("confirmed")
    wait_until("a window with rows", lambda: any(window.rows for window in fleet.telemetry(bundle.digest)))
    assert device.process is not None
    runners = [pid for pid in device.runners() if "onnxruntime" in mapped(pid)]
    assert 1 == len(runners), "the test looks for names that the runner has"
    maps = mapped(device.process.pid)
    status = Path(f"/proc/{device.process.pid}/status").read_text()
    resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    with capsys.disabled():
        print(f"\n  agent process: {int(resident) / 1024:.1f} MiB resident")
    assert [] == [name for name in HEAVY if name in maps]

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import select

from edgeopt_contract.codec import decode
from edgeopt_contract.enrolment import EnrolResponse
from edgeopt_fleet.config import Home
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.tables import SpoolRow
from tests.fleet.conftest import FakeDevice, enrol_body, eventually, make_bundle, operator_access
from tests.identity import DeviceKey, tls_of

COMMAND = str(Path(sys.executable).with_name("edgeopt-fleet"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=180)


def test_init_makes_a_fleet(tmp_path: Path) -> None:
    """Settings, keys, database and operator's access; secrets are the owner's only."""
    home = tmp_path / "fleet"
    done = run("init", str(home), "--tick-seconds", "0.2")
    assert 0 == done.returncode, done.stderr
    access = operator_access(home)
    assert access["url"].startswith("http://127.0.0.1:")
    assert "tick_seconds = 0.2" in (home / "fleet.toml").read_text()
    for name in ("operator.json", "fleet.db", "ca/ca.key", "ca/server.pem", "ca/client.pem"):
        assert 0o600 == (home / name).stat().st_mode & 0o777, name
    assert access["key"] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init", "{full}"), "is not empty"),
        (("init", "{new}", "--host", "no.such.host.invalid"), "cannot listen"),
        (("init", "{new}", "--http-port", "70000"), "70000"),
        (("serve", "{new}"), "edgeopt-fleet init"),
        (("serve",), "DIRECTORY"),
        (("fly",), "fly"),
    ],
)
def test_wrong_use_gives_one_message_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """No traceback, nothing half-made."""
    full, new = tmp_path / "full", tmp_path / "new"
    full.mkdir()
    (full / "precious").touch()
    done = run(*(argument.format(full=full, new=new) for argument in arguments))
    assert 2 == done.returncode, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not new.exists()
    assert ["precious"] == [path.name for path in full.iterdir()]


@dataclass
class Fleet:
    """A fleet in a directory; the server is a process that can be killed."""

    home: Path
    log: Path
    process: subprocess.Popen[bytes] | None = None
    devices: list[FakeDevice] = field(default_factory=list)

    def start(self) -> None:
        """Start the server."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([COMMAND, "serve", str(self.home)], stdout=log, stderr=log)

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """Call the API as the operator and return the JSON."""
        access = operator_access(self.home)
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.request(
                method,
                f"{access['url']}/{path}",
                headers={"Authorization": f"Bearer {access['key']}"},
                **options,
            )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def ready(self) -> None:
        """Wait until the server hears its devices."""

        async def connected() -> bool:
            return bool((await self.call("GET", "healthz"))["broker"] == "connected")

        await eventually(connected, "the server")

    async def enrol(self, device: str) -> FakeDevice:
        """Enrol a device."""
        token = (await self.call("POST", "api/v1/tokens", json={}))["token"]
        access = operator_access(self.home)
        async with httpx.AsyncClient() as client:
            key = DeviceKey()
            answer = await client.post(f"{access['url']}/api/v1/devices/enrol", content=enrol_body(token, device, key))
        identity = decode(EnrolResponse, answer.content)
        fake = FakeDevice(identity, tls_of(self.home.parent, key, identity))
        self.devices.append(fake)
        return fake

    async def publish(self, directory: Path, version: str) -> str:
        """Publish a bundle."""
        bundle = make_bundle(directory, version)
        manifest = (directory / "manifest.json").read_bytes()
        for entry in bundle.manifest.files:
            data, offset = bundle.path_of(entry).read_bytes(), 0
            for block in entry.blocks:
                await self.call("PUT", f"api/v1/blocks/{block.sha256}", content=data[offset : offset + block.size])
                offset += block.size
        await self.call("POST", "api/v1/bundles", content=manifest)
        return bundle.digest

    async def wait_for(self, rollout: str, *states: str) -> Any:
        """Wait until a rollout is in one of these states and return it."""

        async def probe() -> Any:
            view = await self.call("GET", f"api/v1/rollouts/{rollout}")
            return view if view["state"] in states else None

        return await eventually(probe, f"{rollout} to be {states}")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Make and start a fleet."""
    home = tmp_path / "fleet"
    assert run("init", str(home), "--tick-seconds", "0.1").returncode == 0
    fleet = Fleet(home, tmp_path / "log")
    fleet.start()
    yield fleet
    assert fleet.process is not None
    fleet.process.terminate()
    assert fleet.process.wait(120) in (0, -signal.SIGKILL)


@pytest.fixture
async def devices(fleet: Fleet) -> AsyncIterator[list[FakeDevice]]:
    """Run three devices without an agent."""
    await fleet.ready()
    tasks = [asyncio.create_task((await fleet.enrol(f"cam-{number}")).run()) for number in range(3)]

    async def all_online() -> bool:
        items = (await fleet.call("GET", "api/v1/devices"))["items"]
        return len(items) == 3 and all(item["online"] for item in items)

    await eventually(all_online, "the devices")
    yield fleet.devices
    for task, device in zip(tasks, fleet.devices, strict=True):
        device.stopped = True
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results), results


@pytest.mark.scenario
async def test_a_second_server_and_a_taken_port_are_refused(fleet: Fleet, tmp_path: Path) -> None:
    """One message that names the process or the port; exit code 2."""
    await fleet.ready()
    assert fleet.process is not None
    second = await asyncio.to_thread(run, "serve", str(fleet.home))
    assert (2, True) == (second.returncode, f"process {fleet.process.pid}" in second.stderr), second.stderr
    port = operator_access(fleet.home)["url"].rsplit(":", 1)[1]
    other = str(tmp_path / "other")
    assert 0 == (await asyncio.to_thread(run, "init", other, "--http-port", port)).returncode
    taken = await asyncio.to_thread(run, "serve", other)
    assert (2, True) == (taken.returncode, f"127.0.0.1:{port}" in taken.stderr), taken.stderr


@pytest.mark.scenario
async def test_sigterm_ends_server_and_broker_with_exit_code_0(fleet: Fleet) -> None:
    """Nothing is left running, no secret stands in the log."""
    await fleet.ready()
    assert fleet.process is not None
    broker = int((fleet.home / "run" / "broker.pid").read_text())
    assert str(fleet.process.pid) == (fleet.home / "run" / "server.pid").read_text().strip()
    fleet.process.terminate()
    assert 0 == await asyncio.to_thread(fleet.process.wait, 120)
    assert not _alive(broker)
    log = fleet.log.read_text()
    assert "fleet is ready at http://127.0.0.1:" in log
    assert operator_access(fleet.home)["key"] not in log


@pytest.mark.scenario
async def test_sigterm_with_messages_in_flight_loses_and_doubles_nothing(
    fleet: Fleet, devices: list[FakeDevice], tmp_path: Path
) -> None:
    """What was acknowledged is in the database when the server has ended; what was not comes again, and counts once.

    The devices send all the time, and every other message twice; the server is ended in their midst three times.
    """
    digest = await fleet.publish(tmp_path / "b1", "1")
    body = {"name": "v1", "bundle": digest, "waves": [100], "policy": {"minimum_rows": 60, "bake_seconds": 0}}
    await fleet.call("POST", "api/v1/rollouts", json=body)
    await fleet.wait_for("v1", "succeeded")
    for device in devices:
        device.pause_seconds = 0.001
    for _ in range(3):
        await fleet.ready()
        more = {device.identity.device: device.number + 20 for device in devices}
        await eventually(lambda more=more: _sent(devices, more), "messages to flow")
        assert fleet.process is not None
        fleet.process.terminate()
        assert 0 == await asyncio.to_thread(fleet.process.wait, 120)
        stored = spools(fleet.home)
        for device in devices:
            acknowledged = min(device.spool, default=device.number + 1) - 1
            assert acknowledged <= stored[device.identity.device] <= device.number
        fleet.start()
    await fleet.ready()
    for device in devices:
        device.running = None  # no more windows; what is not acknowledged is sent until it is
    for device in devices:
        await eventually(lambda device=device: _counts_agree(fleet, device), "the counts to agree")
        assert {} == device.spool


async def _sent(devices: list[FakeDevice], numbers: dict[str, int]) -> bool:
    return all(device.number >= numbers[device.identity.device] for device in devices)


def spools(home: Path) -> dict[str, int]:
    """Return of every device up to which number everything is stored; nobody serves the fleet."""
    database = Database.open(Home(home).database)
    try:
        with database.reading() as session:
            return {spool.device: spool.upto for spool in session.exec(select(SpoolRow))}
    finally:
        database.close()


@pytest.mark.scenario
async def test_the_broker_dies_with_a_killed_server(fleet: Fleet) -> None:
    """However the server ends, its broker does not stay behind and hold the port."""
    await fleet.ready()
    broker = int((fleet.home / "run" / "broker.pid").read_text())
    fleet.kill()
    await eventually(lambda: asyncio.sleep(0, not _alive(broker)), "the broker to die")
    fleet.start()
    await fleet.ready()


@pytest.mark.scenario
async def test_a_rollout_survives_kill_9_of_server_and_broker(
    fleet: Fleet, devices: list[FakeDevice], tmp_path: Path
) -> None:
    """Both are killed in the middle; the rollout still succeeds, and no message is lost or counted twice.

    The devices send every other message twice, so duplicates are part of it.
    """
    digest = await fleet.publish(tmp_path / "b1", "1")
    await fleet.call(
        "POST",
        "api/v1/rollouts",
        json={
            "name": "v1",
            "bundle": digest,
            "waves": [30, 60, 100],
            "policy": {"minimum_rows": 300, "bake_seconds": 0},
        },
    )

    async def confirmed() -> bool:
        view = await fleet.call("GET", "api/v1/rollouts/v1")
        return any(member["state"] == "confirmed" for member in view["members"])

    await eventually(confirmed, "the canary")
    os.kill(int((fleet.home / "run" / "broker.pid").read_text()), signal.SIGKILL)

    async def second_wave() -> bool:
        return bool((await fleet.call("GET", "api/v1/rollouts/v1"))["wave"] >= 1)

    await eventually(second_wave, "the second wave")
    fleet.kill()
    fleet.start()
    await fleet.ready()
    view = await fleet.wait_for("v1", "succeeded", "rolled_back", "paused", "cancelled")

    assert "succeeded" == view["state"], view["verdicts"]
    assert [digest] * 3 == [device.running for device in devices]
    assert all(1 == len(device.jobs) for device in devices), "no job was given twice"
    for device in devices:
        await eventually(lambda device=device: _counts_agree(fleet, device), "the counts to agree")


async def _counts_agree(fleet: Fleet, device: FakeDevice) -> bool:
    (stored,) = (await fleet.call("GET", f"api/v1/devices/{device.identity.device}/messages"))["items"]
    assert stored["stored"] <= device.number
    windows = device.number - len(device.jobs)
    return (device.number, device.number, 60 * windows) == (stored["upto"], stored["stored"], stored["rows"])


def _alive(pid: int) -> bool:
    """Say whether a process runs; one that only waits to be reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_help_answers_at_once() -> None:
    """Nothing heavy is imported for ``--help``; each command shows an example."""
    for arguments in ((), ("init",), ("serve",)):
        done = run(*arguments, "--help")
        assert 0 == done.returncode
        assert "Example:" in done.stdout
    heavy = "('fastapi', 'sqlmodel', 'scipy', 'numpy')"
    code = f"import sys, edgeopt_fleet.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()

"""A whole cluster of real processes on the loopback: PostgreSQL, three broker nodes, API processes, workers, devices.

Each process has a directory of its own with what a machine is given that is added to a fleet: settings and secrets.
They share the database and nothing else.
A front stands where production has a load balancer or a name with several addresses: devices connect to one port and
get whichever node answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.enrolment import EnrolResponse
from edgeopt_contract.messages import Reported
from edgeopt_contract.topics import Topics
from edgeopt_fleet.leash import leashed
from edgeopt_fleet.web import free_port
from tests.fleet.conftest import FakeDevice, enrol_body, eventually, make_bundle, operator_access, window
from tests.fleet.postgres import missing_postgres, running_postgres
from tests.identity import DeviceKey, tls_of

COMMAND = str(Path(sys.executable).with_name("edgeopt-fleet"))
NODES = ("a", "b", "c")
LEASE_SECONDS = 3.0
SHARED_FILES = ("fleet.toml", "ca/ca.key", "ca/ca.pem", "keys", "broker/routes.secret")


@dataclass
class Process:
    """One process of the cluster, which can be killed, stopped and started again."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it; it dies with the tests."""
        with self.log.open("ab") as log:
            command = leashed(COMMAND, *self.command)
            self.process = subprocess.Popen(command, env={**os.environ, **self.environment}, stdout=log, stderr=log)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; SIGKILL is waited for."""
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait(30)

    def end(self) -> int:
        """End it in order and return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        return self.process.wait(60)


class Front:
    """Passes connections on to the first node that takes them, beginning with the one that did last."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self._writers: set[asyncio.StreamWriter] = set()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        for port in list(self.ports):
            try:
                upstream = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self.ports.remove(port)  # to the end: it is asked again when no other answers
                self.ports.append(port)
                continue
            self._writers |= {writer, upstream[1]}
            await asyncio.gather(_pass_on(reader, upstream[1]), _pass_on(upstream[0], writer))
            self._writers -= {writer, upstream[1]}
            return
        writer.close()

    def close(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


@dataclass
class Device(FakeDevice):
    """Makes windows all the time, and sends what is not acknowledged again, every other one twice."""

    sent: int = 0

    async def _serve(self, client: aiomqtt.Client) -> None:
        me, fresh = self.identity.device, set[int]()
        while True:
            if self.running is not None and not self.stopped:
                made = window(self.running, self.number + 1, confidence=self.confidence)
                self._spool(lambda number, made=made: replace(made, session=7, number=number))
                fresh.add(self.number)
            again = self.number % 4 == 0  # what is new at once, what is old about each second
            for number, record in list(self.spool.items()):
                if again or self.stopped or number in fresh:
                    topic = Topics.reported(me) if isinstance(record, Reported) else Topics.telemetry(me)
                    for _ in range(1 + number % 2):
                        await client.publish(topic, encode(record), qos=1)
                        self.sent += 1
            fresh.clear()
            await asyncio.sleep(0.25)


@dataclass
class Cluster:
    """The processes, and an operator who asks whichever API answers."""

    home: Path
    nodes: dict[str, int]  # the MQTT port of each broker node
    processes: dict[str, Process]
    urls: list[str]
    probes: dict[str, str]
    devices: list[Device] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    async def call(self, method: str, path: str, *, api: int | None = None, **options: Any) -> Any:
        """Call ``/api/v1/<path>`` at the API process number ``api``, or at the first that answers."""
        key = operator_access(self.home)["key"]
        for url in self.urls if api is None else [self.urls[api]]:
            try:
                async with httpx.AsyncClient(timeout=30) as client:
                    headers = {"Authorization": f"Bearer {key}"}
                    answer = await client.request(method, f"{url}/api/v1/{path}", headers=headers, **options)
            except httpx.TransportError:
                continue
            assert answer.is_success, answer.text
            return answer.json() if answer.content else None
        raise httpx.ConnectError("no API process answers")

    async def readiness(self, url: str) -> dict[str, Any]:
        """Return what a process says of itself, or nothing when it does not answer."""
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(timeout=10) as client:
                found: dict[str, Any] = (await client.get(f"{url}/readyz")).json()
                return {check["name"]: check for check in found["checks"]} | {"ready": found["ready"]}
        return {}

    async def holder(self, role: str) -> Process | None:
        """Return the worker that holds ``role``, by what the API processes say."""
        for url in self.urls:
            check = (await self.readiness(url)).get(f"role {role}")
            found = check and check["ok"] and re.search(r"held by \S+:(\d+):", check["detail"])
            if found:
                holders = [p for p in self.processes.values() if p.process and p.pid == int(found[1])]
                return holders[0] if holders else None
        return None

    async def until_held(self, role: str, *, by: Process | None = None, instead_of: Process | None = None) -> Process:
        """Wait until ``role`` is held, by one worker or by another than before."""

        async def probe() -> Process | None:
            found = await self.holder(role)
            fits = found is not None and found is not instead_of and (by is None or found is by)
            return found if fits else None

        held: Process = await eventually(probe, f"the role {role} to be held")
        return held

    async def until_heard(self) -> None:
        """Wait until the fleet hears its devices."""

        async def probe() -> bool:
            for url in self.urls:
                broker = (await self.readiness(url)).get("broker")
                if broker and broker["ok"]:
                    return True
            return False

        await eventually(probe, "the devices to be heard")

    async def identity(self, name: str) -> Device:
        """Enrol a device that does nothing yet."""
        token = (await self.call("POST", "tokens", json={}))["token"]
        key = DeviceKey()
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"{self.urls[0]}/api/v1/devices/enrol", content=enrol_body(token, name, key))
        identity = decode(EnrolResponse, answer.content)
        return Device(identity, tls_of(self.home.parent, key, identity))

    async def enrol(self, name: str) -> None:
        """Enrol a device and let it live."""
        device = await self.identity(name)
        self.devices.append(device)
        self.tasks.append(asyncio.create_task(device.run()))

    async def publish(self, directory: Path, version: str) -> str:
        """Publish a bundle; manifest and blocks go to different API processes."""
        bundle = make_bundle(directory, version)
        for entry in bundle.manifest.files:
            data, offset = bundle.path_of(entry).read_bytes(), 0
            for block in entry.blocks:
                part = data[offset : offset + block.size]
                await self.call("PUT", f"blocks/{block.sha256}", api=offset % len(self.urls), content=part)
                offset += block.size
        manifest = (directory / "manifest.json").read_bytes()
        await self.call("POST", "bundles", api=1, content=manifest)
        return bundle.digest

    async def timed(self, what: str, waiting: Any) -> Any:
        """Wait and note how long it took."""
        started = time.monotonic()
        result = await waiting
        self.figures[what] = f"{time.monotonic() - started:.1f} s"
        return result


def machine(home: Path, name: str) -> Path:
    """Return the directory of another machine, with the files that docs/guides/deploy.md says."""
    directory = home.parent / name.replace(" ", "-")
    for path in SHARED_FILES:
        (directory / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (home / path).is_dir():
            shutil.copytree(home / path, directory / path)
        else:
            shutil.copy2(home / path, directory / path)
    return directory


def _processes(home: Path, ports: list[int], probes: list[int]) -> Iterator[Process]:
    shared = {"EDGEOPT_FLEET_LEASE_SECONDS": str(LEASE_SECONDS)}

    def process(name: str, verb: str, *options: str, **settings: object) -> Process:
        environment = {f"EDGEOPT_FLEET_{setting}": str(value) for setting, value in settings.items()}
        command = [verb, str(machine(home, name)), *options]
        return Process(name, command, {**shared, **environment}, home.parent / f"{name.replace(' ', '-')}.log")

    for node in NODES:
        yield process(f"node {node}", "broker", "--node", node)
    for number, port in enumerate(ports):
        yield process(f"api {number}", "api", HTTP_PORT=port)
    for number, port in enumerate(probes):
        yield process(f"worker {number}", "worker", "--verbose", "--log-format", "json", WORKER_PORT=port)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Start all processes of a fleet without devices."""
    reason = missing_postgres()
    if reason is not None:
        pytest.skip(reason)
    home = tmp_path / "fleet"
    mqtt, routes, http, probes = ([free_port("127.0.0.1") for _ in range(n)] for n in (3, 3, 2, 2))
    front = Front(list(mqtt))
    async with contextlib.AsyncExitStack() as stack:
        server = await asyncio.start_server(front.handle, "127.0.0.1", 0)
        await stack.enter_async_context(server)
        stack.callback(front.close)
        postgres = stack.enter_context(running_postgres())
        nodes = [f"{n}=127.0.0.1:{m}:{r}" for n, m, r in zip(NODES, mqtt, routes, strict=True)]
        options = ["--broker", "nats-cluster", *(part for node in nodes for part in ("--broker-node", node))]
        options += ["--database", postgres.create("cluster"), "--tick-seconds", "0.2"]
        options += ["--http-port", str(http[0]), "--mqtt-port", str(server.sockets[0].getsockname()[1])]
        made = await asyncio.to_thread(
            subprocess.run, [COMMAND, "init", str(home), *options], capture_output=True, text=True, check=False
        )
        assert 0 == made.returncode, made.stderr
        processes = {process.name: process for process in _processes(home, http, probes)}
        urls = [f"http://127.0.0.1:{port}" for port in http]
        listening = dict(zip(NODES, mqtt, strict=True))
        cluster = Cluster(
            home, listening, processes, urls, {f"worker {n}": f"http://127.0.0.1:{p}" for n, p in enumerate(probes)}
        )
        for process in processes.values():
            process.start()
            stack.callback(_kill, process)
        yield cluster
        for task in cluster.tasks:
            task.cancel()
        await asyncio.gather(*cluster.tasks, return_exceptions=True)


def _kill(process: Process) -> None:
    assert process.process is not None
    process.process.kill()
    process.process.wait(30)

"""Both brokers with mutual TLS, as the fleet sets them up, and who connects to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest

from edgeopt_agent.mqtt.refusals import Refusal
from edgeopt_contract.errors import UnreachableError
from edgeopt_fleet.broker import FLEET_USER, BrokerSettings, BrokerTls, EmbeddedBroker
from edgeopt_fleet.ca import DeviceAuthority
from edgeopt_fleet.credentials import client_context, write_pair
from edgeopt_fleet.mosquitto import ExternalBroker, MosquittoFiles, write_mosquitto_files
from edgeopt_fleet.store.identities import BrokerUser
from tests.identity import DeviceKey, issue

_READY_SECONDS = 60.0
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class Running:
    """A broker with mutual TLS, the fleet's CA, and a certificate for each of two devices."""

    directory: Path
    port: int
    authority: DeviceAuthority
    broker: EmbeddedBroker | ExternalBroker | None = None
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)
    serials: dict[str, str] = field(default_factory=dict)
    revoked: list[tuple[str, int]] = field(default_factory=list)
    more_rules: str = ""  # for Mosquitto: what an observer may do besides

    @property
    def ca(self) -> Path:
        """The CA's certificate."""
        return self.directory / "ca" / "ca.pem"

    def issue(self, device: str, *, by: DeviceAuthority | None = None, now: float | None = None) -> ssl.SSLContext:
        """Return how ``device`` connects with a certificate ``by`` a CA (the fleet's), made ``now``."""
        key = DeviceKey()
        issued = issue(by or self.authority, device, key, now=time.time() if now is None else now)
        self.serials[device] = issued.serial
        return key.context(self.directory, self.authority.pem, issued.pem)

    def users(self) -> list[BrokerUser]:
        """Return whom the embedded broker lets in."""
        gone = {serial for serial, _ in self.revoked}
        return [
            BrokerUser(device=device, serial=serial, password_hash="")
            for device, serial in self.serials.items()
            if serial not in gone
        ]

    def fleet(self) -> aiomqtt.Client:
        """Return the fleet's own client."""
        context = client_context(self.ca, self.directory / "client.pem")
        return aiomqtt.Client("127.0.0.1", self.port, identifier="edgeopt-fleet", tls_context=context)

    def client(self, device: str, context: ssl.SSLContext | None = None) -> aiomqtt.Client:
        """Return a device's client."""
        return aiomqtt.Client(
            "127.0.0.1",
            self.port,
            identifier=device,
            tls_context=context or self.contexts[device],
            protocol=aiomqtt.ProtocolVersion.V311,
        )

    async def refusal(self, device: str, context: ssl.SSLContext) -> str:
        """Return why the broker does not let this certificate in; empty if it does."""
        refusal = Refusal()
        client = aiomqtt.Client("127.0.0.1", self.port, identifier=device, tls_context=context, logger=refusal.logger)
        try:
            await refusal.or_done(client.__aenter__())
        except (UnreachableError, aiomqtt.MqttError) as error:
            return str(error)
        await client.__aexit__(None, None, None)
        return ""


def make_files(directory: Path, devices: Sequence[str]) -> Running:
    """Make the files of a fleet and its devices below ``directory``."""
    (directory / "ca").mkdir()
    DeviceAuthority.create(directory / "ca", time.time())
    running = Running(directory, _free_port(), DeviceAuthority.load(directory / "ca"))
    write_pair(directory / "server.pem", running.authority.make_server(["127.0.0.1"], time.time()))
    write_pair(directory / "client.pem", running.authority.make_client(FLEET_USER, time.time()))
    running.contexts = {device: running.issue(device) for device in devices}
    return running


@contextlib.asynccontextmanager
async def run_broker(kind: str, made: Running) -> AsyncIterator[Running]:
    """Run a broker, ``nats`` or ``mosquitto``, until the block ends."""
    async with _nats(made) if kind == "nats" else _mosquitto(made):
        async with asyncio.timeout(_READY_SECONDS):
            while not await _is_ready(made):  # noqa: ASYNC110 - another process gets ready, which sets no event here
                await asyncio.sleep(0.05)
        yield made


async def _is_ready(made: Running) -> bool:
    with contextlib.suppress(aiomqtt.MqttError):
        async with made.fleet():
            return True
    return False


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def _nats(made: Running) -> AsyncIterator[None]:
    settings = BrokerSettings(
        directory=made.directory / "broker",
        pid_file=made.directory / "broker.pid",
        host="127.0.0.1",
        port=made.port,
        tls=BrokerTls(server=made.directory / "server.pem", ca=made.ca),
    )
    settings.directory.mkdir()

    async def users() -> list[BrokerUser]:
        return made.users()

    made.broker = EmbeddedBroker(settings, users)
    task = asyncio.create_task(made.broker.run())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def _mosquitto(made: Running) -> AsyncIterator[None]:
    files = MosquittoFiles(
        directory=made.directory / "broker",
        host="127.0.0.1",
        port=made.port,
        server=made.directory / "server.pem",
        ca=made.ca,
    )
    files.directory.mkdir()
    write_mosquitto_files(files, made.authority, (), time.time())
    with (files.directory / "mosquitto.acl").open("a") as rules:
        rules.write(made.more_rules)
    with run_mosquitto(files.directory / "mosquitto.conf", made.directory / "mosquitto.log") as pid:

        async def revoked() -> list[tuple[str, int]]:
            return made.revoked

        made.broker = ExternalBroker(
            files,
            made.authority,
            revoked,
            address=("127.0.0.1", made.port),
            command=shlex.join(["kill", "-HUP", str(pid)]),
        )
        yield


def run_mosquitto(configuration: Path, log: Path) -> contextlib.AbstractContextManager[int]:
    """Run a Mosquitto until the block ends; gives its process id. Skips the test where there is none."""
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
    return run_process([MOSQUITTO, "-c", str(configuration)], log)


@contextlib.contextmanager
def run_process(command: list[str], log: Path) -> Iterator[int]:
    """Run a program with its output in ``log`` until the block ends; gives its process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(10)

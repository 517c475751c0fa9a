"""An orderly end: what was taken in is stored and acknowledged before the roles are handed back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.messages import Ack
from edgeopt_contract.topics import Topics
from edgeopt_fleet.broker import FLEET_USER, BrokerSettings, EmbeddedBroker
from edgeopt_fleet.config import FleetConfig, Home
from edgeopt_fleet.duties import Duties, Site
from edgeopt_fleet.ingest import Ingest
from edgeopt_fleet.leases import Role
from edgeopt_fleet.link import BrokerAddress
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.roles import Roles
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.signals import Signals
from edgeopt_fleet.store.identities import BrokerUser
from edgeopt_fleet.store.inbox import Inbox
from edgeopt_fleet.store.leases import Leases
from edgeopt_fleet.web import free_port
from tests.fleet.conftest import Kit, eventually, window

pytestmark = pytest.mark.scenario


@dataclass
class Hearing:
    """A process that holds the role ``ingest`` over a real broker."""

    kit: Kit
    duties: Duties
    task: asyncio.Task[None]
    leases: Leases
    broker: BrokerAddress

    def client(self) -> aiomqtt.Client:
        """Return a client that plays the devices."""
        return aiomqtt.Client(
            self.broker.host,
            self.broker.port,
            username=self.broker.username,
            password=self.broker.password,
            protocol=aiomqtt.ProtocolVersion.V311,
        )

    def stored(self) -> int:
        """Return how many windows of ``cam`` are in the database."""
        return self.kit.registry.device("cam").windows


@dataclass
class Gate:
    """Holds what is to be stored until it is opened, and counts what was taken in."""

    opened: threading.Event
    began: threading.Event
    taken: int = 0


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Hold the first batch in the middle of being stored; an end in order opens the gate."""
    gate = Gate(threading.Event(), threading.Event())
    store, receive, drain = Inbox.store, Ingest.receive, Ingest.drain

    def slow(self: Inbox, *arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # there the kit enrols
            gate.began.set()
            assert gate.opened.wait(120)
        return store(self, *arguments)

    def counting(self: Ingest, messages: Sequence[tuple[str, bytes]]) -> bool:
        gate.taken += len(messages)
        return receive(self, messages)

    async def opening(self: Ingest, acknowledge: Any) -> None:
        gate.opened.set()
        await drain(self, acknowledge)

    monkeypatch.setattr(Inbox, "store", slow)
    monkeypatch.setattr(Ingest, "receive", counting)
    monkeypatch.setattr(Ingest, "drain", opening)
    return gate


@pytest.fixture
async def hearing(kit: Kit, gate: Gate, tmp_path: Path) -> AsyncIterator[Hearing]:
    """Hold the role until cancelled."""
    kit.enrol("cam")
    (tmp_path / "broker").mkdir()
    port = free_port("127.0.0.1")
    settings = BrokerSettings(
        directory=tmp_path / "broker", pid_file=tmp_path / "broker.pid", host="127.0.0.1", port=port, tls=None
    )

    async def users() -> list[BrokerUser]:
        return []

    broker = EmbeddedBroker(settings, users)
    address = BrokerAddress(host="127.0.0.1", port=port, username=FLEET_USER, password=broker.fleet_password)
    site = Site(
        home=Home(tmp_path),
        config=FleetConfig(http_port=port, mqtt_port=port, roles=("ingest",)),
        database=kit.database,
        serial=Serial(writers=kit.database.writers),
        signals=Signals(),
        metrics=Metrics(),
    )
    duties = Duties(site, [address], "edgeopt-fleet")
    leases = Leases(kit.database, owner="a", seconds=60.0)
    roles = Roles(leases, site.signals, site.metrics, duties.works(), note=duties.note)
    tasks = [asyncio.create_task(broker.run()), asyncio.create_task(roles.run())]
    await eventually(lambda: asyncio.sleep(0, duties.hears()), "the role and the connection")
    yield Hearing(kit, duties, tasks[1], leases, address)
    gate.opened.set()
    for task in reversed(tasks):
        task.cancel()
        await asyncio.wait([task])
    site.serial.close()


async def send_three(client: aiomqtt.Client, gate: Gate) -> None:
    """Send a window that is being stored, and two that wait for it."""
    await client.subscribe(Topics.ack("cam"), 1)
    await client.publish(Topics.telemetry("cam"), encode(window("1" * 64, 1)), qos=1)
    await eventually(lambda: asyncio.sleep(0, gate.began.is_set()), "the first to be stored")
    for number in (2, 3):
        await client.publish(Topics.telemetry("cam"), encode(window("1" * 64, number)), qos=1)
    await eventually(lambda: asyncio.sleep(0, gate.taken == 3), "the others to be taken in")


async def test_an_orderly_end_stores_and_acknowledges_what_was_taken_in(gate: Gate, hearing: Hearing) -> None:
    """Both the batch that is under way and those that wait; only then is the role handed back."""
    async with hearing.client() as client:
        await send_three(client, gate)
        hearing.task.cancel()
        await asyncio.wait([hearing.task])
        gate.opened.set()
        assert 3 == hearing.stored()
        acked = 0
        async with asyncio.timeout(60):
            async for message in client.messages:
                acked = decode(Ack, bytes(message.payload)).upto
                if acked == 3:
                    break
    assert "" == hearing.leases.standing()[0][Role.INGEST].owner


async def test_what_was_taken_over_is_not_finished(gate: Gate, hearing: Hearing) -> None:
    """The devices send it again, to whoever holds the role now."""
    thief = Leases(hearing.kit.database, owner="a", seconds=60.0)
    async with hearing.client() as client:
        await send_three(client, gate)
        taken = thief.acquire(Role.INGEST)
        assert taken is not None
        hearing.task.cancel()
        await asyncio.wait([hearing.task])
    assert gate.opened.is_set()
    assert 0 == hearing.stored()
    assert taken.epoch == thief.standing()[0][Role.INGEST].epoch

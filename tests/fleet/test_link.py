from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.messages import Ack, Desired
from edgeopt_contract.topics import Topics
from edgeopt_contract.values import digest_of
from edgeopt_fleet.broker import FLEET_USER, BrokerSettings, EmbeddedBroker
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.link import BrokerAddress, Link, _ack, _ack_topic
from edgeopt_fleet.rollout import Event, Wave
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.server import free_port
from edgeopt_fleet.store.identities import BrokerUser
from edgeopt_fleet.store.rollouts import Plan
from tests.fleet.conftest import Kit, eventually

pytestmark = pytest.mark.scenario


@dataclass
class Running:
    """A link over a kit and a real broker, and what it heard."""

    link: Link
    broker: EmbeddedBroker
    settings: BrokerSettings
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    async def retained(self, *topics: str) -> dict[str, bytes]:
        """Return what the broker holds on these topics."""
        found: dict[str, bytes] = {}
        async with self.client() as client:
            await client.subscribe([(topic, 0) for topic in topics])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    async for message in client.messages:
                        found[str(message.topic)] = bytes(message.payload)
                        if len(found) == len(topics):
                            break
        return found

    def client(self) -> aiomqtt.Client:
        """Return another client of the fleet's own user."""
        return aiomqtt.Client(
            "127.0.0.1",
            self.settings.port,
            username=FLEET_USER,
            password=self.broker.fleet_password,
            protocol=aiomqtt.ProtocolVersion.V311,
        )


@pytest.fixture
async def running(kit: Kit, tmp_path: Path) -> AsyncIterator[Running]:
    """Run broker and link for a kit in which one device is offered a bundle."""
    kit.enrol("cam-1", "cam-2")
    kit.rollouts.create(
        Plan(
            name="v1",
            bundle=kit.publish("1"),
            cohort="all",
            waves=(Wave.parse("50%"), Wave.parse("100%")),
            policy=Policy(),
        ),
        kit.now,
    )
    kit.rollouts.apply("v1", Event.STARTED, kit.now)
    (tmp_path / "broker").mkdir()
    settings = BrokerSettings(
        directory=tmp_path / "broker",
        pid_file=tmp_path / "broker.pid",
        host="127.0.0.1",
        port=free_port("127.0.0.1"),
        tls=None,
    )

    async def users() -> list[BrokerUser]:
        return []

    broker = EmbeddedBroker(settings, users)
    address = BrokerAddress(host="127.0.0.1", port=settings.port, username=FLEET_USER, password=broker.fleet_password)
    heard: list[tuple[str, bytes]] = []

    def receive(messages: Sequence[tuple[str, bytes]]) -> bool:
        heard.extend(messages)
        return True

    serial = Serial()
    link = Link([address], kit.outbox, serial, receive)
    tasks = [asyncio.create_task(broker.run()), asyncio.create_task(link.run())]
    yield Running(link, broker, settings, heard)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    serial.close()


def exposed(kit: Kit) -> str:
    """Return the device that is offered the bundle."""
    return next(iter(kit.outbox.desired()))


async def test_everything_retained_is_published_on_connecting(kit: Kit, running: Running) -> None:
    """The desired state, the manifest under the bundle's digest, and every block under its hash."""
    device = exposed(kit)
    bundle = kit.publish("1")
    topics = [Topics.desired(device), Topics.block(bundle), *map(Topics.block, kit.bundles.delivery(bundle).blocks)]

    async def all_there() -> dict[str, bytes]:
        found = await running.retained(*topics) if running.link.connected else {}
        return found if len(found) == len(topics) else {}

    found = await eventually(all_there, "the retained messages")
    desired = decode(Desired, found[Topics.desired(device)])
    assert (bundle, f"v1.1.{device}", 60.0) == (desired.bundle, desired.job, desired.bake_seconds)
    for topic, payload in found.items():
        if "/blocks/" in topic:
            assert digest_of(payload) == topic.rsplit("/", 1)[1]


async def test_after_the_broker_was_killed_it_is_published_again(kit: Kit, running: Running) -> None:
    """A broker killed with -9 and with its store lost holds everything again soon after."""
    device = exposed(kit)

    async def there() -> dict[str, bytes]:
        with contextlib.suppress(aiomqtt.MqttError):
            return await running.retained(Topics.desired(device)) if running.link.connected else {}
        return {}

    before = await eventually(there, "the desired state")
    os.kill(int(running.settings.pid_file.read_text()), signal.SIGKILL)
    await eventually(lambda: asyncio.sleep(0, not running.link.connected), "the link to notice")
    assert before == await eventually(there, "the desired state again")


async def test_nothing_wanted_is_an_empty_retained_message(kit: Kit, running: Running) -> None:
    """Rolling back the first version clears the desired state: a device that connects later is told nothing."""
    device = exposed(kit)
    await eventually(lambda: asyncio.sleep(0, running.link.connected), "the connection")
    async with running.client() as client:
        await client.subscribe(Topics.desired(device), 1)
        changed = kit.rollouts.apply("v1", Event.ROLL_BACK_ORDERED, kit.now)
        await running.link.announce(changed)
        async with asyncio.timeout(10):
            async for message in client.messages:
                if message.payload == b"":
                    break


async def test_it_hears_devices_and_acknowledges(running: Running) -> None:
    """What a device publishes is handed on; an acknowledgement reaches the device's topic, not retained."""
    await eventually(lambda: asyncio.sleep(0, running.link.connected), "the connection")
    async with running.client() as client:
        await client.subscribe(Topics.ack("cam-1"), 1)
        await client.publish(Topics.telemetry("cam-1"), b"hello", qos=1)
        await eventually(
            lambda: asyncio.sleep(0, (Topics.telemetry("cam-1"), b"hello") in running.heard), "the message"
        )
        await running.link.acknowledge({"cam-1": [Ack(session=3, upto=7)]})
        async with asyncio.timeout(10):
            message = await anext(aiter(client.messages))
    assert (False, 7) == (message.retain, decode(Ack, bytes(message.payload)).upto)


async def test_without_a_connection_nothing_waits_and_nothing_fails(kit: Kit) -> None:
    """An announcement is dropped: the next connection publishes everything anyway."""
    serial = Serial()

    def receive(messages: Sequence[tuple[str, bytes]]) -> bool:
        raise AssertionError("nothing can be heard")

    address = BrokerAddress(host="127.0.0.1", port=free_port("127.0.0.1"), username="x", password="y")
    link = Link([address], kit.outbox, serial, receive)
    await link.announce()
    await link.acknowledge({"cam-1": [Ack(session=3, upto=7)]})
    assert not link.connected
    serial.close()


@pytest.mark.parametrize(
    "ack",
    [
        Ack(session=1_795_300_000_123, upto=7, reconnect_window_seconds=77.0),
        Ack(session=3, upto=0),
        Ack(session=3, upto=7, beyond=(9, 11), reconnect_window_seconds=1.5),
    ],
)
def test_the_cheap_form_of_an_acknowledgement_is_the_form(ack: Ack) -> None:
    """Byte for byte what the contract's encoder says."""
    assert encode(ack) == _ack(ack)
    assert Topics.ack("cam-1") == _ack_topic("cam-1")

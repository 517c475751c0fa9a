from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest

from edgeopt_contract.topics import Topics
from edgeopt_fleet.broker import FLEET_USER, BrokerSettings, EmbeddedBroker, hash_password, nats_configuration
from edgeopt_fleet.server import free_port
from edgeopt_fleet.store.identities import BrokerUser
from tests.fleet.conftest import eventually

pytestmark = pytest.mark.scenario


@dataclass
class Running:
    """A broker under test; ``devices`` are the users it is told of."""

    broker: EmbeddedBroker
    settings: BrokerSettings
    devices: dict[str, str] = field(default_factory=dict)

    def client(self, user: str, password: str) -> aiomqtt.Client:
        """Return a client that is not connected yet."""
        return aiomqtt.Client(
            "127.0.0.1",
            self.settings.port,
            username=user,
            password=password,
            identifier=user.rstrip("."),
            protocol=aiomqtt.ProtocolVersion.V311,
        )

    async def can_connect(self, user: str, password: str) -> bool:
        """Say whether the broker lets this user in now."""
        with contextlib.suppress(aiomqtt.MqttError):
            async with self.client(user, password):
                return True
        return False

    def pid(self) -> int:
        """Return what the pid file says."""
        return int(self.settings.pid_file.read_text())


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    """Run a broker on a free port with one device."""
    (tmp_path / "broker").mkdir()
    settings = BrokerSettings(
        directory=tmp_path / "broker",
        pid_file=tmp_path / "broker.pid",
        host="127.0.0.1",
        port=free_port("127.0.0.1"),
        tls=None,
    )
    devices = {"cam-1": hash_password("one")}

    async def users() -> list[BrokerUser]:
        return [
            BrokerUser(device=device, serial=str(number), password_hash=password)
            for number, (device, password) in enumerate(devices.items())
        ]

    broker = EmbeddedBroker(settings, users)
    task = asyncio.create_task(broker.run())
    running = Running(broker, settings, devices)
    await eventually(lambda: running.can_connect(FLEET_USER, broker.fleet_password), "the broker")
    yield running
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not settings.pid_file.exists()


async def test_a_new_device_can_connect_when_reload_returns(running: Running) -> None:
    """An enrolment is answered only when the broker knows the device; many at once share reloads."""
    assert not await running.can_connect("cam-2", "two")
    running.devices |= {f"cam-{n}": hash_password("two") for n in range(2, 8)}
    await asyncio.gather(*(running.broker.reload() for _ in range(6)))
    assert await running.can_connect("cam-2", "two")
    assert await running.can_connect("cam-7", "two")
    assert await running.can_connect("cam-1", "one")
    assert not await running.can_connect("cam-2", "wrong")


async def test_a_broker_killed_with_9_is_back_within_seconds(running: Running) -> None:
    """It heals by itself, with the same users, under another process id."""
    before = running.pid()
    os.kill(before, signal.SIGKILL)

    async def is_back() -> bool:
        return running.pid() != before and await running.can_connect("cam-1", "one")

    await eventually(is_back, "the broker to be back", seconds=8)


async def test_a_store_that_cannot_be_read_is_thrown_away(running: Running) -> None:
    """A damaged store does not keep the broker down (mosquitto#2469): nothing relies on it."""
    store = running.settings.directory / "store"
    before = running.pid()
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: asyncio.sleep(0, running.pid() != before), "a new process")
    for path in sorted(store.rglob("*"), reverse=True):
        if path.is_file():
            path.write_bytes(b"\x00damaged")
    os.kill(running.pid(), signal.SIGKILL)
    await eventually(lambda: running.can_connect("cam-1", "one"), "the broker to be back", seconds=20)


async def test_a_device_touches_its_own_topics_only(running: Running) -> None:
    """Subscribing to another device's topics is refused, publishing on them does not arrive."""
    running.devices["cam-2"] = hash_password("two")
    await running.broker.reload()
    async with (
        running.client(FLEET_USER, running.broker.fleet_password) as fleet,
        running.client("cam-1", "one") as cam,
    ):
        await fleet.subscribe([(Topics.ANY_TELEMETRY, 1), (Topics.ANY_REPORTED, 1)])
        (own,) = await cam.subscribe(Topics.desired("cam-1"), 1)
        assert 1 == own
        for topic in (
            Topics.desired("cam-2"),
            Topics.ack("cam-2"),
            Topics.ANY_TELEMETRY,
            "#",
            "edgeopt/v1/devices/+/ack",
        ):
            with contextlib.suppress(aiomqtt.MqttError):
                (granted,) = await cam.subscribe(topic, 0)
                assert granted >= 128, topic
        await cam.publish(Topics.telemetry("cam-1"), b"mine", qos=1)
        with contextlib.suppress(aiomqtt.MqttError):
            await cam.publish(Topics.telemetry("cam-2"), b"forged", qos=0)
        with contextlib.suppress(aiomqtt.MqttError):
            await cam.publish(Topics.reported("cam-1"), b"after", qos=1)
        async with asyncio.timeout(10):
            async for message in fleet.messages:
                assert b"forged" != message.payload
                assert str(message.topic).split("/")[3] == "cam-1"
                if message.payload == b"mine":
                    break


def test_the_configuration_holds_no_password_in_clear(tmp_path: Path) -> None:
    """Only hashes, and permissions for exactly the device's topics."""
    settings = BrokerSettings(directory=tmp_path, pid_file=tmp_path / "pid", host="127.0.0.1", port=1883, tls=None)
    user = BrokerUser(device="cam-1", serial="1", password_hash=hash_password("cam-secret"))
    text = nats_configuration(settings, hash_password("fleet-secret"), [user])
    assert b"secret" not in text
    fleet, cam = json.loads(text)["authorization"]["users"]
    assert "permissions" not in fleet
    assert [
        "edgeopt.v1.devices.cam-1.reported",
        "edgeopt.v1.devices.cam-1.telemetry",
        "edgeopt.v1.devices.cam-1.status",
    ] == (cam["permissions"]["publish"])

"""Mosquitto as ``init`` configures it, under what a fleet of thousands does to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from edgeopt_contract.codec import encode
from edgeopt_contract.messages import Status
from edgeopt_contract.topics import Topics
from edgeopt_fleet.credentials import client_context
from edgeopt_fleet.mqtt.client import MqttClient, Peer, Publication
from edgeopt_fleet.mqtt.packets import Hello
from tests.brokers import Running, make_files, run_broker
from tests.fleet.conftest import CAPABILITIES, eventually

pytestmark = pytest.mark.scenario

DEVICE = "cam-0"
DEVICES = 3000


def birth(device: str) -> bytes:
    """Return what a device says when it comes."""
    status = Status(
        device=device, boot=1, online=True, agent_version="0.1.0", running="a" * 64, capabilities=CAPABILITIES
    )
    return encode(status)


class Road:
    """The way from the broker to a fleet that may be too busy to read: it holds kilobytes, as a network does.

    The loopback alone would hold megabytes.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.open = asyncio.Event()
        self.open.set()
        self.ended = asyncio.Semaphore(0)  # one for each connection that has ended

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        upstream = socket.socket()
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        upstream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        upstream.setblocking(False)
        await asyncio.get_running_loop().sock_connect(upstream, ("127.0.0.1", self.port))
        theirs, ours = await asyncio.open_connection(sock=upstream, limit=4096)
        try:
            await asyncio.gather(self._pump(reader, ours), self._pump(theirs, writer, self.open))
        finally:
            for end in (ours, writer):
                with contextlib.suppress(OSError):
                    end.close()
                    await end.wait_closed()
            self.ended.release()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event | None = None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(16384):
                if gate is not None:
                    await gate.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


class Fleet:
    """The fleet's own connection, and a device that notices how far the broker is."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.heard: list[str] = []
        self.road = Road(running.port)

    async def connect(self, name: str = "", port: int = 0) -> MqttClient:
        """Connect as the fleet, or as the device ``name``."""
        pem = self.running.directory / "client.pem"
        tls = self.running.contexts[name] if name else client_context(self.running.ca, pem)
        peer = Peer(host="127.0.0.1", port=port or self.running.port, tls=tls)
        hello = Hello(client_id=name or "edgeopt-fleet", keepalive_seconds=60)
        return await MqttClient.connect(peer, hello, self._hear)

    def _hear(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self.heard += [topic for topic, _ in messages]

    async def subscribe_while_busy(self, device: MqttClient, port: int) -> MqttClient:
        """Subscribe to all births, and read nothing until the broker has sent all that it wants to send."""
        client = await self.connect(port=port)
        self.road.open.clear()
        subscribing = asyncio.create_task(client.subscribe([(Topics.ANY_STATUS, 0)]))
        await asyncio.sleep(0)  # the packet leaves
        for _ in range(3):  # a broker that does one thing after the other takes this after the subscription
            await device.publish([Publication(Topics.telemetry(DEVICE), b"a barrier")])
        self.road.open.set()
        assert (0,) == await subscribing
        return client


@pytest.fixture(params=["mosquitto", "nats"])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    """A broker of either kind, and a device."""
    made = make_files(tmp_path, (DEVICE,))
    async with run_broker(request.param, made):
        yield made


async def test_a_fleet_that_connects_again_hears_every_birth(running: Running) -> None:
    """However many devices there are, and however busy the server is in that moment: none of them is forgotten.

    A broker sends all retained messages at once. What it does not queue is dropped without a word, and a device whose
    birth is lost stays offline in the registry until it connects anew.
    """
    fleet = Fleet(running)
    device = await fleet.connect(DEVICE)
    topics = {Topics.status(name): birth(name) for name in (f"cam-{number:05}" for number in range(DEVICES))}
    first = await fleet.connect()
    await first.publish(Publication(topic, payload, retain=True) for topic, payload in topics.items())
    first.close()
    server = await asyncio.start_server(fleet.road.carry, "127.0.0.1", 0)
    async with server:
        for _ in range(2):
            fleet.heard.clear()
            client = await fleet.subscribe_while_busy(device, server.sockets[0].getsockname()[1])
            await eventually(lambda: asyncio.sleep(0, len(fleet.heard) >= DEVICES), f"{DEVICES} births", seconds=60)
            assert set(topics) == set(fleet.heard)
            client.close()
            await fleet.road.ended.acquire()
    device.close()

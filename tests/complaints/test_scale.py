"""What users complained about when there were many devices, many connections or much data: none of it happens here."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks.fleet.devices import Setting, Swarm
from benchmarks.fleet.rig import raise_file_limit, window_of
from edgeopt_contract.blocks import MAX_BLOCK_BYTES
from edgeopt_contract.codec import encode
from edgeopt_contract.messages import Ack
from edgeopt_contract.topics import Topics
from edgeopt_fleet.herd import reconnect_window_seconds
from edgeopt_fleet.ingest import Ingest
from edgeopt_fleet.link import BrokerAddress, Link
from edgeopt_fleet.mqtt.client import MqttClient, Peer, Publication
from edgeopt_fleet.mqtt.packets import Hello
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.web import free_port
from tests.brokers import run_mosquitto
from tests.fleet.conftest import Kit, eventually, kit, window

pytestmark = [
    pytest.mark.complaints,
    pytest.mark.parametrize("backend", ["sqlite"], indirect=True),
]
assert kit  # the fixture

BUNDLE = "1" * 64


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """Start a Mosquitto whose queues hold 20 messages, and return its port."""
    port = free_port("127.0.0.1")
    settings = (f"listener {port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 20", "log_dest none")
    (tmp_path / "mosquitto.conf").write_text("\n".join(settings))
    with run_mosquitto(tmp_path / "mosquitto.conf", tmp_path / "mosquitto.log"):
        yield port


@contextlib.asynccontextmanager
async def connected(port: int, name: str) -> AsyncIterator[tuple[MqttClient, list[tuple[str, bytes]]]]:
    """Connect as soon as the broker listens."""
    heard: list[tuple[str, bytes]] = []

    async def attempt() -> MqttClient | None:
        with contextlib.suppress(Exception):
            hello = Hello(client_id=name, keepalive_seconds=60)
            return await MqttClient.connect(Peer(host="127.0.0.1", port=port), hello, heard.extend)
        return None

    client = await eventually(attempt, "a connection", 30)
    try:
        yield client, heard
    finally:
        client.close()
        await asyncio.sleep(0)


async def test_mosquitto_2887_a_broker_that_drops_loses_nothing(kit: Kit, mosquitto: int) -> None:
    """mosquitto#2887: queues overflow silently, after PUBACK. Devices keep what the fleet did not acknowledge."""
    swarm = Swarm(Setting(port=mosquitto, window=window_of(BUNDLE), bundle=BUNDLE), 3)
    kit.enrol(*(device.device for device in swarm.devices))
    ingest, serial = Ingest(kit.inbox), Serial()
    forgetting = True

    def hear(messages: object) -> bool:
        return True if forgetting else ingest.receive(messages)  # type: ignore[arg-type]  # passed on

    link = Link([BrokerAddress(host="127.0.0.1", port=mosquitto)], kit.outbox, serial, hear)
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(ingest.run(link.acknowledge))]
    try:
        await eventually(lambda: asyncio.sleep(0, link.connected), "the connection", 30)
        await swarm.connect(100)
        for device in swarm.devices:
            for _ in range(200):
                device.tell()
        await eventually(lambda: asyncio.sleep(0, swarm.tally.sent == 600), "the messages", 30)
        forgetting = False

        async def all_acknowledged() -> bool:
            for device in swarm.devices:
                device.repeat_lost(after_seconds=0.0)
            await asyncio.sleep(0.05)
            return not any(device.spool for device in swarm.devices)

        await eventually(all_acknowledged, "every acknowledgement", 60)
    finally:
        swarm.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        serial.close()
    assert [200, 200, 200] == [kit.registry.device(device.device).windows for device in swarm.devices]


async def test_paho_183_connections_beyond_a_thousand_files(kit: Kit, mosquitto: int) -> None:
    """paho#183, #697: ``select`` ends at descriptor 1,024. Neither the server's client nor a simulated device does."""
    if raise_file_limit(2048) < 1300:
        pytest.skip("no more than a thousand files may be open here")
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(socket.socket())
        async with connected(mosquitto, "high") as (client, heard):
            await client.subscribe([("t", 0)])
            await client.publish([Publication("t", b"x")])
            await eventually(lambda: asyncio.sleep(0, heard == [("t", b"x")]), "the message", 30)


async def test_thingsboard_15637_a_large_block_keeps_the_connection(kit: Kit, mosquitto: int) -> None:
    """thingsboard#15637: a chunk above 65,536 bytes ended the connection. Blocks and manifests may be larger."""
    async with connected(mosquitto, "speaker") as (speaker, _), connected(mosquitto, "hearer") as (hearer, heard):
        sizes = [65_536, 65_537, MAX_BLOCK_BYTES, 1 << 20]
        await speaker.publish([Publication(f"b/{size}", bytes(size), retain=True) for size in sizes])
        for size in sizes:
            await hearer.subscribe([(f"b/{size}", 0)])
        await eventually(lambda: asyncio.sleep(0, len(heard) == len(sizes)), "the blocks", 30)
        assert sizes == [len(payload) for _, payload in heard]


async def test_thingsboard_9303_what_is_wrong_is_told_of_who_sent_it(kit: Kit) -> None:
    """thingsboard#9303: an error went to another topic. Here it counts for its device only, and others are served."""
    kit.enrol("good", "bad")
    ingest, acked = Ingest(kit.inbox), []

    async def acknowledge(acks: dict[str, list[Ack]]) -> None:
        acked.append(acks)

    ingest.receive([(Topics.telemetry("bad"), b"{"), (Topics.telemetry("good"), encode(window(BUNDLE, 1)))])
    await ingest.drain(acknowledge)
    assert [["good"]] == [list(acks) for acks in acked]
    assert (0, 1) == (kit.registry.device("good").malformed, kit.registry.device("bad").malformed)


async def test_flowfuse_5782_heartbeats_do_not_contend(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """FlowFuse#5782: forty devices that wrote ``lastSeenAt`` each for itself blocked each other. Here all share one."""
    names = [f"cam-{number}" for number in range(40)]
    kit.enrol(*names)
    stored, batches = kit.inbox.store, []

    def store(batch: object, *others: object) -> object:
        batches.append(batch)
        return stored(batch, *others)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(kit.inbox, "store", store)
    ingest = Ingest(kit.inbox, clock=lambda: 5000.0)
    ingest.receive([(Topics.telemetry(name), encode(window(BUNDLE, 1))) for name in names])
    await ingest.drain(lambda _: asyncio.sleep(0))
    assert 1 == len(batches)
    assert {5000} == {kit.registry.device(name).last_seen for name in names}


def test_flowfuse_5782_the_herd_comes_back_slowly(kit: Kit) -> None:
    """FlowFuse#5782, amrc#167: all came back at once. Drawn from the fleet's window, at most 200 do in a second."""
    chance = random.Random(5782)
    for devices in (40, 1000, 5000):
        seconds = reconnect_window_seconds(devices)
        busiest = max(Counter(int(chance.uniform(0, seconds)) for _ in range(devices)).values())
        assert busiest <= 200
        assert seconds <= 120

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from edgeopt_fleet.broker import nats_executable
from edgeopt_fleet.mqtt.client import MqttClient, MqttError, Peer, Publication
from edgeopt_fleet.mqtt.packets import Hello
from edgeopt_fleet.server import free_port
from tests.fleet.conftest import eventually

pytestmark = pytest.mark.scenario

Broker = tuple["subprocess.Popen[bytes]", int]
Connect = Callable[[int, str], Awaitable[tuple[MqttClient, list[tuple[str, bytes]]]]]


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Start a real broker without rules."""
    port = free_port("127.0.0.1")
    if request.param == "mosquitto":
        executable = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        if executable is None:
            pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
        (tmp_path / "m.conf").write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 10000\n"
        )
        command = [executable, "-c", str(tmp_path / "m.conf")]
    else:
        (tmp_path / "n.json").write_text(
            f'{{"server_name": "t", "port": -1, "host": "127.0.0.1", "max_payload": 2097152, '
            f'"jetstream": {{"store_dir": "{tmp_path}/js"}}, "mqtt": {{"host": "127.0.0.1", "port": {port}}}}}'
        )
        command = [str(nats_executable()), "--config", str(tmp_path / "n.json")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield process, port
    process.kill()
    process.wait()


class Hearing:
    """A client and what it heard."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.client: MqttClient | None = None

    async def connect(self, port: int, name: str) -> MqttClient:
        """Connect as soon as the broker listens."""
        hello = Hello(client_id=name, keepalive_seconds=2)

        async def attempt() -> MqttClient | None:
            try:
                return await MqttClient.connect(Peer(host="127.0.0.1", port=port), hello, self.heard.extend)
            except MqttError:
                return None

        self.client = await eventually(attempt, "a connection", 30)
        return self.client


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Give a function that connects; all connections are closed at the end."""
    made: list[Hearing] = []

    async def new(port: int, name: str) -> tuple[MqttClient, list[tuple[str, bytes]]]:
        hearing = Hearing()
        made.append(hearing)
        return await hearing.connect(port, name), hearing.heard

    yield new
    for hearing in made:
        if hearing.client is not None:
            hearing.client.close()
    await asyncio.sleep(0)  # transports close in the loop's next turn


async def test_thousands_at_once_arrive_in_order(broker: Broker, connect: Connect) -> None:
    """Three thousand publications, retained ones among them and one of a megabyte, all taken and heard, in order."""
    _, port = broker
    hearer, heard = await connect(port, "hearer")
    assert (0, 1) == await hearer.subscribe([("a/+", 0), ("b/+", 1)])
    speaker, _ = await connect(port, "speaker")
    messages = [Publication(f"a/{number}", b"%d" % number, retain=number < 5) for number in range(3000)]
    await speaker.publish([*messages, Publication("b/large", bytes(1_000_000))])
    await eventually(lambda: asyncio.sleep(0, len(heard) >= 3001), "all messages", 60)
    assert [(message.topic, message.payload) for message in messages] == [one for one in heard if one[0] != "b/large"]
    assert ("b/large", bytes(1_000_000)) in heard
    late, kept = await connect(port, "late")
    await late.subscribe([("a/+", 0)])
    await eventually(lambda: asyncio.sleep(0, len(kept) >= 5), "the retained messages", 60)
    assert {f"a/{number}" for number in range(5)} == {topic for topic, _ in kept}


async def test_a_killed_broker_ends_everything_that_waits(broker: Broker, connect: Connect) -> None:
    """Whoever publishes or waits gets an MqttError, and nobody hangs."""
    process, port = broker
    client, _ = await connect(port, "client")
    ended = asyncio.create_task(client.closed())
    os.kill(process.pid, signal.SIGSTOP)
    publishing = asyncio.create_task(client.publish([Publication("t", b"x")] * 1000))
    await asyncio.sleep(0)
    process.kill()
    for task in (ended, publishing):
        with pytest.raises(MqttError, match="ended"):
            await asyncio.wait_for(task, 30)
    with pytest.raises(MqttError):
        await client.publish([Publication("t", b"x")])
    await client.send([("t", b"x")])  # is dropped


async def test_a_silent_broker_is_left(broker: Broker, connect: Connect) -> None:
    """A broker that hangs without closing is noticed after twice the keepalive."""
    process, port = broker
    client, _ = await connect(port, "client")
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(MqttError, match="silent"):
        await asyncio.wait_for(client.closed(), 30)


async def test_a_pause_lets_the_broker_wait(broker: Broker, connect: Connect) -> None:
    """While paused nothing is handed over; afterwards everything that fitted into the buffers is."""
    _, port = broker
    hearer, heard = await connect(port, "hearer")
    await hearer.subscribe([("a", 0)])
    hearer.pause()
    speaker, _ = await connect(port, "speaker")
    await speaker.publish([Publication("a", b"x")] * 200)
    assert [] == heard
    hearer.resume()
    await eventually(lambda: asyncio.sleep(0, len(heard) == 200), "all messages", 30)


async def test_nobody_listens() -> None:
    """The message says which broker and why."""
    port = free_port("127.0.0.1")
    with pytest.raises(MqttError, match=f"127.0.0.1:{port} cannot be reached"):
        await MqttClient.connect(
            Peer(host="127.0.0.1", port=port), Hello(client_id="c", keepalive_seconds=5), lambda _: None
        )

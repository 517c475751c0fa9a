"""The link: births and deaths, fetching, refusals, and how long it waits before it comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from edgeopt_agent.credentials.identity import Credentials
from edgeopt_agent.mqtt.link import Link, LinkOptions, Listener
from edgeopt_agent.mqtt.packets import LONGEST_PACKET_BYTES
from edgeopt_contract.codec import encode
from edgeopt_contract.enrolment import MqttAccess
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.messages import Status
from edgeopt_contract.topics import Topics
from tests.agent.conftest import DEVICE, Broker, FakeFleet, Signer, free_port, plain_identity, wait_until
from tests.badlink.relay import PUBLISH, Relay, read_packet

CONNACK = b"\x20\x02\x00\x00"
CONNECT, SUBSCRIBE = 1, 8


class Longest(Random):
    """Always draws the longest pause."""

    def uniform(self, a: float, b: float) -> float:
        """Return the upper limit."""
        return max(a, b)


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.desired: list[bytes] = []
        self.acks: list[bytes] = []
        self.shadows: list[bytes] = []
        self.connections = 0
        self.listener = Listener(
            shadow=self.shadows.append,
            desired=self.desired.append,
            ack=self.acks.append,
            connected=self._connected,
            status=self._status,
        )

    def _connected(self) -> None:
        self.connections += 1

    def _status(self, online: bool) -> bytes:  # noqa: FBT001  # as the listener's callback has it
        capabilities = Capabilities(arch="x86_64", features=(), runtimes={}, cores=1, memory_bytes=1)
        return encode(
            Status(device=DEVICE, boot=1, online=online, agent_version="0", running=None, capabilities=capabilities)
        )


class OneIdentity:
    """Says how to connect, always the same."""

    def __init__(self, mqtt: MqttAccess) -> None:
        identity = plain_identity(Signer(), mqtt.port)
        self.credentials = Credentials(identity=identity, mqtt=mqtt, tls=None)

    def choose(self) -> Credentials:
        """Return them."""
        return self.credentials

    def accepted(self, credentials: Credentials) -> None:
        """Nothing comes of it."""


def link_to(
    port: int, heard: Heard, *, host: str = "127.0.0.1", timing: Mapping[str, Any] | None = None, **options: object
) -> Link:
    """A link that waits only as long as ``sleep`` says; ``timing`` are options of the link."""
    mqtt = MqttAccess(host=host, port=port, tls=False, password=str(options.pop("password", "secret")))
    given = {"reconnect_window_seconds": lambda: 0.01, **(timing or {})}
    made = LinkOptions(device=DEVICE, wallet=OneIdentity(mqtt), **given)
    return Link(made, heard.listener, random=Random(1), **options)  # type: ignore[arg-type]  # passed on


@pytest.fixture
def heard() -> Heard:
    """What the link heard."""
    return Heard()


@pytest.fixture
async def link(broker: Broker, heard: Heard) -> AsyncIterator[Link]:
    """A connected link."""
    link = link_to(broker.port, heard)
    task = asyncio.create_task(link.run())
    async with asyncio.timeout(10):
        await link.wait_until_connected()
    yield link
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_birth_goodbye_and_what_is_heard(fleet: FakeFleet, link: Link, heard: Heard) -> None:
    """Birth on connect, desired states and acks to the listener, death on goodbye."""
    await asyncio.to_thread(wait_until, "the birth", lambda: fleet.statuses and fleet.statuses[-1].online)
    await asyncio.to_thread(fleet.publish, Topics.desired(DEVICE), b"wish")
    await asyncio.to_thread(fleet.publish, Topics.ack(DEVICE), b"thanks")
    await asyncio.to_thread(wait_until, "both", lambda: heard.acks and heard.desired)
    assert ([b"wish"], [b"thanks"], 1) == (heard.desired, heard.acks, heard.connections)
    await link.say_goodbye()
    await asyncio.to_thread(wait_until, "the death", lambda: not fleet.statuses[-1].online)


async def test_fetch_returns_the_retained_message(fleet: FakeFleet, link: Link) -> None:
    """Again and again, because each fetch subscribes anew."""
    topic = Topics.block("ab" * 32)
    await asyncio.to_thread(fleet.publish, topic, b"block")
    for _ in range(3):
        assert b"block" == (await link.fetch(topic, 5)).payload


async def test_fetch_says_why_nothing_came(link: Link) -> None:
    """Silence and a refused subscription are told apart."""
    with pytest.raises(UnreachableError, match=r"nothing came in 0\.1 s"):
        await link.fetch(Topics.block("cd" * 32), 0.1)
    with pytest.raises(UnreachableError, match="refused the subscription"):
        await link.fetch(Topics.desired("somebody-else"), 5)
    assert not link._waiting


async def test_lost_connection_fails_what_waits_and_comes_back(broker: Broker, link: Link, heard: Heard) -> None:
    """Kill -9 of the broker ends a fetch at once; after its return the link is born again."""
    fetching = asyncio.create_task(link.fetch(Topics.block("cd" * 32), 30))
    await asyncio.to_thread(wait_until, "the subscription", lambda: link._waiting)
    broker.kill()
    with pytest.raises(UnreachableError):
        await fetching
    with pytest.raises(UnreachableError, match="not connected"):
        await link.publish(Topics.status(DEVICE), b"")
    await asyncio.to_thread(broker.start)
    async with asyncio.timeout(20):
        await link.wait_until_connected()
    assert 2 == heard.connections


async def pauses_of(
    link_port: int, count: int, heard: Heard, host: str = "127.0.0.1", timing: Mapping[str, Any] | None = None
) -> list[float]:
    """Return the pauses before the first ``count`` connects."""
    pauses: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(round(seconds, 3))
        if len(pauses) >= count:
            enough.set()
            await asyncio.Event().wait()

    link = link_to(link_port, heard, host=host, timing=timing, sleep=sleep)
    link._random = Longest()
    task = asyncio.create_task(link.run())
    async with asyncio.timeout(20):
        await enough.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return pauses


async def test_broker_that_is_down_is_tried_with_growing_pauses(heard: Heard) -> None:
    """The first pause comes from the window, the next ones double."""
    assert [0.01, 0.2, 0.4, 0.8] == await pauses_of(free_port(), 4, heard)


async def test_window_that_the_fleet_changed_counts_from_the_next_attempt_on(heard: Heard) -> None:
    """A fleet that has grown spreads its devices over more seconds; nobody has to be enrolled again."""
    windows = iter([0.01, 0.5, 0.5])
    timing = {"reconnect_window_seconds": lambda: next(windows)}
    assert [0.01, 1.0, 2.0] == await pauses_of(free_port(), 3, heard, timing=timing)


async def test_broker_that_kicks_after_the_welcome_counts_as_a_failure(heard: Heard) -> None:
    """CONNACK and then a closed connection must not lead to a storm of reconnects."""

    async def kick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(CONNACK)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(kick, "127.0.0.1", 0)
    assert [0.01, 0.2, 0.4] == await pauses_of(server.sockets[0].getsockname()[1], 3, heard)
    server.close()
    await server.wait_closed()


async def test_wrong_password_is_a_failure_like_any_other(broker: Broker, heard: Heard) -> None:
    """A device that was revoked keeps asking, ever more rarely, and is never connected."""
    link = link_to(broker.port, heard, password="wrong")
    task = asyncio.create_task(link.run())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await link.wait_until_connected()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert 0 == heard.connections


async def test_a_name_that_does_not_resolve_is_tried_again(heard: Heard) -> None:
    """DNS that fails is an outage like any other, also for what is no name at all."""
    for host in ("no-such-host.invalid", "a..b"):
        assert [0.01, 0.2, 0.4] == await pauses_of(1883, 3, heard, host)


class ScriptedBroker:
    """Welcomes or not, acknowledges or not, and never answers a PINGREQ."""

    def __init__(self, *, welcomes: bool, acknowledges: bool, says: bytes) -> None:
        self.welcomes = welcomes
        self.acknowledges = acknowledges
        self.says = says  # after each birth
        self.connects = 0
        self.ended = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until the other side ends it."""
        self.connects += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                packet = await read_packet(reader)
                if packet.kind == CONNECT and self.welcomes:
                    writer.write(CONNACK)
                elif packet.kind == SUBSCRIBE:
                    writer.write(b"\x90\x05" + packet.raw[packet.body : packet.body + 2] + b"\x01\x01\x01")
                elif packet.kind == PUBLISH and self.acknowledges:
                    writer.write((packet.acknowledgement or b"") + self.says)
        writer.transport.abort()  # what is not sent by now has nobody to read it
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.ended += 1


@contextlib.asynccontextmanager
async def scripted(
    heard: Heard, *, welcomes: bool = True, acknowledges: bool = True, says: bytes = b"", **timing: Any
) -> AsyncIterator[ScriptedBroker]:
    """A scripted broker with a link to it."""
    broker = ScriptedBroker(welcomes=welcomes, acknowledges=acknowledges, says=says)
    async with await asyncio.start_server(broker.serve, "127.0.0.1", 0) as server:
        task = asyncio.create_task(link_to(server.sockets[0].getsockname()[1], heard, timing=timing).run())
        yield broker
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.to_thread(wait_until, "the ends of all connections", lambda: broker.ended == broker.connects)


async def test_half_open_connection_is_noticed(heard: Heard) -> None:
    """A broker that answers no PINGREQ is left, and connected to again."""
    async with scripted(heard, keepalive_seconds=1) as broker:
        await asyncio.to_thread(wait_until, "a second connection", lambda: heard.connections >= 2)
        assert broker.ended >= 1


async def test_connection_without_a_welcome_is_closed_before_the_next(heard: Heard) -> None:
    """Its CONNACK could come late, and the broker would then throw out the connection that was made instead."""
    async with scripted(heard, welcomes=False, connect_seconds=0.2) as broker:
        await asyncio.to_thread(wait_until, "several attempts", lambda: broker.connects >= 3)
        assert broker.connects - broker.ended <= 1
    assert 0 == heard.connections


async def test_broker_that_acknowledges_nothing_is_left(heard: Heard) -> None:
    """A birth without PUBACK ends the connection after a while, instead of a device that waits for ever."""
    async with scripted(heard, acknowledges=False, answer_seconds=0.2) as broker:
        await asyncio.to_thread(wait_until, "several attempts", lambda: broker.connects >= 3)
    assert 0 == heard.connections


def published(topic: str, payload: bytes, length: int | None = None) -> bytes:
    """A PUBLISH with QoS 0 that announces ``length`` bytes of payload (MQTT 3.1.1, sections 2.2.3 and 3.3)."""
    body = len(topic).to_bytes(2, "big") + topic.encode()
    remaining, digits = len(body) + (len(payload) if length is None else length), bytearray()
    while True:
        remaining, digit = divmod(remaining, 128)
        digits.append(digit | (128 if remaining else 0))
        if not remaining:
            return b"\x30" + bytes(digits) + body + payload


async def test_packet_longer_than_anything_is_not_taken(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that announces 200 MB is left before they come; what is as long as the longest message is taken."""
    topic = Topics.desired(DEVICE)
    async with scripted(heard, says=published(topic, b"x" * 100_000, length=200_000_000)) as broker:
        await asyncio.to_thread(wait_until, "another attempt", lambda: broker.connects >= 3)
    assert "packet_refused" in caplog.text
    assert [] == heard.desired
    longest = b"x" * (LONGEST_PACKET_BYTES - len(topic) - 2)
    async with scripted(heard, says=published(topic, longest)) as broker:
        await asyncio.to_thread(wait_until, "the longest message", lambda: heard.desired)
    assert longest == heard.desired[0]


async def test_desired_state_is_asked_for_again(fleet: FakeFleet, heard: Heard) -> None:
    """What a broker did not deliver is only late."""
    link = link_to(fleet.port, heard, timing={"refresh_seconds": 0.1})
    await asyncio.to_thread(fleet.publish, Topics.desired(DEVICE), b"wish")
    task = asyncio.create_task(link.run())
    await asyncio.to_thread(wait_until, "the same again", lambda: len(heard.desired) >= 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert {b"wish"} == set(heard.desired)


async def test_broker_that_knows_no_shadows_takes_nothing_else_away(
    tmp_path: Path, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker with the rights of an older fleet refuses the topic: the device stays, hears the rest, and says so."""
    broker = Broker(tmp_path / "broker", "nats")
    broker.knows_shadows = False
    broker.start()
    fleet = FakeFleet(broker.port)
    link = link_to(broker.port, heard)
    task = asyncio.create_task(link.run())
    try:
        await asyncio.to_thread(fleet.connect)
        async with asyncio.timeout(10):
            await link.wait_until_connected()
        await asyncio.to_thread(fleet.publish, Topics.desired(DEVICE), b"wish")
        await asyncio.to_thread(wait_until, "the wish", lambda: heard.desired)
        assert 1 == heard.connections
        assert '"event":"refused"' in caplog.text
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        fleet.close()
        broker.kill()


async def test_shadow_is_heard_and_asked_for_again(fleet: FakeFleet, heard: Heard) -> None:
    """An order reaches the listener, and comes again with the next refresh, for no broker is trusted to deliver."""
    link = link_to(fleet.port, heard, timing={"refresh_seconds": 0.3})
    task = asyncio.create_task(link.run())
    try:
        await asyncio.to_thread(fleet.publish, Topics.shadow(DEVICE), b"order")
        await asyncio.to_thread(wait_until, "two of them", lambda: len(heard.shadows) > 1)
        assert {b"order"} == set(heard.shadows)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
async def test_two_agents_with_one_identity_do_not_fight_at_full_speed(broker: Broker) -> None:
    """Each throws the other out; the pauses grow, so the connects of three seconds are few."""
    first, second = Heard(), Heard()
    tasks = [asyncio.create_task(link_to(broker.port, heard).run()) for heard in (first, second)]
    await asyncio.to_thread(wait_until, "a fight", lambda: first.connections + second.connections >= 4)
    await asyncio.sleep(3)  # the experiment: this long they may fight
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert first.connections + second.connections < 40


async def test_late_message_is_taken_and_not_asked_for_again(fleet: FakeFleet, heard: Heard) -> None:
    """Patience ends while the block is on its way over a slow link: it is used, and was sent once."""
    sha256, block = "ab" * 32, bytes(60_000)
    await asyncio.to_thread(fleet.publish, Topics.block(sha256), block)
    with Relay(fleet.port, bytes_per_second=100_000) as relay:
        link = link_to(relay.port, heard)
        task = asyncio.create_task(link.run())
        await link.wait_until_connected()
        assert block == (await link.fetch(Topics.block(sha256), 0.05)).payload
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert 1 == relay.blocks[sha256]

"""A device against every topic that is not its own, in every way that MQTT has, on both brokers with mutual TLS.

The matrix is generated. What a cell may do is said by the protocol (:func:`may_publish`, :func:`may_receive`), not read
from the rules under test; what it did is observed by somebody who may read everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import itertools
import re
import ssl
import time
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import aiomqtt
import pytest

from edgeopt_contract.topics import PREFIX, Channel, Topics
from edgeopt_fleet.broker import FLEET_USER
from edgeopt_fleet.credentials import client_context, write_pair
from tests.brokers import Running, make_files, run_broker

pytestmark = pytest.mark.rights

ME, OTHER, ALIKE = "cam-1", "cam-2", "cam-10"  # the last begins like the first
BLOCK = f"{PREFIX}/blocks/{'0' * 64}"
UP = (Channel.REPORTED, Channel.TELEMETRY, Channel.STATUS)
DOWN = (Channel.DESIRED, Channel.SHADOW, Channel.ACK)
DEADLINE = 30.0


def topic_of(device: str, channel: str) -> str:
    """One of a device's topics."""
    return f"{PREFIX}/devices/{device}/{channel}"


REAL = [topic_of(device, channel) for device in (ME, OTHER, ALIKE) for channel in Channel] + [Topics.TUF, BLOCK]
STRANGE = [  # other prefixes, other spellings, and what means something to one of the brokers
    f"edgeopt/v2/devices/{OTHER}/desired",
    f"other/{PREFIX}/devices/{ME}/reported",
    f"/{topic_of(ME, 'reported')}",
    f"{topic_of(ME, 'reported')}/",
    f"{topic_of(ME, 'reported')}/more",
    f"{PREFIX}/devices/{ME}",
    f"{PREFIX}/devices//reported",
    f"{PREFIX}/devices/{ME}/unknown",
    f"{PREFIX}/devices/{ME}/../{OTHER}/desired",
    f"{PREFIX}/devices/{ME.upper()}/reported",
    f"{PREFIX}.devices.{OTHER}.desired".replace("/", "."),
    f"{PREFIX}/devices/{OTHER}.desired",
    f"{PREFIX}/blocks",
    f"{PREFIX}/blocks/x/y",
    "edgeopt",
    "$SYS/broker/clients/connected",
    "$SYS/REQ/SERVER/PING",
    "$JS/API/INFO",
    "$MQTT/sub/x",
    "$MQTT/deliver/pubrel/x",
    f"$share/g/{topic_of(OTHER, 'desired')}",
    "any/thing",
]
FILTERS = [
    *REAL,
    "#",
    "+",
    "+/#",
    "+/+/+/+/+",
    "edgeopt/#",
    f"{PREFIX}/#",
    f"{PREFIX}/+",
    f"{PREFIX}/devices/#",
    f"{PREFIX}/devices/+/#",
    *(topic_of("+", channel) for channel in Channel),
    *(f"{PREFIX}/+/{device}/+" for device in (ME, OTHER)),
    f"{PREFIX}/devices/{OTHER}/#",
    f"{PREFIX}/devices/{ME}/#",
    f"{PREFIX}/blocks/#",
    f"$share/g/{topic_of(OTHER, 'desired')}",
    "$share/g/#",
    "$share/g/edgeopt/#",
    "$SYS/#",
    "$SYS/broker/+",
    "$MQTT/#",
    "$MQTT/sub/#",
    "$MQTT/sub/+",
    "$MQTT/deliver/pubrel/+",
    "$JS/#",
    "_INBOX/#",
    f"{PREFIX}/devices/*/desired",
    f"{PREFIX}/devices/>",
    ">",
    "*",
    *STRANGE,
]


def may_publish(topic: str) -> bool:
    """What a device says, and nothing else."""
    return topic in {topic_of(ME, channel) for channel in UP}


def may_receive(topic: str) -> bool:
    """What is said to this device, and what is said to all."""
    return topic in {topic_of(ME, channel) for channel in DOWN} | {Topics.TUF} or bool(
        re.fullmatch(rf"{PREFIX}/blocks/[^/]+", topic)
    )


@pytest.fixture(params=["nats", "mosquitto"])
async def running(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    """A running broker of either kind; on Mosquitto the observer needs rules of its own."""
    made = make_files(tmp_path, (ME, OTHER, ALIKE))
    made.more_rules = "\nuser observer\ntopic readwrite #\ntopic read $SYS/#\n"
    write_pair(tmp_path / "observer.pem", made.authority.make_client("observer", time.time()))
    async with run_broker(request.param, made):
        yield made


def observer(running: Running) -> aiomqtt.Client:
    """Somebody who may read and write everything: on NATS that is the fleet itself."""
    mosquitto = running.more_rules and (running.directory / "mosquitto.log").exists()
    name = "observer" if mosquitto else "client"
    context = client_context(running.ca, running.directory / f"{name}.pem")
    identifier = "observer" if mosquitto else FLEET_USER.rstrip(".")
    return aiomqtt.Client("127.0.0.1", running.port, identifier=identifier, tls_context=context)


async def hear(
    client: aiomqtt.Client, until: bytes, heard: list[tuple[str, bytes]] | None = None
) -> list[tuple[str, bytes]]:
    """Return topics and payloads of what comes, up to the payload ``until``; ``heard`` gets them as they come."""
    heard = [] if heard is None else heard
    async with asyncio.timeout(DEADLINE):
        async for message in client.messages:
            payload = bytes(message.payload)
            if payload == until:
                break
            heard.append((str(message.topic), payload))
    return heard


async def publish_all(running: Running, topics: Collection[str]) -> int:
    """Let the device publish a forgery on each topic, in four ways; a broker may end the connection for it."""
    cells = 0
    for topic in topics:
        for qos, retain in itertools.product((0, 1), (False, True)):
            with contextlib.suppress(aiomqtt.MqttError):
                async with running.client(ME) as cam:
                    await cam.publish(topic, b"forged", qos=qos, retain=retain, timeout=2)
            cells += 1
    return cells


async def test_a_device_publishes_its_own_three_topics_only(running: Running) -> None:
    """With QoS 0 and 1, retained or not: nothing else arrives at anybody, and nothing else is kept."""
    everything = dict.fromkeys([*REAL, *STRANGE])
    forbidden = [topic for topic in everything if not may_publish(topic)]
    async with observer(running) as watch:
        await watch.subscribe([("#", 1), ("$SYS/#", 0)])
        cells = await publish_all(running, forbidden)
        async with running.client(ME) as cam:
            for channel in UP:
                await cam.publish(topic_of(ME, channel), b"genuine", qos=1, retain=channel is Channel.STATUS)
            await cam.publish(topic_of(ME, Channel.REPORTED), b"end", qos=1)
        heard = await hear(watch, b"end")
    assert {(topic_of(ME, channel), b"genuine") for channel in UP} <= set(heard)
    assert [] == [topic for topic, payload in heard if payload == b"forged"]
    async with observer(running) as late:
        await late.subscribe("#", 1)
        await late.publish("the/end", b"end", qos=1)
        assert [] == [topic for topic, payload in await hear(late, b"end") if payload == b"forged"]
    print(f"\n{cells} forged publications on {len(forbidden)} topics, none arrived; {len(UP)} topics allowed")


async def test_a_device_s_will_is_on_its_own_topics_only(running: Running) -> None:
    """A will is a publication by the broker itself, retained or not: the same rules hold for it."""
    topics = list(dict.fromkeys([*REAL, *STRANGE]))
    async with observer(running) as watch:
        await watch.subscribe([("#", 1), ("$SYS/#", 0)])
        for topic, retain in itertools.product(topics, (False, True)):
            await die_with_will(running, topic, b"genuine" if may_publish(topic) else b"forged", retain=retain)
        async with running.client(ME) as cam:
            await cam.publish(topic_of(ME, Channel.TELEMETRY), b"end", qos=1)
        heard = await hear(watch, b"end")
        missing = {topic_of(ME, channel) for channel in UP} - {t for t, payload in heard if payload == b"genuine"}
        async with asyncio.timeout(DEADLINE):
            while missing:  # a broker notices a lost connection when it likes
                message = await anext(aiter(watch.messages))
                heard.append((str(message.topic), bytes(message.payload)))
                missing.discard(str(message.topic))
    assert [] == [topic for topic, payload in heard if payload == b"forged"]
    print(f"\n{2 * len(topics)} wills: those on {len(UP)} topics of the device were published, no other")


async def die_with_will(running: Running, topic: str, payload: bytes, *, retain: bool) -> None:
    """Connect with a will and break off without a word: written byte by byte, because clients are too polite for it."""
    variable = b"\x00\x04MQTT\x04" + bytes([0x02 | 0x04 | 0x08 | (0x20 if retain else 0)]) + b"\x00\x3c"
    body = variable + b"".join(len(part).to_bytes(2, "big") + part for part in (ME.encode(), topic.encode(), payload))
    length = bytes([len(body)]) if len(body) < 128 else bytes([0x80 | len(body) % 128, len(body) // 128])
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=running.contexts[ME])
    writer.write(b"\x10" + length + body)
    with contextlib.suppress(OSError, ssl.SSLError):
        await asyncio.wait_for(reader.read(4), DEADLINE)
    writer.transport.abort()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_device_hears_its_own_topics_metadata_and_blocks_only(running: Running, qos: int) -> None:
    """Whatever it subscribes to: of what was retained before, and of what comes later, it gets nothing else."""
    published = [topic for topic in dict.fromkeys([*REAL, *STRANGE]) if not topic.startswith("$")]
    heard: list[tuple[str, bytes]] = []
    cells = 0
    async with observer(running) as fleet:
        fleet.pending_calls_threshold = 2 * len(published)  # it would warn, but these are bounded
        for topic in published:
            await fleet.publish(topic, b"retained", qos=1, retain=True)
        for number, wanted in enumerate(FILTERS):
            end = f"end {number}".encode()
            with contextlib.suppress(aiomqtt.MqttError):  # some end the connection for it
                async with running.client(ME) as cam:
                    await cam.subscribe(wanted, qos, timeout=DEADLINE)
                    await cam.subscribe(topic_of(ME, Channel.ACK), qos, timeout=DEADLINE)
                    await asyncio.gather(*(fleet.publish(topic, b"live", qos=qos) for topic in published))
                    await fleet.publish(topic_of(ME, Channel.ACK), end, qos=qos)
                    await hear(cam, end, heard)
            cells += len(published)
    strangers = sorted({topic for topic, _ in heard if not may_receive(topic)})
    assert [] == strangers
    for topic in (topic_of(ME, Channel.DESIRED), topic_of(ME, Channel.SHADOW), Topics.TUF, BLOCK):
        assert {(topic, b"retained"), (topic, b"live")} <= set(heard), topic
    print(
        f"\nQoS {qos}: {len(FILTERS)} filters against {len(published)} topics, {cells} cells: only what is allowed came"
    )


async def test_another_device_s_session_is_not_inherited(running: Running) -> None:
    """With the client id of another device, whose session waits at the broker, one gets nothing of what waits there."""
    wanted = topic_of(OTHER, Channel.DESIRED)
    persistent = {"identifier": OTHER, "clean_session": False, "protocol": aiomqtt.ProtocolVersion.V311}
    async with aiomqtt.Client("127.0.0.1", running.port, tls_context=running.contexts[OTHER], **persistent) as other:
        await other.subscribe(wanted, 1)
    async with running.fleet() as fleet:
        await fleet.publish(wanted, b"for the other alone", qos=1)
    heard: list[tuple[str, bytes]] = []
    with contextlib.suppress(aiomqtt.MqttError):
        async with aiomqtt.Client("127.0.0.1", running.port, tls_context=running.contexts[ME], **persistent) as thief:
            await thief.subscribe(topic_of(ME, Channel.ACK), 1)
            async with running.fleet() as fleet:
                await fleet.publish(wanted, b"for the other alone", qos=1)
                await fleet.publish(topic_of(ME, Channel.ACK), b"end", qos=1)
            await hear(thief, b"end", heard)
    assert [] == heard


def test_the_matrix_covers_every_channel() -> None:
    """A topic that is added to the protocol is in the matrix, or this fails."""
    assert set(Channel) == set(UP) | set(DOWN)
    assert all(any(fnmatch.fnmatch(topic, f"*/{channel}") for topic in REAL) for channel in Channel)

"""Mutual TLS at both brokers: who gets in, what a device may touch, and who is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from edgeopt_contract.topics import PREFIX, Topics
from edgeopt_fleet.ca import DeviceAuthority
from tests.brokers import Running, make_files, run_broker
from tests.identity import DeviceKey, issue

pytestmark = pytest.mark.scenario

DEVICES = ("cam-1", "cam-2")


@pytest.fixture
def made(tmp_path: Path) -> Running:
    """The files of a fleet and two devices."""
    return make_files(tmp_path, DEVICES)


@pytest.fixture(params=["nats", "mosquitto"])
async def running(request: pytest.FixtureRequest, made: Running) -> AsyncIterator[Running]:
    """A running broker of either kind."""
    async with run_broker(request.param, made):
        yield made


async def test_a_certificate_of_the_fleet_is_let_in_and_no_other(running: Running, tmp_path: Path) -> None:
    """Another CA's, an expired one, none at all: refused, with a reason that a person understands."""
    (tmp_path / "other").mkdir()
    DeviceAuthority.create(tmp_path / "other", time.time())
    stranger = DeviceAuthority.load(tmp_path / "other")
    assert "" == await running.refusal("cam-1", running.contexts["cam-1"])
    assert "another CA" in await running.refusal("cam-1", running.issue("cam-1", by=stranger))
    expired = await running.refusal("cam-1", running.issue("cam-1", now=time.time() - 2 * 86400))
    assert "expired" in expired
    none = ssl.create_default_context(cafile=str(running.ca))
    assert "none" in await running.refusal("cam-1", none)


async def test_a_broker_with_another_certificate_is_not_believed(running: Running, tmp_path: Path) -> None:
    """A man in the middle with another CA's certificate, or with a device's, is refused before anything is sent."""
    (tmp_path / "other").mkdir()
    DeviceAuthority.create(tmp_path / "other", time.time())
    suspicious = ssl.create_default_context(cafile=str(tmp_path / "other" / "ca.pem"))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        await asyncio.open_connection("127.0.0.1", running.port, ssl=suspicious)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'fleet\.example'"):
        await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=running.contexts["cam-1"], server_hostname="fleet.example"
        )


async def test_a_device_s_certificate_does_not_make_a_server(made: Running) -> None:
    """A device that poses as the broker with its own certificate is refused by the others: its purpose is another."""
    key = DeviceKey()
    issued = issue(made.authority, "127.0.0.1", key, now=time.time())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    path = made.directory / "rogue.pem"
    path.write_bytes(key.pem() + issued.pem.encode())
    server.load_cert_chain(path)
    listener = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", made.port, ssl=server)
    context = ssl.create_default_context(cafile=str(made.ca))
    context.check_hostname = False  # so that the purpose alone decides
    async with listener:
        with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
            await asyncio.open_connection("127.0.0.1", made.port, ssl=context)


async def test_a_device_touches_its_own_topics_only(running: Running) -> None:
    """Of every topic of another device, of wildcards and of the broker's own, nothing is read and nothing arrives."""
    own, other = DEVICES
    forbidden = [
        *(
            f(other)
            for f in (Topics.desired, Topics.shadow, Topics.ack, Topics.reported, Topics.telemetry, Topics.status)
        ),
        "#",
        f"{PREFIX}/#",
        f"{PREFIX}/devices/+/desired",
        f"{PREFIX}/devices/{other}/#",
        "$SYS/#",
        "$MQTT/#",
    ]
    async with running.fleet() as fleet, running.client(own) as cam:
        await fleet.subscribe("edgeopt/#", 1)
        for topic in forbidden:
            with contextlib.suppress(aiomqtt.MqttError):
                await cam.subscribe(topic, 0)
        await cam.subscribe([(Topics.desired(own), 1), (Topics.shadow(own), 1), (Topics.ack(own), 1), (Topics.TUF, 0)])
        for f, device in itertools.product((Topics.desired, Topics.shadow, Topics.ack), DEVICES):
            await fleet.publish(f(device), b"from the fleet", qos=1, retain=True)
        await fleet.publish(Topics.TUF, b"metadata", qos=1, retain=True)
        heard = set()
        async with asyncio.timeout(20):
            async for message in cam.messages:
                heard.add(str(message.topic))
                if len(heard) == 4:
                    break
        assert {Topics.desired(own), Topics.shadow(own), Topics.ack(own), Topics.TUF} == heard

        for f in (Topics.desired, Topics.shadow, Topics.ack, Topics.reported, Topics.telemetry, Topics.status):
            with contextlib.suppress(aiomqtt.MqttError):
                await cam.publish(f(other), b"forged", qos=0)
        for topic in (Topics.desired(own), Topics.TUF, f"{PREFIX}/blocks/{'0' * 64}"):
            with contextlib.suppress(aiomqtt.MqttError):
                await cam.publish(topic, b"forged", qos=0)
        await cam.publish(Topics.reported(own), b"genuine", qos=1)
        async with asyncio.timeout(20):
            async for message in fleet.messages:
                assert b"forged" != message.payload, message.topic
                if message.payload == b"genuine":
                    break


async def test_a_revoked_device_is_cut_off(running: Running) -> None:
    """Its connection ends, it does not get in again, and the other device notices nothing."""
    assert running.broker is not None
    async with running.client("cam-2") as other, running.client("cam-1") as cam:
        await cam.subscribe(Topics.desired("cam-1"), 1)
        lost = asyncio.create_task(_until_lost(cam))
        running.revoked.append((running.serials["cam-1"], int(time.time())))
        await running.broker.cut_off("cam-1")
        async with asyncio.timeout(5):
            await lost
        await other.publish(Topics.status("cam-2"), b"still here", qos=1)
    why = await running.refusal("cam-1", running.contexts["cam-1"])
    assert "revoked" in why or "Not authorized" in why
    assert "" == await running.refusal("cam-2", running.contexts["cam-2"])


async def test_another_certificate_of_the_same_device_goes_on_after_one_was_revoked(running: Running) -> None:
    """What is revoked is a certificate: after a renewal the old one is shut out, the new one is not."""
    assert running.broker is not None
    old = running.serials["cam-1"]
    renewed = running.issue("cam-1")
    running.revoked.append((old, int(time.time())))
    await running.broker.cut_off("cam-1")
    assert "" != await running.refusal("cam-1", running.contexts["cam-1"])
    await running.broker.reload()
    assert "" == await running.refusal("cam-1", renewed)


async def _until_lost(client: aiomqtt.Client) -> None:
    with contextlib.suppress(aiomqtt.MqttError):
        async for _ in client.messages:
            pass

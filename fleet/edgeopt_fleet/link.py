"""The fleet's connection to the broker.

No broker is trusted to keep anything: on *every* connection all blocks, manifests and desired states that devices
may need are published again. What is sent while there is no connection is dropped, because it is either retained,
and so sent again, or an acknowledgement, which the device will ask for again. Example::

    link = Link([address], outbox, serial, receive)
    group.create_task(link.run())
    await link.announce({"cam-7"})               # after its desired state was saved
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiomqtt

from edgeopt_contract.codec import encode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import Ack
from edgeopt_contract.topics import Topics
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.outbox import Outbox

__all__ = ["BrokerAddress", "Link"]

_LOG = logging.getLogger(__name__)
_IN_FLIGHT = 32  # publications that wait for the broker at the same time
_RECONNECT_SECONDS = 0.3
_SUBSCRIPTIONS = (Topics.ANY_REPORTED, Topics.ANY_TELEMETRY, Topics.ANY_STATUS)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerAddress:
    """Where and as whom the fleet connects."""

    host: str
    port: int
    username: str | None = None  # where there is no TLS
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None


class Link:
    """Publishes what the outbox says and hands on what devices send."""

    def __init__(
        self,
        addresses: Sequence[BrokerAddress],
        outbox: Outbox,
        serial: Serial,
        receive: Callable[[str, bytes], Awaitable[None]],
        *,
        identifier: str = "edgeopt-fleet",
    ) -> None:
        self._addresses = addresses  # of one broker, or of the nodes of a cluster: tried in turn
        self._identifier = identifier
        self._attempt = 0
        self._outbox = outbox
        self._serial = serial
        self._receive = receive
        self._client: aiomqtt.Client | None = None
        self._broken = asyncio.Event()
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._order = asyncio.Lock()  # a newer desired state is never overtaken by an older one
        self._delivered: set[str] = set()  # bundles whose blocks this connection has published
        self._metadata = b""  # what this connection has published last

    @property
    def connected(self) -> bool:
        """Whether the fleet hears its devices now."""
        return self._client is not None

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in one
        while True:
            try:
                await self._connect_once()
            except aiomqtt.MqttError as error:
                _LOG.info("no connection to the broker: %s; trying again", error)
                self._attempt += 1
            if task.cancelling():  # the failing connection may have taken the cancellation's place
                raise asyncio.CancelledError
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def announce(self, devices: Collection[str] | None = None) -> None:
        """Publish what ``devices`` (by default: all) should run, after the metadata and blocks they need for it."""
        async with self._order:
            if self._client is None:
                return  # the next connection publishes everything
            await self._publish_metadata()
            wanted = await self._serial(self._outbox.desired, devices)
            for bundle in dict.fromkeys(desired.bundle for desired in wanted.values() if desired is not None):
                try:
                    await self._deliver(bundle)
                except StorageError:  # other bundles must still reach their devices
                    _LOG.exception("bundle %s cannot be delivered", bundle[:12])
            await self._publish_all(
                (Topics.desired(device), b"" if desired is None else encode(desired))
                for device, desired in wanted.items()
            )

    async def acknowledge(self, acks: dict[str, list[Ack]]) -> None:
        """Tell devices what is committed."""
        await self._publish_all(
            ((Topics.ack(device), encode(ack)) for device, several in acks.items() for ack in several), retain=False
        )

    async def _connect_once(self) -> None:
        address = self._addresses[self._attempt % len(self._addresses)]
        async with aiomqtt.Client(
            address.host,
            address.port,
            username=address.username,
            password=address.password,
            tls_context=address.tls,
            identifier=self._identifier,
            protocol=aiomqtt.ProtocolVersion.V311,
            keepalive=15,
            max_inflight_messages=_IN_FLIGHT,
        ) as client:
            client.pending_calls_threshold = _IN_FLIGHT  # aiomqtt would warn above ten, but these are bounded here
            granted = await client.subscribe([(topic, 1) for topic in _SUBSCRIPTIONS])
            if any(code not in (0, 1) for code in granted):
                raise aiomqtt.MqttError(f"the broker refused a subscription: {granted}")
            self._delivered.clear()
            self._metadata = b""
            self._broken.clear()
            self._client = client
            _LOG.info("connected to the broker at %s:%d", address.host, address.port)
            try:
                await _until_one_fails(self._hear(client), self._notice_breakage(), self.announce())
            finally:
                self._client = None

    async def _hear(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload
            if isinstance(payload, bytes | bytearray):
                await self._receive(str(message.topic), bytes(payload))

    async def _notice_breakage(self) -> None:
        await self._broken.wait()
        raise aiomqtt.MqttError("the broker did not take a publication")

    async def _publish_metadata(self) -> None:
        """Publish the TUF metadata, once a connection and whenever they have changed."""
        metadata = await self._serial(self._outbox.metadata)
        if metadata != self._metadata:
            await self._publish(Topics.TUF, metadata, retain=True)
            self._metadata = metadata

    async def _deliver(self, bundle: str) -> None:
        """Publish blocks and manifest of ``bundle``, once a connection."""
        if bundle in self._delivered:
            return
        delivery = await self._serial(self._outbox.delivery, bundle)
        await asyncio.gather(*(self._publish_block(sha256) for sha256 in delivery.blocks))
        await self._publish(Topics.block(bundle), delivery.manifest, retain=True)
        self._delivered.add(bundle)

    async def _publish_block(self, sha256: str) -> None:
        async with self._slots:
            data = await asyncio.to_thread(self._outbox.block, sha256)
            await self._send(Topics.block(sha256), data, retain=True)

    async def _publish_all(self, messages: Iterable[tuple[str, bytes]], *, retain: bool = True) -> None:
        await asyncio.gather(*(self._publish(topic, payload, retain=retain) for topic, payload in messages))

    async def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        async with self._slots:
            await self._send(topic, payload, retain=retain)

    async def _send(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Send one message; without a connection it is dropped, and a failure makes a new connection."""
        client = self._client
        if client is None:
            return
        try:
            await client.publish(topic, payload, qos=1, retain=retain)
        except aiomqtt.MqttError as error:
            _LOG.info("could not publish %s: %s", topic, error)
            self._broken.set()


async def _until_one_fails(*work: Coroutine[Any, Any, None]) -> None:
    """Run all of ``work`` together; when one raises, end the others and raise the same.

    Not a TaskGroup: on Python 3.11 that leaves a cancellation request behind in this task, which :meth:`Link.run`
    could not tell from a real one.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

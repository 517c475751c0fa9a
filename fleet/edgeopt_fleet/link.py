"""The fleet's connection to the broker.

No broker is trusted to keep anything: on *every* connection all blocks, manifests and desired states that devices
may need are published again. What is sent while there is no connection is dropped, because it is either retained,
and so sent again, or an acknowledgement, which the device will ask for again. Example::

    link = Link([address], outbox, serial, ingest.receive)
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

from edgeopt_contract.codec import encode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import Ack, Desired, Shadow
from edgeopt_contract.topics import PREFIX, Channel, Topics
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.mqtt.client import MqttClient, MqttError, Peer, Publication
from edgeopt_fleet.mqtt.packets import Hello
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.outbox import Outbox

__all__ = ["BrokerAddress", "Link", "until_one_fails"]

_LOG = logging.getLogger(__name__)
_RECONNECT_SECONDS = 0.3
_KEEPALIVE_SECONDS = 15
_BLOCKS_AT_ONCE = 16  # read from the disk and published together
# QoS 0: a broker drops either way when the fleet is slow, and what counts is acknowledged by the fleet itself.
_SUBSCRIPTIONS = tuple((topic, 0) for topic in (Topics.ANY_REPORTED, Topics.ANY_TELEMETRY, Topics.ANY_STATUS))


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
        receive: Callable[[Sequence[tuple[str, bytes]]], bool],
        *,
        identifier: str = "edgeopt-fleet",
        metrics: Metrics | None = None,
    ) -> None:
        self._addresses = addresses  # of one broker, or of the nodes of a cluster: tried in turn
        self._identifier = identifier
        self._metrics = metrics or Metrics()
        self._attempt = 0
        self._outbox = outbox
        self._serial = serial
        self._receive = receive
        self._client: MqttClient | None = None
        self._order = asyncio.Lock()  # a newer desired state is never overtaken by an older one
        self._delivered: set[str] = set()  # bundles whose blocks this connection has published
        self._metadata = b""  # what this connection has published last
        self._hearing = True

    @property
    def connected(self) -> bool:
        """Whether the fleet hears its devices now."""
        return self._client is not None

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        while True:
            try:
                await self._connect_once()
            except MqttError as error:
                _LOG.info("no connection to the broker: %s; trying again", error)
                self._attempt += 1
            except StorageError:
                _LOG.exception("what is to be published cannot be read; connecting again")
            await asyncio.sleep(_RECONNECT_SECONDS)

    def stop_hearing(self) -> None:
        """Hand on nothing more, while what was handed on can still be acknowledged; for an orderly end."""
        self._hearing = False

    async def announce(self, devices: Collection[str] | None = None) -> None:
        """Publish what ``devices`` (by default: all) should run, after the metadata and blocks they need for it.

        Without a connection nothing happens: the next one publishes everything.
        """
        await self._in_order(lambda client: self._announce(client, devices))

    async def announce_shadows(self, devices: Collection[str]) -> None:
        """Publish what ``devices`` are to run beside what serves, or that it is over, as :meth:`announce` does."""
        await self._in_order(lambda client: self._announce_shadows(client, devices))

    async def _in_order(self, publish: Callable[[MqttClient], Awaitable[None]]) -> None:
        async with self._order:
            client = self._client
            if client is None:
                return
            try:
                await publish(client)
            except MqttError as error:
                _LOG.info("not everything was published, the next connection will: %s", error)

    async def acknowledge(self, acks: dict[str, list[Ack]]) -> None:
        """Tell devices what is committed; then there is room for more messages."""
        client = self._client
        if client is None:
            return
        await client.send([(_ack_topic(device), _ack(ack)) for device, several in acks.items() for ack in several])
        self._metrics.acknowledgements.inc(len(acks))
        client.resume()

    async def _connect_once(self) -> None:
        address = self._addresses[self._attempt % len(self._addresses)]
        peer = Peer(host=address.host, port=address.port, tls=address.tls)
        hello = Hello(
            client_id=self._identifier,
            keepalive_seconds=_KEEPALIVE_SECONDS,
            username=address.username,
            password=address.password,
        )
        client = await MqttClient.connect(peer, hello, self._hear)
        try:
            granted = await client.subscribe(_SUBSCRIPTIONS)
            if any(code not in (0, 1) for code in granted):
                raise MqttError(f"the broker refused a subscription: {granted}")
            self._delivered.clear()
            self._metadata = b""
            self._client = client
            self._metrics.broker_connections.inc()
            _LOG.info("connected to the broker at %s:%d", address.host, address.port)
            await until_one_fails(client.closed(), self._in_order(self._announce_all))
        finally:
            self._client = None
            client.close()

    def _hear(self, messages: Sequence[tuple[str, bytes]]) -> None:
        if not self._hearing:  # never acknowledged, so devices send it to whoever comes next
            return
        if not self._receive(messages) and self._client is not None:
            self._client.pause()  # until the next acknowledgement

    async def _announce_all(self, client: MqttClient) -> None:
        await self._announce(client, None)
        await self._announce_shadows(client, None)

    async def _announce(self, client: MqttClient, devices: Collection[str] | None) -> None:
        wanted = await self._serial.read(self._outbox.desired, devices)
        await self._prepare(client, [desired.bundle for desired in wanted.values() if desired is not None])
        await client.publish(_orders(Topics.desired, wanted.items()))
        self._metrics.published.labels(kind="desired").inc(len(wanted))

    async def _announce_shadows(self, client: MqttClient, devices: Collection[str] | None) -> None:
        wanted = await self._serial.read(self._outbox.shadows, devices)
        await self._prepare(client, [shadow.bundle for shadow in wanted.values() if shadow is not None])
        await client.publish(_orders(Topics.shadow, wanted.items()))
        self._metrics.published.labels(kind="shadow").inc(len(wanted))

    async def _prepare(self, client: MqttClient, bundles: Sequence[str]) -> None:
        """Publish metadata and blocks that devices need for orders about ``bundles``."""
        await self._publish_metadata(client)
        for bundle in dict.fromkeys(bundles):
            try:
                await self._deliver(client, bundle)
            except StorageError:  # other bundles must still reach their devices
                _LOG.exception("bundle %s cannot be delivered", bundle[:12])

    async def _publish_metadata(self, client: MqttClient) -> None:
        """Publish the TUF metadata, once a connection and whenever they have changed."""
        metadata = await self._serial.read(self._outbox.metadata)
        if metadata != self._metadata:
            await client.publish([Publication(Topics.TUF, metadata, retain=True)])
            self._metadata = metadata
            self._metrics.published.labels(kind="tuf").inc()

    async def _deliver(self, client: MqttClient, bundle: str) -> None:
        """Publish blocks and manifest of ``bundle``, once a connection."""
        if bundle in self._delivered:
            return
        delivery = await self._serial.read(self._outbox.delivery, bundle)
        for start in range(0, len(delivery.blocks), _BLOCKS_AT_ONCE):
            names = delivery.blocks[start : start + _BLOCKS_AT_ONCE]
            await client.publish(await asyncio.to_thread(self._blocks, names))
        await client.publish([Publication(Topics.block(bundle), delivery.manifest, retain=True)])
        self._delivered.add(bundle)
        self._metrics.published.labels(kind="block").inc(len(delivery.blocks) + 1)

    def _blocks(self, names: Sequence[str]) -> list[Publication]:
        return [Publication(Topics.block(name), self._outbox.block(name), retain=True) for name in names]


def _orders(
    topic: Callable[[str], str], wanted: Iterable[tuple[str, Desired | Shadow | None]]
) -> Iterable[Publication]:
    for device, order in wanted:
        yield Publication(topic(device), b"" if order is None else encode(order), retain=True)


def _ack_topic(device: str) -> str:
    """Return ``Topics.ack(device)`` of a device that is enrolled, so its id needs no check: thousands a second."""
    return f"{PREFIX}/devices/{device}/{Channel.ACK}"


def _ack(ack: Ack) -> bytes:
    """Return what :func:`encode` does, cheaply for the form of nearly all acknowledgements: thousands a second."""
    window = ack.reconnect_window_seconds
    if ack.beyond or ack.extra or window is None:
        return encode(ack)
    parts = (repr(float(window)).encode(), ack.session, ack.upto)
    return b'{"beyond":[],"reconnect_window_seconds":%b,"schema":1,"session":%d,"upto":%d}' % parts


async def until_one_fails(*work: Coroutine[Any, Any, None]) -> None:
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

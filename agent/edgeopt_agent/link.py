"""The one MQTT connection of a device: connect, be born, listen, come back after a loss.

MQTT 3.1.1 with a clean session: what must not be lost is in the spool, and desired states and blocks are retained, so
a broker needs to remember nothing for a device that is away. It does not know what the payloads mean. Example::

    link = Link(LinkOptions(access=…, device="cam-1"), listener, random=Random())
    task = asyncio.create_task(link.run())
    block = await link.fetch(Topics.block(sha256), timeout_seconds=10)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import aiomqtt

from edgeopt_agent.backoff import reconnect_delay
from edgeopt_agent.log import log_event
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.messages import MqttAccess
from edgeopt_contract.topics import Topics

__all__ = ["Link", "LinkOptions", "Listener"]

_REFUSED = 0x80  # SUBACK return code of MQTT 3.1.1, section 3.9.3


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """Where the broker is and how patient to be."""

    device: str
    access: MqttAccess
    reconnect_window_seconds: float
    stable_seconds: float = 10.0  # a connection that ends sooner counts as a failure
    keepalive_seconds: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told what came, and who says what the birth and the will are."""

    desired: Callable[[bytes], None]
    ack: Callable[[bytes], None]
    connected: Callable[[], None]
    status: Callable[[bool], bytes]


class Link:
    """See the module."""

    def __init__(
        self,
        options: LinkOptions,
        listener: Listener,
        *,
        random: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._options = options
        self._listener = listener
        self._random = random
        self._sleep = sleep
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def run(self) -> None:
        """Connect and stay connected until cancelled."""
        failures = 0
        while True:
            delay = reconnect_delay(
                failures, window_seconds=self._options.reconnect_window_seconds, random=self._random
            )
            await self._sleep(delay)
            started = time.monotonic()
            try:
                await self._session()
            except (aiomqtt.MqttError, UnreachableError, OSError) as error:
                stable = time.monotonic() - started >= self._options.stable_seconds
                failures = 0 if stable else failures + 1
                log_event("link_lost", level=logging.WARNING, failures=failures, reason=error)

    async def wait_until_connected(self) -> None:
        """Return when there is a connection."""
        await self._connected.wait()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1. Raises :class:`UnreachableError` when the broker has not taken it."""
        client = self._client
        if client is None:
            raise UnreachableError("not connected to the broker")
        try:
            await client.publish(topic, payload, qos=1, retain=retain)
        except aiomqtt.MqttError as error:
            raise UnreachableError(f"the broker did not take a message: {error}") from error

    async def announce(self) -> None:
        """Publish the birth again, because what it says has changed; without a connection the next birth says it."""
        with contextlib.suppress(UnreachableError):
            await self.publish(Topics.status(self._options.device), self._listener.status(True), retain=True)

    async def say_goodbye(self) -> None:
        """Publish the death that the will would publish, because a clean end does not trigger the will."""
        with contextlib.suppress(UnreachableError, TimeoutError):
            async with asyncio.timeout(2):
                topic = Topics.status(self._options.device)
                await self.publish(topic, self._listener.status(False), retain=True)

    async def fetch(self, topic: str, timeout_seconds: float) -> bytes:
        """Return the next message on ``topic``, which is the retained one if there is one.

        Subscribes with QoS 0 and unsubscribes again. Raises :class:`UnreachableError` without a connection, when the
        broker refuses the subscription, or when nothing comes in time.
        """
        client = self._client
        if client is None:
            raise UnreachableError("not connected to the broker")
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[topic] = future
        try:
            async with asyncio.timeout(timeout_seconds):
                await _subscribe(client, [(topic, 0)])
                return await future
        except TimeoutError as error:
            raise UnreachableError(f"nothing came on {topic} within {timeout_seconds:g} s") from error
        except aiomqtt.MqttError as error:
            raise UnreachableError(f"{topic}: {error}") from error
        finally:
            self._waiting.pop(topic, None)
            if client is self._client:
                with contextlib.suppress(aiomqtt.MqttError):  # the connection is gone, and the subscription with it
                    await client.unsubscribe(topic, timeout=timeout_seconds)

    async def _session(self) -> None:
        access, device = self._options.access, self._options.device
        will = aiomqtt.Will(Topics.status(device), self._listener.status(False), qos=1, retain=True)
        quiet = logging.getLogger("edgeopt_agent.mqtt")
        quiet.setLevel(logging.CRITICAL)  # what matters arrives as an exception
        async with aiomqtt.Client(
            access.host,
            access.port,
            username=access.username,
            password=access.password,
            identifier=device,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            will=will,
            keepalive=self._options.keepalive_seconds,
            logger=quiet,
        ) as client:
            await _subscribe(client, [(Topics.desired(device), 1), (Topics.ack(device), 1)])
            await client.publish(Topics.status(device), self._listener.status(True), qos=1, retain=True)
            self._client = client
            self._connected.set()
            log_event("connected", broker=f"{access.host}:{access.port}")
            self._listener.connected()
            try:
                async for message in client.messages:
                    self._route(str(message.topic), bytes(message.payload))
            finally:
                self._client = None
                self._connected.clear()
                self._fail_waiting()

    def _route(self, topic: str, payload: bytes) -> None:
        future = self._waiting.get(topic)
        if future is not None:
            if not future.done():
                future.set_result(payload)
        elif topic == Topics.desired(self._options.device):
            self._listener.desired(payload)
        elif topic == Topics.ack(self._options.device):
            self._listener.ack(payload)

    def _fail_waiting(self) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(UnreachableError("the connection was lost"))


async def _subscribe(client: aiomqtt.Client, topics: list[tuple[str, int]]) -> None:
    """Subscribe and look at every return code, for a broker may refuse one and keep the connection."""
    codes: Any = await client.subscribe(topics)
    values = [getattr(code, "value", code) for code in codes]
    refused = [topic for (topic, _), value in zip(topics, values, strict=True) if value >= _REFUSED]
    if refused:
        raise UnreachableError(f"the broker refused the subscription to {', '.join(refused)}")

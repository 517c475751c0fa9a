"""The one MQTT connection of a device: connect, be born, listen, come back after a loss.

MQTT 3.1.1 with a clean session: what must not be lost is in the spool, and desired states and blocks are retained, so
a broker needs to remember nothing for a device that is away. A half-open connection is noticed by TCP's own probes,
which are answered however many blocks stand in the queue before MQTT's. It does not know what the payloads mean.
Example::

    link = Link(LinkOptions(wallet=…, device="cam-1"), listener, random=Random())
    task = asyncio.create_task(link.run())
    arrival = await link.fetch(Topics.block(sha256), patience_seconds=10)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

import aiomqtt

from edgeopt_agent.credentials.identity import Credentials
from edgeopt_agent.log import log_event
from edgeopt_agent.mqtt.backoff import reconnect_delay
from edgeopt_agent.mqtt.packets import limit_packets
from edgeopt_agent.mqtt.refusals import Refusal
from edgeopt_agent.tasks import end_tasks
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.topics import Topics

__all__ = ["Arrival", "CredentialSource", "Link", "LinkOptions", "Listener"]

_T = TypeVar("_T")

_REFUSED = 0x80  # SUBACK return code of MQTT 3.1.1, section 3.9.3
# An outage of half a minute is survived, a peer that is gone is noticed in about one (tcp(7)).
_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # questions are small, and each waits for its answer
)


class CredentialSource(Protocol):
    """What says as whom to connect (:class:`edgeopt_agent.credentials.identity.Wallet`)."""

    def choose(self) -> Credentials:
        """Return the credentials for the next connection."""
        ...

    def accepted(self, credentials: Credentials) -> None:
        """Note that the broker let these in."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """Where the broker is and how patient to be."""

    device: str
    wallet: CredentialSource
    reconnect_window_seconds: Callable[[], float]  # looked up before each attempt
    stable_seconds: float = 10.0  # a connection that ends sooner counts as a failure
    keepalive_seconds: int = 60
    connect_seconds: float = 20.0  # until CONNACK
    answer_seconds: float = 120.0  # until SUBACK and the like, which may stand behind a block on a link of 9 kbit/s
    refresh_seconds: float = 300.0  # the desired state is asked for again: no broker is trusted to have delivered it


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who is told what came, and who says what the birth and the will are."""

    desired: Callable[[bytes], None]
    shadow: Callable[[bytes], None]
    ack: Callable[[bytes], None]
    connected: Callable[[], None]
    status: Callable[[bool], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What came on a topic, and when, in seconds of ``time.monotonic``: asked for, answered by SUBACK, arrived."""

    payload: bytes
    asked_at: float
    answered_at: float
    arrived_at: float


class _Session:
    """One connection, from its CONNACK to its end; what waits for an answer ends with it."""

    def __init__(self, client: aiomqtt.Client, answer_seconds: float) -> None:
        self.client = client
        self._answer_seconds = answer_seconds
        self._lost = asyncio.get_running_loop().create_future()
        self._leaving = asyncio.Event()
        self._unsubscribing: set[asyncio.Task[None]] = set()

    async def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what ``work`` returns; raises :class:`UnreachableError` as soon as the connection is lost.

        aiomqtt itself would wait for an answer that no longer can come. A broker that keeps the connection and does not
        answer is left.
        """
        task = asyncio.ensure_future(work)
        try:
            await self.wait(task, self._answer_seconds)
            if task.done():
                return task.result()
            if not self._lost.done():
                self.leave()
                raise UnreachableError(f"the broker gave no answer in {self._answer_seconds:g} s")
            raise UnreachableError("the connection was lost")
        except aiomqtt.MqttError as error:
            raise UnreachableError(str(error)) from error
        finally:
            task.cancel()

    async def wait(self, future: asyncio.Future[Any], seconds: float) -> None:
        """Wait until ``future`` is done, the connection is lost, or ``seconds`` have passed."""
        await asyncio.wait({future, self._lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)

    def release(self, topic: str) -> None:
        """Unsubscribe without waiting for the answer."""
        if self._lost.done():
            return  # the subscription went with the connection
        task = asyncio.create_task(self._unsubscribe(topic))
        self._unsubscribing.add(task)
        task.add_done_callback(self._unsubscribing.discard)

    async def _unsubscribe(self, topic: str) -> None:
        with contextlib.suppress(UnreachableError):
            await self.call(self.client.unsubscribe(topic, timeout=math.inf))

    def leave(self) -> None:
        """Ask for the end of this connection."""
        self._leaving.set()

    async def left(self) -> None:
        """Return when the end was asked for."""
        await self._leaving.wait()

    def end(self) -> None:
        """Let everything that waits for an answer know that none will come."""
        if not self._lost.done():
            self._lost.set_result(None)


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
        self._session: _Session | None = None
        self._connected = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[tuple[bytes, float]]] = {}

    async def run(self) -> None:
        """Connect and stay connected until cancelled."""
        failures = 0
        while True:
            delay = reconnect_delay(
                failures, window_seconds=self._options.reconnect_window_seconds(), random=self._random
            )
            await self._sleep(delay)
            started = time.monotonic()
            try:
                await self._connect_once()
            except (aiomqtt.MqttError, UnreachableError, OSError, UnicodeError) as error:
                # UnicodeError: what the resolver makes of a name that is no name
                lasted = time.monotonic() - started
                failures = 0 if lasted >= self._options.stable_seconds else failures + 1
                log_event("link_lost", level=logging.WARNING, failures=failures, lasted=lasted, reason=error)

    async def wait_until_connected(self) -> None:
        """Return when there is a connection."""
        await self._connected.wait()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1. Raises :class:`UnreachableError` when the broker has not taken it."""
        session = self._live()
        await session.call(session.client.publish(topic, payload, qos=1, retain=retain, timeout=math.inf))

    def reconnect(self) -> None:
        """End the present connection, if there is one, so that the next one uses the newest credentials."""
        if self._session is not None:
            self._session.leave()

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

    async def fetch(self, topic: str, patience_seconds: float) -> Arrival:
        """Return the next message on ``topic``, which is the retained one if there is one.

        A broker answers in order. So when nothing has come for a while, the device unsubscribes: what was on its way
        comes before the answer (UNSUBACK) and is taken, and after it nothing is on its way. However slow the link
        is, a message that is asked for again is not sent twice. Raises :class:`UnreachableError` without a
        connection, when the broker refuses the subscription, or when it has nothing.
        """
        session = self._live()
        future: asyncio.Future[tuple[bytes, float]] = asyncio.get_running_loop().create_future()
        self._waiting[topic] = future
        subscribed = True
        try:
            asked_at = time.monotonic()
            await session.call(_subscribe(session.client, [(topic, 0)]))
            answered_at = time.monotonic()
            await session.wait(future, patience_seconds)
            if not future.done():
                await session.call(session.client.unsubscribe(topic, timeout=math.inf))
                subscribed = False
            if not future.done():
                raise UnreachableError(f"the broker has nothing: nothing came in {patience_seconds:.1f} s")
            payload, arrived_at = future.result()
            return Arrival(payload=payload, asked_at=asked_at, answered_at=answered_at, arrived_at=arrived_at)
        except UnreachableError as error:
            raise UnreachableError(f"{topic}: {error}") from error
        finally:
            self._waiting.pop(topic, None)
            if subscribed:
                session.release(topic)

    def _live(self) -> _Session:
        if self._session is None:
            raise UnreachableError("not connected to the broker")
        return self._session

    async def _connect_once(self) -> None:
        credentials, refusal = self._options.wallet.choose(), Refusal()
        client = self._make_client(credentials, refusal)
        try:
            await refusal.or_done(client.__aenter__())
        except BaseException:
            _abandon(client)
            raise
        session = _Session(client, self._options.answer_seconds)
        parts = (session.left(), self._hear(client), self._tend(session, credentials))
        work = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()  # raises why the connection ended, unless it was left
        finally:
            self._session = None
            self._connected.clear()
            session.end()
            await end_tasks(work)
            await asyncio.gather(*work, return_exceptions=True)
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)

    async def _hear(self, client: aiomqtt.Client) -> None:
        """Hand on what comes. Raises :class:`aiomqtt.MqttError` when the connection is lost."""
        async for message in client.messages:
            self._route(str(message.topic), message.payload)

    async def _tend(self, session: _Session, credentials: Credentials) -> None:
        """Be born, and ask for the desired state again now and then."""
        device, status = self._options.device, self._listener.status(True)
        own, shadow = [(Topics.desired(device), 1), (Topics.ack(device), 1)], (Topics.shadow(device), 1)
        await session.call(_subscribe(session.client, [*own, shadow], may_be_refused=shadow[0]))
        birth = session.client.publish(Topics.status(device), status, qos=1, retain=True, timeout=math.inf)
        await session.call(birth)
        self._options.wallet.accepted(credentials)
        self._session = session
        self._connected.set()
        log_event("connected", broker=f"{credentials.mqtt.host}:{credentials.mqtt.port}")
        self._listener.connected()
        while True:
            await asyncio.sleep(self._options.refresh_seconds)
            await session.call(_subscribe(session.client, [own[0], shadow], may_be_refused=shadow[0]))

    def _make_client(self, credentials: Credentials, refusal: Refusal) -> aiomqtt.Client:
        access, device = credentials.mqtt, self._options.device
        client = aiomqtt.Client(
            access.host,
            access.port,
            username=None if access.tls else device,  # with TLS the certificate says who this is
            password=access.password,
            tls_context=credentials.tls,
            identifier=device,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            will=aiomqtt.Will(Topics.status(device), self._listener.status(False), qos=1, retain=True),
            keepalive=self._options.keepalive_seconds,
            timeout=self._options.connect_seconds,
            socket_options=_SOCKET_OPTIONS,
            logger=refusal.logger,
        )
        limit_packets(client)
        return client

    def _route(self, topic: str, payload: Any) -> None:
        future = self._waiting.get(topic)
        if future is not None:
            if not future.done():
                future.set_result((payload, time.monotonic()))
        elif topic == Topics.desired(self._options.device):
            self._listener.desired(payload)
        elif topic == Topics.shadow(self._options.device):
            self._listener.shadow(payload)
        elif topic == Topics.ack(self._options.device):
            self._listener.ack(payload)


def _abandon(client: aiomqtt.Client) -> None:
    """Close what a failed connect left open.

    aiomqtt leaves the socket of a broker that sends no CONNACK in time in the event loop. Its CONNACK may come later,
    and then the broker would throw out the connection that was made instead: both have the same client id.
    """
    client._client._sock_close()  # noqa: SLF001  # aiomqtt and paho have no public way


async def _subscribe(client: aiomqtt.Client, topics: list[tuple[str, int]], may_be_refused: str = "") -> None:
    """Subscribe and look at every return code, for a broker may refuse one and keep the connection.

    ``may_be_refused`` is a topic that the rights of an older fleet do not know.
    """
    codes: Any = await client.subscribe(topics, timeout=math.inf)
    values = [getattr(code, "value", code) for code in codes]
    if len(values) != len(topics):
        raise UnreachableError(f"expected {len(topics)} return codes of a subscription, the broker gave {len(values)}")
    refused = [topic for (topic, _), value in zip(topics, values, strict=True) if value >= _REFUSED]
    if refused == [may_be_refused]:
        log_event("refused", level=logging.WARNING, topic=may_be_refused)
    elif refused:
        raise UnreachableError(f"the broker refused the subscription to {', '.join(refused)}")

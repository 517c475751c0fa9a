"""One connection to a broker: hears thousands of messages a second, and publishes thousands at once.

What comes is handed over by the read, not by the message, so there is no task and no queue for each. Publications are
written together and awaited together. Only what the fleet needs: a clean session, QoS 0 and 1. It does not connect
again: whoever holds it makes a new one. Example::

    client = await MqttClient.connect(Peer(host="127.0.0.1", port=1883), hello, receive)
    await client.subscribe([("edgeopt/v1/devices/+/telemetry", 0)])
    await client.publish([Publication("edgeopt/v1/devices/cam-7/desired", b"{}", retain=True)])
    await client.closed()                    # until the connection ends; raises MqttError
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgeopt_contract.errors import UnreachableError
from edgeopt_fleet.mqtt.packets import (
    Hello,
    Kind,
    PacketError,
    Splitter,
    connect_packet,
    disconnect_packet,
    kind_of_packet,
    parse_connack,
    parse_packet_id,
    parse_publish,
    parse_suback,
    ping_packet,
    puback_packet,
    publish_packet,
    subscribe_packet,
)

__all__ = ["MqttClient", "MqttError", "Peer", "Publication"]

_ANSWER_SECONDS = 10.0  # for CONNACK and SUBACK
_PUBLISH_SECONDS = 60.0  # for the broker to take one portion
_PORTION_MESSAGES = 500
_PORTION_BYTES = 1 << 20

R = TypeVar("R")
Receive = Callable[[list[tuple[str, bytes]]], None]


class MqttError(UnreachableError):
    """The broker cannot be reached, does not answer, refuses, or the connection to it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where the broker listens, and how to prove who is who."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to publish with QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False


class MqttClient(asyncio.Protocol):
    """A connection that was accepted by the broker."""

    def __init__(self, receive: Receive, keepalive_seconds: float) -> None:
        self._receive = receive
        self._keepalive = keepalive_seconds
        self._loop = asyncio.get_running_loop()
        self._splitter = Splitter()
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.Future[str] = self._loop.create_future()
        self._accepted: asyncio.Future[int] = self._loop.create_future()
        self._grants: dict[int, asyncio.Future[tuple[int, ...]]] = {}
        self._untaken: set[int] = set()  # packet ids of the portion that the broker has not acknowledged
        self._taken = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._publishing = asyncio.Lock()
        self._next_id = 0
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(cls, peer: Peer, hello: Hello, receive: Receive) -> MqttClient:
        """Connect and be accepted. ``receive`` gets what comes, in order. Raises :class:`MqttError`."""
        loop = asyncio.get_running_loop()
        client = cls(receive, hello.keepalive_seconds)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await loop.create_connection(lambda: client, peer.host, peer.port, ssl=peer.tls)
                client._write(connect_packet(hello))
                code = await client._answer(client._accepted)
        except (OSError, TimeoutError) as error:
            client.close()
            reason = str(error) or f"no answer within {_ANSWER_SECONDS:.0f} s"
            raise MqttError(f"the broker at {peer.host}:{peer.port} cannot be reached: {reason}") from error
        except BaseException:
            client.close()
            raise
        if code != 0:
            client.close()
            raise MqttError(f"the broker at {peer.host}:{peer.port} refused the connection with code {code}")
        client._timer = loop.call_later(client._keepalive / 2, client._keep_alive)
        return client

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> tuple[int, ...]:
        """Subscribe to pairs of filter and QoS; return what was granted. Raises :class:`MqttError`."""
        packet_id = self._new_id()
        answer = self._grants[packet_id] = self._loop.create_future()
        self._write(subscribe_packet(packet_id, filters))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._answer(answer)
        except TimeoutError as error:
            raise MqttError(f"the broker did not answer a subscription within {_ANSWER_SECONDS:.0f} s") from error

    async def publish(self, messages: Iterable[Publication]) -> None:
        """Publish with QoS 1, in order; return when the broker has taken all. Raises :class:`MqttError`."""
        async with self._publishing:
            portion: list[bytes] = []
            size = 0
            for message in messages:
                packet_id = self._new_id()
                self._untaken.add(packet_id)
                portion.append(
                    publish_packet(message.topic, message.payload, packet_id=packet_id, retain=message.retain)
                )
                size += len(portion[-1])
                if len(portion) >= _PORTION_MESSAGES or size >= _PORTION_BYTES:
                    await self._publish_portion(portion)
                    portion, size = [], 0
            await self._publish_portion(portion)

    async def send(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish topics and payloads with QoS 0; they may get lost with the connection. Raises nothing."""
        self._write(b"".join(publish_packet(topic, payload, packet_id=0) for topic, payload in messages))
        if not self._end.done():
            await self._writable.wait()

    async def closed(self) -> None:
        """Wait until the connection ends, then raise :class:`MqttError` that says why."""
        raise MqttError(await asyncio.shield(self._end))

    def pause(self) -> None:
        """Read nothing for now: too much waits already."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._heard_at = self._loop.time()
            self._transport.resume_reading()

    def close(self) -> None:
        """End the connection in order."""
        self._finish("it was closed here")
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(disconnect_packet())
            self._transport.close()

    # --- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """End whatever waits."""
        self._finish(f"the connection to the broker ended: {exc or 'it was closed there'}")

    def pause_writing(self) -> None:
        """Let senders wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let senders go on."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Hand over all messages that are complete, in one call."""
        self._heard_at = self._loop.time()
        try:
            messages, answers = self._take(data)
        except PacketError as error:
            self._abort(f"the broker sent what is not MQTT 3.1.1: {error}")
            return
        if answers:
            self._write(b"".join(answers))
        if messages:
            self._receive(messages)

    # --- parts -----------------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> tuple[list[tuple[str, bytes]], list[bytes]]:
        messages, answers = [], []
        for first, body in self._splitter.feed(data):
            kind = kind_of_packet(first)
            if kind == Kind.PUBLISH:
                topic, payload, packet_id = parse_publish(first, body)
                messages.append((topic, payload))
                if packet_id:
                    answers.append(puback_packet(packet_id))
            elif kind == Kind.PUBACK:
                self._untaken.discard(parse_packet_id(body))
                if not self._untaken:
                    self._taken.set()
            else:
                self._take_answer(kind, body)
        return messages, answers

    def _take_answer(self, kind: int, body: bytes) -> None:
        if kind == Kind.CONNACK:
            _settle(self._accepted, parse_connack(body))
        elif kind == Kind.SUBACK:
            answer = self._grants.pop(parse_packet_id(body), None)
            if answer is not None:
                _settle(answer, parse_suback(body))
        elif kind != Kind.PINGRESP:
            raise PacketError(f"a packet of type {kind}, which no broker sends to this client")

    async def _publish_portion(self, portion: Sequence[bytes]) -> None:
        if not portion:
            return
        self._taken.clear()
        self._write(b"".join(portion))
        try:
            async with asyncio.timeout(_PUBLISH_SECONDS):
                await self._taken.wait()  # also set when the connection ends
        except TimeoutError:
            self._abort(f"the broker did not take {len(self._untaken)} publications in {_PUBLISH_SECONDS:.0f} s")
        if self._end.done():
            raise MqttError(self._end.result())

    async def _answer(self, answer: asyncio.Future[R]) -> R:
        """Wait for ``answer`` or the end of the connection. Raises :class:`MqttError`."""
        await asyncio.wait((answer, self._end), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise MqttError(self._end.result())

    def _new_id(self) -> int:
        self._next_id = self._next_id % 65535 + 1
        return self._next_id

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _keep_alive(self) -> None:
        assert self._transport is not None  # it was accepted
        silent = self._loop.time() - self._heard_at
        if silent > 2 * self._keepalive and self._transport.is_reading():
            self._abort(f"the broker was silent for {silent:.0f} s")
            return
        self._write(ping_packet())
        self._timer = self._loop.call_later(self._keepalive / 2, self._keep_alive)

    def _abort(self, reason: str) -> None:
        self._finish(reason)
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        _settle(self._end, reason)
        self._untaken.clear()
        self._taken.set()
        self._writable.set()


def _settle(future: asyncio.Future[R], result: R) -> None:
    if not future.done():
        future.set_result(result)

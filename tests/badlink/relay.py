"""A relay between a device and a server, in a thread of its own: it slows down, counts, and meddles with messages.

What it counts is what it has handed to the device's kernel, so it is the judge of what was fetched more often than
needed. A meddler sees every MQTT packet and says what goes on instead. Example::

    with Relay(broker.port, bytes_per_second=48_000) as relay:
        write_identity(data, signer, relay.port)
        …
    relay.down_bytes, relay.blocks[sha256]
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

PUBLISH, PUBACK = 3, 4
_HELD_SECONDS = 0.2
_ACKNOWLEDGED_SECONDS = 0.1  # longer than the kernel delays an acknowledgement
_LISTENS = "0A"  # TCP_LISTEN as /proc/net/tcp writes it
_PACKETS_BYTES = 4 * 1024  # what a slow link delivers at once
_BUFFER_BYTES = 16 * 1024  # small, so that what was handed over is not more than what is under way


@dataclass(frozen=True)
class Packet:
    """One MQTT packet as it stands on the wire."""

    raw: bytes
    body: int  # where the variable header begins

    @property
    def kind(self) -> int:
        """The packet type of MQTT 3.1.1, section 2.2.1."""
        return self.raw[0] >> 4

    @property
    def topic(self) -> str:
        """Of a PUBLISH."""
        length = int.from_bytes(self.raw[self.body : self.body + 2], "big")
        return self.raw[self.body + 2 : self.body + 2 + length].decode()

    @property
    def acknowledgement(self) -> bytes | None:
        """The PUBACK that a PUBLISH of QoS 1 wants."""
        if self.raw[0] >> 1 & 3 == 0:
            return None
        at = self.body + 2 + len(self.topic.encode())
        return b"\x40\x02" + self.raw[at : at + 2]


async def read_packet(reader: asyncio.StreamReader) -> Packet:
    """Read one packet. Raises :class:`asyncio.IncompleteReadError` at the end."""
    head = bytearray(await reader.readexactly(1))
    length = shift = 0
    while True:
        head += await reader.readexactly(1)
        length |= (head[-1] & 127) << shift
        shift += 7
        if head[-1] < 128:
            return Packet(bytes(head) + await reader.readexactly(length), len(head))


class Meddler:
    """A broker that drops, doubles and exchanges a share of the messages; it acknowledges what it drops."""

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._random = Random(seed)
        self._held: dict[str, Packet] = {}
        self.counts: Counter[str] = Counter()

    def __call__(self, direction: str, packet: Packet) -> tuple[Sequence[bytes], bytes | None]:
        """Return what to send on, and what to send back."""
        if packet.kind != PUBLISH:
            return [packet.raw], None
        held = self._held.pop(direction, None)
        after = [] if held is None else [held.raw]
        fate = int(self._random.random() / self._share)
        if fate == 0:
            self.counts["dropped"] += 1
            return after, packet.acknowledgement
        if fate == 1:
            self.counts["doubled"] += 1
            return [packet.raw, packet.raw, *after], None
        if fate == 2 and held is None:
            self.counts["exchanged"] += 1
            self._held[direction] = packet
            return [], None
        self.counts["passed on"] += 1
        return [packet.raw, *after], None

    def release(self, direction: str) -> bytes:
        """Return what was held back for an exchange with a message that did not come."""
        held = self._held.pop(direction, None)
        return b"" if held is None else held.raw


class Relay:
    """See the module."""

    def __init__(
        self,
        target: int,
        *,
        host: str = "127.0.0.1",
        bytes_per_second: float | None = None,
        meddler: Callable[[str, Packet], tuple[Sequence[bytes], bytes | None]] | None = None,
        speaks_mqtt: bool = True,
        only: bytes = b"",
        congestion: str = "",
        buffer_bytes: int = _BUFFER_BYTES,
    ) -> None:
        self._target = target
        self._host = host
        self.bytes_per_second = bytes_per_second
        self._meddler = meddler
        self._speaks_mqtt = speaks_mqtt
        self._only = only  # count the connections that begin with this
        self._congestion = congestion
        self._buffer_bytes = buffer_bytes
        self.down_bytes = 0
        self.connections = 0
        self.blocks: Counter[str] = Counter()  # by hash: how often the device was sent it
        self.port = 0
        self._uncounted: set[asyncio.StreamWriter] = set()
        self._may_send = threading.Event()
        self._may_send.set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._stop: asyncio.Event

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    @contextlib.contextmanager
    def holding_still(self) -> Iterator[None]:
        """Hand nothing more over while the block runs."""
        self._may_send.clear()
        try:
            yield
        finally:
            self._may_send.set()

    def unread_bytes(self) -> int:
        """Return what was handed over and the device has not read: it waits in a kernel, at this end or at the other.

        From ``/proc/net/tcp``: of IPv4, on this machine, in this network namespace. For a relay that holds still.
        """
        time.sleep(_ACKNOWLEDGED_SECONDS)  # what has arrived and is not acknowledged stands at both ends
        here = f":{self.port:04X}"
        unread = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, ours, theirs, state, queues, *_ = line.split()
            to_send, to_read = (int(size, 16) for size in queues.split(":"))
            if state != _LISTENS and ours.endswith(here):
                unread += to_send
            elif theirs.endswith(here):
                unread += to_read
        return unread

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._carry(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(accept, self._host, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._buffer_bytes)
        if self._congestion:
            name = self._congestion.encode("ascii")
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
        writer.transport.set_write_buffer_limits(0)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ways = (
            asyncio.ensure_future(self._pump("up", reader, back, writer)),
            asyncio.ensure_future(self._pump("down", there, writer, back)),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()
            back.transport.abort()

    async def _pump(
        self, direction: str, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Carry one direction until an end closes."""
        while True:
            if not self._speaks_mqtt:
                if not (piece := await reader.read(_BUFFER_BYTES)):
                    return
                if direction == "up" and not piece.startswith(self._only):
                    self._uncounted.add(back)
                await self._send(direction, onward, piece)
                continue
            packet = await read_packet(reader)
            if direction == "down" and packet.kind == PUBLISH and "/blocks/" in packet.topic:
                self.blocks[packet.topic.rpartition("/")[2]] += 1
            messages, answer = ([packet.raw], None) if self._meddler is None else self._meddler(direction, packet)
            if answer is not None:
                back.write(answer)
            for message in messages:
                await self._send(direction, onward, message)
            if isinstance(self._meddler, Meddler) and not messages:
                self._loop.call_later(_HELD_SECONDS, _release, self._meddler, direction, onward)

    async def _send(self, direction: str, writer: asyncio.StreamWriter, message: bytes) -> None:
        size = _BUFFER_BYTES if self.bytes_per_second is None else _PACKETS_BYTES
        for start in range(0, len(message), size):
            while not self._may_send.is_set():  # noqa: ASYNC110  # set by another thread
                await asyncio.sleep(0.001)
            piece = message[start : start + size]
            writer.write(piece)
            await writer.drain()
            if direction == "down" and writer not in self._uncounted:
                self.down_bytes += len(piece)
            if direction == "down" and self.bytes_per_second is not None:
                await asyncio.sleep(len(piece) / self.bytes_per_second)


def _release(meddler: Meddler, direction: str, onward: asyncio.StreamWriter) -> None:
    """Send what was held back, unless another message took it along."""
    if held := meddler.release(direction):
        onward.write(held)

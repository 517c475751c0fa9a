"""From MQTT to the database, in batches: decode, commit, and only then acknowledge.

While one batch is committed the next one gathers, so batches grow with the load and a message waits for two of them at
most. All but taking messages in happens on another thread. A malformed message is counted, by device and by kind,
logged once a device, never stored and never an exception. Example::

    ingest = Ingest(inbox, metrics)
    group.create_task(ingest.run(link.acknowledge))
    ingest.receive([("edgeopt/v1/devices/cam-7/telemetry", payload)])
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from edgeopt_contract.errors import MessageError, StorageError
from edgeopt_contract.messages import Ack, Reported, Status
from edgeopt_contract.topics import DeviceTopic
from edgeopt_fleet.decoding import Incoming, decode_incoming, kind_of
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.store.inbox import Inbox

__all__ = ["Ingest"]

Acknowledge = Callable[[dict[str, list[Ack]]], Awaitable[None]]
Raw = tuple[str, bytes]

_LOG = logging.getLogger(__name__)
_MOST_MESSAGES = 1000  # in one batch: what it touches lies in memory several times over
_GATHER_SECONDS = 0.02  # a lonely message waits so long for others
_FULL_MESSAGES = 10_000  # beyond it the connection is not read
_FULL_BYTES = 16 << 20
_DISK_RETRY_SECONDS = 1.0


class Ingest:
    """Takes messages in, stores them in batches, and acknowledges what is committed."""

    def __init__(self, inbox: Inbox, metrics: Metrics | None = None, clock: Callable[[], float] = time.time) -> None:
        self._inbox = inbox
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._queue: deque[Raw] = deque()
        self._queued_bytes = 0
        self._oldest = 0.0  # when the first message of the queue came, on the monotonic clock
        self._some = asyncio.Event()
        self._batch: asyncio.Task[bool] | None = None  # what is being stored; it outlives a cancelled run()
        self.malformed: Counter[str] = Counter()  # by device

    def receive(self, messages: Sequence[Raw]) -> bool:
        """Take messages in; say whether there is room for more, else not before the next acknowledgement."""
        if not self._queue:
            self._oldest = time.monotonic()
        self._queue.extend(messages)
        self._queued_bytes += sum(len(payload) for _, payload in messages)
        self._some.set()
        return len(self._queue) < _FULL_MESSAGES and self._queued_bytes < _FULL_BYTES

    async def run(self, acknowledge: Acknowledge) -> None:
        """Store, then acknowledge, until cancelled."""
        while True:
            await self._some.wait()
            if len(self._queue) < _MOST_MESSAGES:
                await asyncio.sleep(_GATHER_SECONDS)
            self._batch = asyncio.create_task(self._do_batch(acknowledge, _DISK_RETRY_SECONDS))
            await asyncio.shield(self._batch)

    async def drain(self, acknowledge: Acknowledge) -> None:
        """Store and acknowledge what was taken in, then return; for an orderly end, after :meth:`run` was cancelled.

        What cannot be stored, because the disk is full or the role is another's, is left to the devices: they send it
        again.
        """
        stored = self._batch is None or await self._batch
        while stored and self._queue:
            stored = await self._do_batch(acknowledge)

    async def _do_batch(self, acknowledge: Acknowledge, retry_seconds: float = 0.0) -> bool:
        """Store and acknowledge one batch; say whether that went well, after ``retry_seconds`` if not."""
        batch = list(islice(self._queue, _MOST_MESSAGES))
        for _ in batch:
            self._queued_bytes -= len(self._queue.popleft()[1])
        oldest, self._oldest = self._oldest, time.monotonic()
        if not self._queue:
            self._some.clear()
        try:
            acks = await asyncio.to_thread(self._store, batch)
        except StorageError:
            # Not acknowledged, so the devices keep these messages and send them again.
            _LOG.exception("could not store %d messages", len(batch))
            self._metrics.ingest_failures.inc()
            await asyncio.sleep(retry_seconds)
            await acknowledge({})
            return False
        self._metrics.ingest_lag_seconds.observe(time.monotonic() - oldest)
        await acknowledge(acks)
        return True

    def _store(self, batch: Sequence[Raw]) -> dict[str, list[Ack]]:
        """Decode and commit; on a thread of its own."""
        decoded: list[Incoming] = []
        malformed: Counter[str] = Counter()
        for topic, payload in batch:
            try:
                decoded.append(decode_incoming(topic, payload))
            except MessageError as error:
                self._count_malformed(topic, error, malformed)
        started = time.monotonic()
        acks = self._inbox.store(decoded, self._clock(), malformed)
        self._metrics.ingest_batch_seconds.observe(time.monotonic() - started)
        kinds = Counter(_kind(message) for message in decoded)
        for kind, count in kinds.items():
            self._metrics.ingest_messages.labels(type=kind).inc(count)
        return acks

    def _count_malformed(self, topic: str, error: MessageError, malformed: Counter[str]) -> None:
        self._metrics.ingest_malformed.labels(type=kind_of(topic)).inc()
        try:
            device = DeviceTopic.parse(topic).device
        except MessageError:
            _LOG.warning("ignored a message: %s", error)
            return
        malformed[device] += 1
        self.malformed[device] += 1
        if self.malformed[device] == 1:
            _LOG.warning("device %s sends malformed messages; the first: %s", device, error)


def _kind(message: Incoming) -> str:
    if isinstance(message.record, Status):
        return "status"
    return "reported" if isinstance(message.record, Reported) else "telemetry"

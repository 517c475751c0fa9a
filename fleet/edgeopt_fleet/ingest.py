"""From MQTT to the database, in batches: decode, commit, and only then acknowledge.

A malformed message is counted and logged once a device; it is never stored and never an exception. Example::

    ingest = Ingest(inbox, serial)
    group.create_task(ingest.run(link.acknowledge))
    await ingest.receive("edgeopt/v1/devices/cam-7/telemetry", payload)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from edgeopt_contract.codec import decode
from edgeopt_contract.errors import MessageError, StorageError
from edgeopt_contract.messages import Ack, Reported, Status, Telemetry
from edgeopt_contract.topics import Channel, DeviceTopic
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.inbox import Inbox, Incoming

__all__ = ["Ingest"]

Acknowledge = Callable[[dict[str, list[Ack]]], Awaitable[None]]

_LOG = logging.getLogger(__name__)
_MOST_MESSAGES = 500
_LONGEST_SECONDS = 0.05
_QUEUE_MESSAGES = 5000  # beyond it the connection is read more slowly
_DISK_RETRY_SECONDS = 1.0


class Ingest:
    """Takes messages in, stores them in batches, and acknowledges what is committed."""

    def __init__(self, inbox: Inbox, serial: Serial, clock: Callable[[], float] = time.time) -> None:
        self._inbox = inbox
        self._serial = serial
        self._clock = clock
        self._queue: asyncio.Queue[Incoming] = asyncio.Queue(_QUEUE_MESSAGES)
        self.malformed: Counter[str] = Counter()  # by device

    async def receive(self, topic: str, payload: bytes) -> None:
        """Take one message; waits while too many others wait."""
        try:
            parsed = DeviceTopic.parse(topic)
        except MessageError as error:
            _LOG.warning("ignored a message: %s", error)
            return
        try:
            await self._queue.put(Incoming(device=parsed.device, record=_decode(parsed, payload)))
        except MessageError as error:
            self.malformed[parsed.device] += 1
            if self.malformed[parsed.device] == 1:
                _LOG.warning("device %s sends malformed messages; the first: %s", parsed.device, error)

    async def run(self, acknowledge: Acknowledge) -> None:
        """Store, then acknowledge, until cancelled."""
        while True:
            acks = await self._store(await self._next_batch())
            await acknowledge(acks)

    async def _next_batch(self) -> list[Incoming]:
        """Wait for a message, then take what else comes in a moment."""
        batch = [await self._queue.get()]
        end = asyncio.get_running_loop().time() + _LONGEST_SECONDS
        try:
            async with asyncio.timeout_at(end):
                while len(batch) < _MOST_MESSAGES:
                    batch.append(await self._queue.get())
        except TimeoutError:
            pass  # the moment is over
        return batch

    async def _store(self, batch: list[Incoming]) -> dict[str, list[Ack]]:
        try:
            return await self._serial(self._inbox.store, batch, self._clock())
        except StorageError:
            # Not acknowledged, so the devices keep these messages and send them again.
            _LOG.exception("could not store %d messages", len(batch))
            await asyncio.sleep(_DISK_RETRY_SECONDS)
            return {}


def _decode(topic: DeviceTopic, payload: bytes) -> Reported | Telemetry | Status:
    if topic.channel is Channel.REPORTED:
        return decode(Reported, payload)
    if topic.channel is Channel.TELEMETRY:
        return decode(Telemetry, payload)
    if topic.channel is not Channel.STATUS:
        raise MessageError(f"expected a message of a device, got one on {topic}")
    status = decode(Status, payload)
    if status.device != topic.device:
        raise MessageError(f"expected the status of {topic.device}, got that of {status.device}")
    return status

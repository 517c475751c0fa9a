"""Sends what the spool holds until the fleet acknowledges it.

At most ``_WINDOW`` of the oldest messages are on their way, so that no broker's queue overflows; they are sent again
after each reconnect, and when no acknowledgement came for a while. Example::

    outbox = Outbox(spool, link, "cam-1", resend_seconds=10)
    task = asyncio.create_task(outbox.run())
    outbox.wake()                                  # something was spooled or acknowledged
"""

from __future__ import annotations

import asyncio
import logging
import time

from edgeopt_agent.link import Link
from edgeopt_agent.log import log_event
from edgeopt_agent.spool import Spool
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import MessageError, StorageError, UnreachableError
from edgeopt_contract.messages import Ack
from edgeopt_contract.topics import DeviceTopic

__all__ = ["Outbox"]

_WINDOW = 64


class Outbox:
    """See the module."""

    def __init__(self, spool: Spool, link: Link, device: str, *, resend_seconds: float) -> None:
        self._spool = spool
        self._link = link
        self._device = device
        self._resend_seconds = resend_seconds
        self._sent = 0
        self._progress_at = time.monotonic()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look into the spool now."""
        self._wake.set()

    def start_over(self) -> None:
        """Send everything that is not acknowledged again: the connection is new."""
        self._sent = 0
        self._progress_at = time.monotonic()
        self.wake()

    def receive_ack(self, payload: bytes) -> None:
        """Forget what the fleet has committed. A malformed ack is logged and changes nothing."""
        try:
            forgotten = self._spool.acknowledge(decode(Ack, payload))
        except (MessageError, StorageError) as error:
            log_event("ack_refused", level=logging.WARNING, reason=error)
            return
        if forgotten:
            self._progress_at = time.monotonic()
            self.wake()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._link.wait_until_connected()
            self._wake.clear()
            try:
                await self._send_waiting()
            except (UnreachableError, StorageError) as error:
                log_event("not_sent", level=logging.WARNING, reason=error)
                await asyncio.sleep(min(1.0, self._resend_seconds))
                continue
            try:
                async with asyncio.timeout(self._resend_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue  # look whether something has waited too long

    async def _send_waiting(self) -> None:
        waiting = self._spool.unacknowledged(_WINDOW)
        if time.monotonic() - self._progress_at >= self._resend_seconds:
            self._sent = 0
            self._progress_at = time.monotonic()
        for message in waiting:
            if message.number > self._sent:
                await self._link.publish(str(DeviceTopic(self._device, message.channel)), message.payload)
                self._sent = message.number

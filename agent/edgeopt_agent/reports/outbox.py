"""Sends what the spool holds until the fleet acknowledges it.

At most ``AHEAD`` of the oldest messages are on their way, so that no broker's queue overflows; they are sent again
after each reconnect, and when no acknowledgement came for a while. Example::

    outbox = Outbox(spool, clerk, link, "cam-1", resend_seconds=10)
    task = asyncio.create_task(outbox.run())
    outbox.wake()                                  # something was spooled or acknowledged
"""

from __future__ import annotations

import asyncio
import logging
import time

from edgeopt_agent.log import log_event
from edgeopt_agent.mqtt.link import Link
from edgeopt_agent.reports.clerk import Clerk
from edgeopt_agent.reports.spool import AHEAD, Spool
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import MessageError, StorageError, UnreachableError
from edgeopt_contract.messages import Ack
from edgeopt_contract.topics import DeviceTopic

__all__ = ["Outbox"]


class Outbox:
    """See the module."""

    def __init__(self, spool: Spool, clerk: Clerk, link: Link, device: str, *, resend_seconds: float) -> None:
        self._spool = spool
        self._clerk = clerk
        self._link = link
        self._device = device
        self._resend_seconds = resend_seconds
        self._sent_at: dict[int, float] = {}  # by number, of what is on its way
        self._announce = False
        self._wake = asyncio.Event()
        self._forgetting: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Look into the spool now."""
        self._wake.set()

    def announce(self) -> None:
        """Publish the birth again soon: what it says has changed."""
        self._announce = True
        self.wake()

    def start_over(self) -> None:
        """Send everything that is not acknowledged again: the connection is new."""
        self._sent_at.clear()
        self._announce = False  # the connection began with a birth
        self.wake()

    def receive_ack(self, payload: bytes) -> None:
        """Forget what the fleet has committed, soon. A malformed ack is logged and changes nothing."""
        try:
            ack = decode(Ack, payload)
        except MessageError as error:
            log_event("ack_refused", level=logging.WARNING, reason=error)
            return
        forgetting = asyncio.create_task(self._forget(ack))
        self._forgetting.add(forgetting)
        forgetting.add_done_callback(self._forgetting.discard)

    async def _forget(self, ack: Ack) -> None:
        try:
            forgotten = await self._clerk.do(self._clerk.spool.acknowledge, ack, time.time())
        except StorageError as error:
            log_event("ack_refused", level=logging.WARNING, reason=error)
            return
        if forgotten:
            self.wake()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._link.wait_until_connected()
            self._wake.clear()
            if self._announce:
                self._announce = False
                await self._link.announce()
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
        """Send what was not sent, or sent too long ago: acknowledgements of later numbers say nothing of a gap."""
        waiting = self._spool.unacknowledged(AHEAD)
        sent_at = {message.number: self._sent_at.get(message.number) for message in waiting}
        self._sent_at = {number: at for number, at in sent_at.items() if at is not None}
        for message in waiting:
            at = sent_at[message.number]
            if at is None or time.monotonic() - at >= self._resend_seconds:
                await self._link.publish(str(DeviceTopic(self._device, message.channel)), message.payload)
                self._sent_at[message.number] = time.monotonic()

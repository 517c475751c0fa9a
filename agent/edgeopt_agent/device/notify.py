"""Tells systemd that the agent is ready and alive, by its own protocol (sd_notify(3)), without its library.

The sign of life comes from the event loop: a loop that is stuck gives none, and systemd starts the agent again. Outside
systemd nothing happens. Example::

    notifier = Notifier(os.environ)
    notifier.tell("READY=1")
    await notifier.run()                         # a sign of life every half of WatchdogSec, until cancelled
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping

__all__ = ["Notifier"]


class Notifier:
    """See the module."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{path[1:]}" if path.startswith("@") else path  # @: the abstract name space, unix(7)
        microseconds = environment.get("WATCHDOG_USEC", "")
        self._watchdog_seconds = int(microseconds) / 1e6 if microseconds.isdigit() else None

    def tell(self, state: str) -> None:
        """Send ``state``; nobody who listens is no fault."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), self._address)

    async def run(self) -> None:
        """Give signs of life until cancelled."""
        self.tell("READY=1")
        while self._watchdog_seconds:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / 2)

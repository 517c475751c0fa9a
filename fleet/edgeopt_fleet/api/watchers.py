"""What all streams of one process share: how many there are, and where the feed of changes ends.

However many watch, the database is asked for its end four times a second, and once more for each that begins. Example::

    with watchers.counted():
        end = await watchers.end(serial, feed, now_at_least=True)
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from edgeopt_fleet.problems import BusyError
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.feed import Feed, Position

__all__ = ["POLL_SECONDS", "Watchers"]

POLL_SECONDS = 0.25


class Watchers:
    """The streams of one process."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._streams = 0
        self._end = Position(0)
        self._looked_at = float("-inf")

    def check_room(self) -> None:
        """Raise :class:`BusyError` when no further stream can be served here."""
        if self._streams >= self._most:
            raise BusyError(f"{self._most} streams are open already; close one, or ask another API process")

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count a stream while it is open."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def end(self, serial: Serial, feed: Feed, *, now_at_least: bool) -> Position:
        """Return where the feed ends: now, or as it was a moment ago at the earliest."""
        now = time.monotonic()
        if now_at_least or now - self._looked_at >= POLL_SECONDS:
            self._looked_at = now
            self._end = await serial.read(feed.position)
        return self._end

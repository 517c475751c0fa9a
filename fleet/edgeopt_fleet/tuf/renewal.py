"""Signs online metadata again before they expire, and lets the broker know whenever they have changed.

Example::

    group.create_task(Renewal(repository, serial, link.announce).run())
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.tuf.repository import Repository

__all__ = ["Renewal"]

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0  # also how soon a change by 'edgeopt-fleet keys' is published


class Renewal:
    """Looks at the metadata again and again."""

    def __init__(
        self,
        repository: Repository,
        serial: Serial,
        announce: Callable[[Collection[str]], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._repository = repository
        self._serial = serial
        self._announce = announce
        self._clock = clock
        self._announced = 0

    async def run(self) -> None:
        """Look until cancelled. A failing disk is logged and tried again."""
        while True:
            try:
                await self.look()
            except StorageError:
                _LOG.exception("the metadata could not be renewed")
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Renew what is due, and publish what is new since the last look."""
        version = await self._serial(self._repository.renew, self._clock())
        if version != self._announced:
            await self._announce(())
            self._announced = version

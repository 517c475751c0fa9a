"""What devices ask for again and again, kept in memory while nothing has changed.

Who a bearer belongs to is remembered with the number that the identities had when it was read
(:mod:`edgeopt_fleet.store.changes`). The number is looked at every half second while devices ask; a change that this
process makes itself counts at once, one of another process within that time, and when the database does not answer
for two seconds nothing is remembered any more. Bearers that are unknown, expired or revoked are never remembered.
The same holds for the metadata. Example::

    reads = DeviceReads(services)
    found = await reads.bearer("…", now)         # Bearer(device='cam-7', valid=True, …), or None
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from fastapi import Request

from edgeopt_contract.errors import StorageError
from edgeopt_contract.values import digest_of
from edgeopt_fleet.api.services import Services
from edgeopt_fleet.store.changes import Counter
from edgeopt_fleet.store.identities import Bearer
from edgeopt_fleet.tuf.views import Message

__all__ = ["DeviceReads", "reads_of"]

_LOOK_SECONDS = 0.5
_TRUST_SECONDS = 2.0  # beyond it nothing is answered from memory
_MOST_BEARERS = 50_000  # about 20 MB


class DeviceReads:
    """Answers from memory; for one event loop. ``clock`` never goes back."""

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._numbers: Mapping[Counter, int] = dict.fromkeys(Counter, 0)
        self._looked = float("-inf")  # when the look began that brought the numbers
        self._looking: asyncio.Task[None] | None = None
        self._bearers: OrderedDict[str, Bearer] = OrderedDict()  # by digest
        self._metadata = Message(change=-1, payload=b"")

    async def bearer(self, bearer: str, now: int) -> Bearer | None:
        """Return whose bearer this is. Raises :class:`StorageError`."""
        digest = digest_of(bearer.encode("utf-8", "surrogatepass"))
        kept = self._bearers.get(digest)
        if kept is not None and now < kept.valid_until and await self._stands(kept.change, Counter.IDENTITIES):
            return kept
        found = await self._services.serial.read(self._services.identities.bearer, bearer, now)
        if found is not None and found.valid:
            self._bearers[digest] = found
            self._bearers.move_to_end(digest)
            if len(self._bearers) > _MOST_BEARERS:
                self._bearers.popitem(last=False)
        return found

    async def metadata(self) -> bytes:
        """Return the payload of the topic ``tuf``. Raises :class:`StorageError`."""
        if not await self._stands(self._metadata.change, Counter.METADATA):
            self._metadata = await self._services.serial.read(self._services.metadata.numbered)
        return self._metadata.payload

    async def _stands(self, change: int, counter: Counter) -> bool:
        """Say whether nothing has changed since ``change``; not, when the database has not told so for too long."""
        if self._looking is None and self._clock() - self._looked > _LOOK_SECONDS:
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None and self._clock() - self._looked > _TRUST_SECONDS:
            await asyncio.shield(self._looking)
        if self._clock() - self._looked > _TRUST_SECONDS:
            return False
        own = self._services.identities if counter is Counter.IDENTITIES else self._services.metadata
        return change >= max(self._numbers[counter], own.newest)

    async def _look(self) -> None:
        began = self._clock()
        try:
            numbers = await self._services.serial.read(self._services.identities.changes)
        except StorageError:  # nothing is remembered soon, and whoever asks next is told
            pass
        else:
            self._numbers, self._looked = numbers, began
        finally:
            self._looking = None


def reads_of(request: Request) -> DeviceReads:
    """Return what the application that answers ``request`` remembers."""
    reads = request.app.state.reads
    assert isinstance(reads, DeviceReads)
    return reads

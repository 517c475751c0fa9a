"""What devices ask for again and again, kept in memory while nothing has changed.

Who the bearers belong to is read at the start, and after that what has changed, every half second while devices ask:
an enrolment or a renewal costs a row, not what is known of all others (:mod:`edgeopt_fleet.store.changes`). A change
that this process makes itself counts at once, one of another process within that half second, and when the database
does not answer for two seconds nothing is remembered any more. Bearers that are unknown, expired or revoked are never
remembered. Metadata are kept likewise. Example::

    reads = DeviceReads(services)
    await reads.look()                           # at the start; without it, the first devices wait for the database
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
from edgeopt_fleet.store.bearers import Bearer
from edgeopt_fleet.store.changes import Counter
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
        self._numbers: Mapping[Counter, int] = {}  # empty before the first look
        self._looked = float("-inf")  # when the look began that brought the numbers
        self._looking: asyncio.Task[None] | None = None
        self._bearers: OrderedDict[str, Bearer] = OrderedDict()  # by digest
        self._first = 0  # the number at the first look, which brought no changes before it
        self._changed: dict[str, int] = {}  # the number of each device's newest change after it
        self._metadata = Message(change=-1, payload=b"")

    async def bearer(self, bearer: str, now: int) -> Bearer | None:
        """Return whose bearer this is. Raises :class:`StorageError`."""
        digest = digest_of(bearer.encode("utf-8", "surrogatepass"))
        self._look_if_due()
        kept = self._bearers.get(digest)
        if kept is not None and now < kept.valid_until and await self._is_current() and self._stands(kept):
            return kept
        found = await self._services.serial.read(self._services.bearers.whose, bearer, now)
        if found is not None and found.valid:
            self._keep(digest, found)
        return found

    async def metadata(self) -> bytes:
        """Return the payload of the topic ``tuf``. Raises :class:`StorageError`."""
        self._look_if_due()
        current = await self._is_current()
        newest = max(self._numbers.get(Counter.METADATA, 0), self._services.metadata.newest)
        if not current or self._metadata.change < newest:
            self._metadata = await self._services.serial.read(self._services.metadata.numbered)
        return self._metadata.payload

    async def look(self) -> None:
        """Read what has changed; the first time, all that there is. If the database fails, what is known grows old."""
        began = self._clock()
        bearers, read = self._services.bearers, self._services.serial.read
        try:
            if self._numbers:
                found = await read(bearers.since, self._numbers[Counter.IDENTITIES])
            else:
                found = await read(bearers.worthy, _MOST_BEARERS)
                self._first = found.numbers[Counter.IDENTITIES]
        except StorageError:  # nothing is remembered soon, and whoever asks next is told
            return
        for digest, bearer in reversed(found.bearers.items()):
            if self._numbers:
                self._changed[bearer.device] = bearer.change
            if bearer.valid:
                self._keep(digest, bearer)
        self._numbers, self._looked = found.numbers, began

    def _look_if_due(self) -> None:
        if self._looking is None and self._clock() - self._looked > _LOOK_SECONDS:
            self._looking = asyncio.create_task(self._look_beside())

    async def _look_beside(self) -> None:
        try:
            await self.look()
        finally:
            self._looking = None

    async def _is_current(self) -> bool:
        """Say whether the database has told what has changed lately enough; wait for it when it is about to."""
        if self._looking is not None and self._clock() - self._looked > _TRUST_SECONDS:
            await asyncio.shield(self._looking)
        return self._clock() - self._looked <= _TRUST_SECONDS

    def _stands(self, kept: Bearer) -> bool:
        """Say whether nothing that is known has changed the device's identities since it was read."""
        own = self._services.identities.changed.get(kept.device, 0)
        return kept.change >= max(self._first, self._changed.get(kept.device, 0), own)

    def _keep(self, digest: str, bearer: Bearer) -> None:
        self._bearers[digest] = bearer
        self._bearers.move_to_end(digest)
        if len(self._bearers) > _MOST_BEARERS:
            self._bearers.popitem(last=False)


def reads_of(request: Request) -> DeviceReads:
    """Return what the application that answers ``request`` remembers."""
    reads = request.app.state.reads
    assert isinstance(reads, DeviceReads)
    return reads

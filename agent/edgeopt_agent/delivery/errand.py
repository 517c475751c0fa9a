"""What one delivery has still to bring, and the one gate through which every block comes onto the disk.

It verifies, writes and counts; how a block travels is the carriers' affair. Example::

    errand = Errand(bundle, wanted, incoming, counts, entries)
    good = await errand.take(wanted[0], payload)          # False: damaged, still missing
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeopt_agent.delivery.store import Incoming
from edgeopt_agent.log import log_event
from edgeopt_contract.manifest import FileEntry
from edgeopt_contract.values import digest_of

__all__ = ["DeliveryCounts", "Errand", "Wanted"]


@dataclass(slots=True)
class DeliveryCounts:
    """What one delivery cost."""

    fetched: int = 0
    fetched_bytes: int = 0
    resumed: int = 0  # fetched before an interruption
    reused: int = 0  # found in a slot
    damaged: int = 0  # came with the wrong bytes, and were asked for again
    unanswered: int = 0  # did not come, and were asked for again

    def __str__(self) -> str:
        return (
            f"fetched {self.fetched} blocks ({self.fetched_bytes} bytes), resumed {self.resumed}, "
            f"reused {self.reused}, refetched {self.damaged} damaged and {self.unanswered} unanswered"
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """One block, or a manifest, whose size nobody has told yet: ``exact`` is false, and the size is a limit."""

    sha256: str
    size: int
    exact: bool = True

    def is_good(self, data: bytes) -> bool:
        """Say whether ``data`` is what is wanted."""
        fits = len(data) == self.size if self.exact else len(data) <= self.size
        return fits and digest_of(data) == self.sha256


@dataclass(slots=True)
class Errand:
    """Blocks to bring; ``entries`` are the files of the bundle that they are part of, none for the manifest itself."""

    bundle: str
    wanted: Sequence[Wanted]
    incoming: Incoming
    counts: DeliveryCounts
    entries: Sequence[FileEntry] = ()
    _missing: dict[str, Wanted] = field(init=False)
    _syncing: asyncio.Task[None] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._missing = {wanted.sha256: wanted for wanted in self.wanted}

    @property
    def missing(self) -> list[Wanted]:
        """What has still to come, in the order of the files."""
        return list(self._missing.values())

    async def take(self, wanted: Wanted, data: bytes) -> bool:
        """Keep ``data`` if it is good; say whether it was. Raises :class:`StorageError`."""
        if not wanted.is_good(data):
            self.refuse(wanted, len(data))
            return False
        await asyncio.to_thread(self.incoming.write, wanted.sha256, data)
        await self.keep(wanted, len(data))
        return True

    async def keep(self, wanted: Wanted, size: int) -> None:
        """Count a block that is written and let it be synced while the next one comes.

        Returns when the block before it is safe, so a power cut costs one block at most. Raises `StorageError`.
        """
        if self._missing.pop(wanted.sha256, None) is not None:
            self.counts.fetched += 1
            self.counts.fetched_bytes += size
        before = self._syncing
        self._syncing = asyncio.create_task(asyncio.to_thread(self.incoming.sync, wanted.sha256))
        if before is not None:
            await before

    async def settle(self) -> None:
        """Return when the last block is safe, or nothing more is done to it. Raises :class:`StorageError`."""
        last, self._syncing = self._syncing, None
        if last is not None:
            await last

    def refuse(self, wanted: Wanted, size: int) -> None:
        """Note that ``wanted`` came damaged."""
        self.counts.damaged += 1
        log_event("block_damaged", level=logging.WARNING, block=wanted.sha256[:12], bytes=size)

"""Fetching a bundle: the manifest and the blocks that this device lacks, each verified against its hash.

Blocks are kept in ``DATA/incoming/<sha256>`` until the bundle is put together, so a device that was cut off asks only
for what is missing. Blocks inside the files of either slot are not fetched at all. It asks again, with growing pauses,
for what does not come or comes damaged, for as long as the update lives: only the life cycle gives up. Example::

    delivery = Delivery(link, slots, DeliveryOptions(incoming=data / "incoming"), capabilities)
    counts = await delivery.fetch(desired.bundle)
    await asyncio.to_thread(slots.fill, "b", delivery.manifest_bytes(desired.bundle), delivery.read)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from edgeopt_agent.backoff import full_jitter
from edgeopt_agent.log import log_event
from edgeopt_agent.slots import BlockPlace, Slots
from edgeopt_contract.blocks import MAX_BLOCK_BYTES, Block
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError, StorageError, UnreachableError
from edgeopt_contract.manifest import Capabilities, Manifest
from edgeopt_contract.storage import storage_errors, write_atomically
from edgeopt_contract.topics import Topics
from edgeopt_contract.values import digest_of

__all__ = ["BlockSource", "Delivery", "DeliveryCounts", "DeliveryOptions"]

_WINDOW = 8


class BlockSource(Protocol):
    """Where blocks come from; :class:`edgeopt_agent.link.Link` is one."""

    async def wait_until_connected(self) -> None:
        """Return when there is a connection."""
        ...

    async def fetch(self, topic: str, timeout_seconds: float) -> bytes:
        """Return what is published on ``topic``, or raise :class:`UnreachableError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOptions:
    """Where to keep blocks, and how patient to be."""

    incoming: Path
    block_timeout_seconds: float = 10.0
    retry_base_seconds: float = 0.2
    retry_cap_seconds: float = 10.0
    disk_reserve_bytes: int = 16 << 20


@dataclass(slots=True)
class DeliveryCounts:
    """What one delivery cost."""

    fetched: int = 0
    fetched_bytes: int = 0
    resumed: int = 0  # fetched before an interruption
    reused: int = 0  # found in a slot
    damaged: int = 0  # came with the wrong bytes, and were asked for again
    unanswered: int = 0  # did not come in time, and were asked for again

    def __str__(self) -> str:
        return (
            f"fetched {self.fetched} blocks ({self.fetched_bytes} bytes), resumed {self.resumed}, "
            f"reused {self.reused}, refetched {self.damaged} damaged and {self.unanswered} unanswered"
        )


class Delivery:
    """See the module."""

    def __init__(
        self,
        source: BlockSource,
        slots: Slots,
        options: DeliveryOptions,
        capabilities: Capabilities,
        random: Random,
    ) -> None:
        self._source = source
        self._slots = slots
        self._options = options
        self._capabilities = capabilities
        self._random = random
        self._places: dict[str, list[BlockPlace]] = {}

    async def fetch(self, bundle: str) -> DeliveryCounts:
        """Bring everything that this device needs of ``bundle`` onto the disk.

        Raises :class:`MessageError` or :class:`BundleError` for a manifest that this device can never use, and
        :class:`StorageError` when the disk is too small or fails.
        """
        counts = DeliveryCounts()
        with storage_errors(self._options.incoming):
            self._options.incoming.mkdir(parents=True, exist_ok=True)
        if not self._has(bundle):
            await self._obtain(bundle, Manifest.MAX_BYTES, counts)
        manifest = decode(Manifest, self.manifest_bytes(bundle))
        entries = manifest.files_for(manifest.variant_for(self._capabilities))
        wanted = {block.sha256: block for entry in entries for block in entry.blocks}
        missing = await asyncio.to_thread(self._plan, wanted, bundle, counts)
        self._check_disk(sum(block.size for block in missing) + sum(entry.size for entry in entries))
        log_event("delivery", bundle=bundle, blocks=len(wanted), missing=len(missing))
        await self._obtain_all(missing, counts)
        return counts

    def manifest_bytes(self, bundle: str) -> bytes:
        """Return the manifest of ``bundle``, once fetched. Raises :class:`BundleError` when it is not there."""
        path = self._options.incoming / bundle
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(f"the manifest of {bundle[:12]} is not on the disk: {error.strerror}") from error
        if digest_of(data) != bundle:
            raise BundleError(f"the manifest of {bundle[:12]} was damaged on the disk")
        return data

    def read(self, block: Block) -> bytes:
        """Return a block from the disk; empty when it is nowhere (the caller checks the hash)."""
        with contextlib.suppress(OSError):
            return (self._options.incoming / block.sha256).read_bytes()
        return self._read_from_slots(block.sha256)

    def clear(self) -> None:
        """Remove everything that was fetched. Raises :class:`StorageError`."""
        with storage_errors(self._options.incoming):
            if self._options.incoming.exists():
                shutil.rmtree(self._options.incoming)

    # --- planning -------------------------------------------------------------------------------------------------

    def _plan(self, wanted: dict[str, Block], bundle: str, counts: DeliveryCounts) -> list[Block]:
        """Return the blocks that are nowhere on this device; forget blocks of other bundles."""
        self._places = self._slots.block_places()
        missing = []
        for path in self._options.incoming.iterdir():
            if path.name not in wanted and path.name != bundle:
                path.unlink()
        for sha256, block in wanted.items():
            if self._has(sha256):
                counts.resumed += 1
            elif self._read_from_slots(sha256):
                counts.reused += 1
            else:
                missing.append(block)
        return missing

    def _has(self, sha256: str) -> bool:
        with contextlib.suppress(OSError):
            return digest_of((self._options.incoming / sha256).read_bytes()) == sha256
        return False

    def _read_from_slots(self, sha256: str) -> bytes:
        for place in self._places.get(sha256, ()):
            data = place.read()
            if digest_of(data) == sha256:
                return data
        return b""

    def _check_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self._options.incoming).free
        wanted = needed + self._options.disk_reserve_bytes
        if free < wanted:
            raise StorageError(
                f"expected {wanted} bytes free in {self._options.incoming} for the download and the new slot, "
                f"got {free}: free some space and roll out again"
            )

    # --- asking ---------------------------------------------------------------------------------------------------

    async def _obtain_all(self, missing: Iterable[Block], counts: DeliveryCounts) -> None:
        """Obtain ``missing`` with ``_WINDOW`` subscriptions at a time."""
        queue = iter(missing)

        async def worker() -> None:
            for block in queue:
                await self._obtain(block.sha256, min(block.size, MAX_BLOCK_BYTES), counts)

        async with asyncio.TaskGroup() as group:
            for _ in range(_WINDOW):
                group.create_task(worker())

    async def _obtain(self, sha256: str, limit_bytes: int, counts: DeliveryCounts) -> None:
        """Ask for one block until it has come whole, and keep it."""
        attempt = 0
        while True:
            await self._source.wait_until_connected()
            try:
                data = await self._source.fetch(Topics.block(sha256), self._options.block_timeout_seconds)
            except UnreachableError as error:
                counts.unanswered += 1
                log_event("block_unanswered", level=logging.WARNING, block=sha256[:12], reason=error)
            else:
                if len(data) <= limit_bytes and digest_of(data) == sha256:
                    await asyncio.to_thread(write_atomically, self._options.incoming / sha256, data)
                    counts.fetched += 1
                    counts.fetched_bytes += len(data)
                    return
                counts.damaged += 1
                log_event("block_damaged", level=logging.WARNING, block=sha256[:12], bytes=len(data))
            await asyncio.sleep(
                full_jitter(
                    attempt,
                    base_seconds=self._options.retry_base_seconds,
                    cap_seconds=self._options.retry_cap_seconds,
                    random=self._random,
                )
            )
            attempt += 1

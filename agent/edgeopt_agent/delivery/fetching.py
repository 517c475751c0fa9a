"""Fetching a bundle: the manifest and the blocks that this device lacks, each verified against its hash.

Blocks are kept in ``DATA/incoming/<sha256>`` until the bundle is put together, so a device that was cut off asks only
for what is missing. Blocks inside the files of either slot are not fetched at all. Carriers (MQTT, HTTP) bring them,
in turn where one fails, for as long as the update lives: only the life cycle gives up. Example::

    delivery = Delivery(carriers, slots, DeliveryOptions(incoming=data / "incoming"), capabilities, Random())
    counts = await delivery.fetch(desired.bundle)
    await asyncio.to_thread(slots.fill, "b", delivery.manifest_bytes(desired.bundle), delivery.read)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from edgeopt_agent.delivery.errand import DeliveryCounts, Errand, Wanted
from edgeopt_agent.delivery.store import Incoming
from edgeopt_agent.log import log_event
from edgeopt_agent.mqtt.backoff import full_jitter
from edgeopt_agent.update.slots import BlockPlace, Slots
from edgeopt_contract.blocks import Block
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError, StorageError, UnreachableError
from edgeopt_contract.manifest import Capabilities, Manifest
from edgeopt_contract.values import digest_of

__all__ = ["Carrier", "Delivery", "DeliveryCounts", "DeliveryOptions"]


class Carrier(Protocol):
    """One way by which blocks come."""

    @property
    def name(self) -> str:
        """For the log."""
        ...

    async def bring(self, errand: Errand) -> None:
        """Bring what ``errand`` misses. Raises :class:`UnreachableError` when this way does not lead there now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryOptions:
    """Where to keep blocks, how much of the disk to leave alone, and how long to pause when no way leads there."""

    incoming: Path
    disk_reserve_bytes: int = 16 << 20
    retry_base_seconds: float = 0.5
    retry_cap_seconds: float = 30.0


class Delivery:
    """See the module."""

    def __init__(
        self,
        carriers: Sequence[Carrier],
        slots: Slots,
        options: DeliveryOptions,
        capabilities: Capabilities,
        random: Random,
    ) -> None:
        self._carriers = tuple(carriers)
        self._slots = slots
        self._options = options
        self._capabilities = capabilities
        self._random = random
        self._incoming = Incoming(options.incoming)
        self._places: dict[str, list[BlockPlace]] = {}

    async def fetch(self, bundle: str, manifest_limit: int = Manifest.MAX_BYTES) -> DeliveryCounts:
        """Bring everything that this device needs of ``bundle`` onto the disk; no manifest above its limit in bytes.

        Raises :class:`MessageError` or :class:`BundleError` for a manifest that this device can never use, and
        :class:`StorageError` when the disk is too small or fails; then what was fetched is removed, because a device
        whose disk is full has worse to fear than a second download.
        """
        try:
            return await self._fetch(bundle, manifest_limit)
        except StorageError:
            with contextlib.suppress(StorageError):
                await asyncio.to_thread(self._incoming.clear)
            raise

    def manifest_bytes(self, bundle: str) -> bytes:
        """Return the manifest of ``bundle``, once fetched. Raises :class:`BundleError` when it is not there."""
        data = self._read(bundle)
        if not data:
            raise BundleError(f"the manifest of {bundle[:12]} is not on the disk, or was damaged there: roll out again")
        return data

    def read(self, block: Block) -> bytes:
        """Return a block from the disk; empty when it is nowhere (the caller checks the hash)."""
        return self._read(block.sha256)

    def clear(self) -> None:
        """Remove everything that was fetched. Raises :class:`StorageError`."""
        self._incoming.clear()

    async def _fetch(self, bundle: str, manifest_limit: int) -> DeliveryCounts:
        counts = DeliveryCounts()
        self._incoming.prepare()
        self._places = await asyncio.to_thread(self._slots.block_places)
        if not await asyncio.to_thread(self._read, bundle):
            manifest_alone = Wanted(bundle, manifest_limit, exact=False)
            await self._bring(Errand(bundle, [manifest_alone], self._incoming, counts))
        manifest = decode(Manifest, self.manifest_bytes(bundle))
        entries = manifest.files_for(self._slots.variant_for(bundle, manifest))
        wanted = {block.sha256: block for entry in entries for block in entry.blocks}
        missing = await asyncio.to_thread(self._plan, wanted, bundle, counts)
        self._check_disk(sum(block.size for block in missing), sum(entry.size for entry in entries))
        log_event("delivery", bundle=bundle, blocks=len(wanted), missing=len(missing))
        errand = Errand(
            bundle, [Wanted(block.sha256, block.size) for block in missing], self._incoming, counts, entries
        )
        await self._bring(errand)
        return counts

    async def _bring(self, errand: Errand) -> None:
        """Let one carrier after the other try, and see to it that the last block is safe."""
        try:
            await self._try_carriers(errand)
        finally:
            await errand.settle()

    async def _try_carriers(self, errand: Errand) -> None:
        """Let one carrier after the other try, with growing pauses while none gets anywhere."""
        turn = attempt = 0
        while errand.missing:
            carrier = self._carriers[turn % len(self._carriers)]
            before = len(errand.missing)
            try:
                await carrier.bring(errand)
            except UnreachableError as error:
                left = len(errand.missing)
                log_event("carrier_failed", level=logging.WARNING, carrier=carrier.name, missing=left, reason=error)
                if left < before:
                    attempt = 0
                    continue
                turn, attempt = turn + 1, attempt + 1
                base, cap = self._options.retry_base_seconds, self._options.retry_cap_seconds
                pause = full_jitter(attempt, base_seconds=base, cap_seconds=cap, random=self._random)
                await asyncio.sleep(pause)

    # --- planning -------------------------------------------------------------------------------------------------

    def _plan(self, wanted: dict[str, Block], bundle: str, counts: DeliveryCounts) -> list[Block]:
        """Return the blocks that are nowhere on this device; forget blocks of other bundles."""
        missing = []
        self._incoming.keep_only({*wanted, bundle})
        for sha256, block in wanted.items():
            if self._incoming.read(sha256) is not None:
                counts.resumed += 1
            elif self._read_from_slots(sha256):
                counts.reused += 1
            else:
                missing.append(block)
        return missing

    def _read(self, sha256: str) -> bytes:
        return self._incoming.read(sha256) or self._read_from_slots(sha256)

    def _read_from_slots(self, sha256: str) -> bytes:
        for place in self._places.get(sha256, ()):
            data = place.read()
            if digest_of(data) == sha256:
                return data
        return b""

    def _check_disk(self, download: int, slot: int) -> None:
        """Refuse to begin what the disk cannot hold."""
        reserve = self._options.disk_reserve_bytes
        needed, free = download + slot + reserve, self._incoming.free_bytes()
        if free < needed:
            raise StorageError(
                f"expected {needed} bytes free in {self._options.incoming} (download {download}, new slot {slot}, "
                f"reserve {reserve}), got {free}, {needed - free} too few: free some space and roll out again"
            )

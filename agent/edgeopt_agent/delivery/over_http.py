"""Blocks over HTTP: the files of the bundle, from where each of them stopped, in as few requests as there are gaps.

The beginning of a block that was cut off is kept, so a kill costs only what the kernel had received and nobody had
read. The device shows its bearer and believes only the fleet's own CA. It follows no redirection and retries nothing:
who calls does. Example::

    carrier = HttpCarrier(lambda: HttpAccess(server="https://fleet.example", bearer=…, ca=…), Budget(None))
    await carrier.bring(errand)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Container, Sequence
from dataclasses import dataclass

from edgeopt_agent.delivery.errand import Errand, Wanted
from edgeopt_agent.delivery.flow import Budget
from edgeopt_agent.delivery.http_download import HttpAccess, HttpDownload, Part
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.manifest import FileEntry
from edgeopt_contract.values import digest_of

__all__ = ["Gap", "HttpCarrier", "gaps_of"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Blocks of one file that follow each other and are all missing; ``offset`` is that of the first, in bytes."""

    entry: FileEntry
    offset: int
    blocks: tuple[Wanted, ...]

    @property
    def end(self) -> int:
        """The first byte behind the gap."""
        return self.offset + sum(block.size for block in self.blocks)


def gaps_of(entries: Sequence[FileEntry], missing: Container[str]) -> list[Gap]:
    """Return the gaps of ``entries``; a block that stands at several places is in the first gap only."""
    gaps: list[Gap] = []
    seen: set[str] = set()
    for entry in entries:
        offset, begin, run = 0, 0, list[Wanted]()
        for block in entry.blocks:
            if block.sha256 in missing and block.sha256 not in seen:
                begin = begin if run else offset
                run.append(Wanted(block.sha256, block.size))
                seen.add(block.sha256)
            elif run:
                gaps.append(Gap(entry, begin, tuple(run)))
                run = []
            offset += block.size
        if run:
            gaps.append(Gap(entry, begin, tuple(run)))
    return gaps


class HttpCarrier:
    """See the module."""

    name = "http"

    def __init__(self, access: Callable[[], HttpAccess], budget: Budget) -> None:
        self._access = access
        self._budget = budget

    async def bring(self, errand: Errand) -> None:
        """Bring what ``errand`` misses. Raises :class:`UnreachableError` and :class:`StorageError`."""
        async with HttpDownload(self._access()) as download:
            while errand.missing:
                before = len(errand.missing)
                if errand.entries:
                    missing = {wanted.sha256 for wanted in errand.missing}
                    for gap in gaps_of(errand.entries, missing):
                        await self._fill(download, errand, gap)
                else:
                    await self._bring_whole(download, errand)
                if len(errand.missing) == before:
                    raise UnreachableError("what came over HTTP was damaged")

    async def _bring_whole(self, download: HttpDownload, errand: Errand) -> None:
        """Bring what belongs to no file: the manifest."""
        for wanted in errand.missing:
            data = bytearray()
            async with download.get(f"blocks/{wanted.sha256}") as pieces:
                async for piece in self._paced(pieces):
                    data += piece
                    if len(data) > wanted.size:
                        raise UnreachableError(f"expected at most {wanted.size} bytes, got more")
            await errand.take(wanted, bytes(data))

    async def _fill(self, download: HttpDownload, errand: Errand, gap: Gap) -> None:
        """Bring the blocks of ``gap``, beginning with what is missing of the first."""
        first = gap.blocks[0]
        current = bytearray(await asyncio.to_thread(errand.incoming.part, first.sha256))
        if len(current) >= first.size:  # it was whole and not yet verified; or it is of no use
            await asyncio.to_thread(errand.incoming.discard, first.sha256)
            current = bytearray()
        part = Part(first=gap.offset + len(current), last=gap.end - 1, size=gap.entry.size, tag=gap.entry.sha256)
        blocks = iter(gap.blocks)
        block = next(blocks)
        async with download.get(f"bundles/{errand.bundle}/files/{gap.entry.path}", part) as pieces:
            async for piece in self._paced(pieces):
                rest = memoryview(piece)
                while rest:
                    taken = rest[: block.size - len(current)]
                    rest = rest[len(taken) :]
                    current += taken
                    errand.incoming.append(block.sha256, taken)  # a few KiB into the page cache: a thread costs more
                    if len(current) == block.size:
                        await _complete(errand, block, current)
                        current = bytearray()
                        block = next(blocks, block)

    async def _paced(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            await asyncio.sleep(self._budget.take(len(piece), time.monotonic()))
            yield piece


async def _complete(errand: Errand, block: Wanted, data: bytearray) -> None:
    """Keep a block whose last byte has come, or forget it when it is damaged."""
    if digest_of(memoryview(data)) == block.sha256:
        await asyncio.to_thread(errand.incoming.finish, block.sha256)
        await errand.keep(block, block.size)
    else:
        errand.refuse(block, len(data))
        await asyncio.to_thread(errand.incoming.discard, block.sha256)

"""What a device may download over HTTP: blocks and manifests by their hash, and parts of a bundle's files.

Files lie here as blocks, and are put together while they are sent. Example::

    entry = downloads.entry(digest, "model.onnx")
    for piece in downloads.read(entry, first=70_000, last=99_999): …
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt_contract.codec import decode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.manifest import FileEntry, Manifest, Role
from edgeopt_fleet.problems import NotFoundError
from edgeopt_fleet.store.bundles import Bundles

__all__ = ["Downloads"]


class Downloads:
    """Reads from the bundles."""

    def __init__(self, bundles: Bundles) -> None:
        self._bundles = bundles

    def named(self, sha256: str) -> bytes:
        """Return the block or the manifest with this hash. Raises :class:`NotFoundError`."""
        try:
            return self._bundles.block(sha256)
        except StorageError:
            return self._manifest(sha256)

    def entry(self, digest: str, path: str) -> FileEntry:
        """Return the entry of a file that devices fetch: not of evidence. Raises :class:`NotFoundError`."""
        for entry in decode(Manifest, self._manifest(digest)).files:
            if entry.path == path and entry.role is not Role.EVIDENCE:
                return entry
        raise NotFoundError(f"the bundle {digest[:12]} has no file {path[:80]!r} for devices")

    def read(self, entry: FileEntry, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes from ``first`` to ``last``, both included, block by block."""
        offset = 0
        for block in entry.blocks:
            if offset <= last and offset + block.size > first:
                yield self._bundles.block(block.sha256)[max(0, first - offset) : last + 1 - offset]
            offset += block.size

    def _manifest(self, digest: str) -> bytes:
        row = self._bundles.find(digest)
        if row.digest != digest:  # a prefix is for people
            raise NotFoundError(f"there is no bundle {digest[:80]!r}")
        return row.manifest

"""What a device may download over HTTP: blocks and manifests by their hash, and parts of a bundle's files.

Files lie here as blocks, and are put together while they are sent. What a hash names never changes, so what was asked
for lately is kept in memory: a fleet that downloads asks for the same few blocks again and again. Example::

    downloads = Downloads(bundles)               # one for the whole process
    entry = downloads.entry(digest, "model.onnx")
    for piece in downloads.read(entry, first=70_000, last=99_999): …
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from edgeopt_contract.codec import decode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.manifest import FileEntry, Manifest, Role
from edgeopt_fleet.problems import NotFoundError
from edgeopt_fleet.store.bundles import Bundles

__all__ = ["Downloads"]

_KEPT_BYTES = 16 << 20
_KEPT_MANIFESTS = 16


class Downloads:
    """Reads from the bundles; threads may share it."""

    def __init__(self, bundles: Bundles) -> None:
        self._bundles = bundles
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._files: OrderedDict[str, tuple[FileEntry, ...]] = OrderedDict()

    def kept(self, sha256: str) -> bytes | None:
        """Return what :meth:`named` does if it is in memory: at once, without the disk."""
        with self._lock:
            if sha256 in self._kept:
                self._kept.move_to_end(sha256)
            return self._kept.get(sha256)

    def named(self, sha256: str) -> bytes:
        """Return the block or the manifest with this hash. Raises :class:`NotFoundError`."""
        data = self.kept(sha256)
        if data is None:
            try:
                data = self._bundles.block(sha256)
            except StorageError:
                data = self._manifest(sha256)
            self._keep(sha256, data)
        return data

    def entry(self, digest: str, path: str) -> FileEntry:
        """Return the entry of a file that devices fetch: not of evidence. Raises :class:`NotFoundError`."""
        for entry in self._entries(digest):
            if _is_for_devices(entry, path):
                return entry
        raise NotFoundError(f"the bundle {digest[:12]} has no file {path[:80]!r} for devices")

    def kept_file(self, digest: str, path: str) -> tuple[FileEntry, bytes] | None:
        """Return the entry and the bytes of a file for devices if it is one block, and all of it is in memory."""
        with self._lock:
            entries = self._files.get(digest, ())
        for entry in entries:
            if _is_for_devices(entry, path) and len(entry.blocks) == 1:
                data = self.kept(entry.blocks[0].sha256)
                return None if data is None else (entry, data)
        return None

    def read(self, entry: FileEntry, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes from ``first`` to ``last``, both included, block by block."""
        offset = 0
        for block in entry.blocks:
            if offset <= last and offset + block.size > first:
                yield self.named(block.sha256)[max(0, first - offset) : last + 1 - offset]
            offset += block.size

    def _entries(self, digest: str) -> tuple[FileEntry, ...]:
        with self._lock:
            found = self._files.get(digest)
        if found is None:
            found = decode(Manifest, self._manifest(digest)).files
            with self._lock:
                self._files[digest] = found
                if len(self._files) > _KEPT_MANIFESTS:
                    self._files.popitem(last=False)
        return found

    def _keep(self, sha256: str, data: bytes) -> None:
        with self._lock:
            if sha256 not in self._kept:
                self._kept[sha256] = data
                self._kept_bytes += len(data)
            while self._kept_bytes > _KEPT_BYTES:
                self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def _manifest(self, digest: str) -> bytes:
        row = self._bundles.find(digest)
        if row.digest != digest:  # a prefix is for people
            raise NotFoundError(f"there is no bundle {digest[:80]!r}")
        return row.manifest


def _is_for_devices(entry: FileEntry, path: str) -> bool:
    return entry.path == path and entry.role is not Role.EVIDENCE

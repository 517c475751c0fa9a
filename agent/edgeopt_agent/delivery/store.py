"""What was fetched and is not yet part of a slot: ``DATA/incoming/<sha256>``, one file a block, verified on the way in.

``<sha256>.part`` is the beginning of a block that HTTP was bringing when it was cut off. Blocking; the caller decides
on which thread. It does not know what a bundle is. Example::

    incoming = Incoming(Path("/var/lib/edgeopt/incoming"))
    incoming.write(sha256, data)
    incoming.sync(sha256)
    incoming.read(sha256)
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from edgeopt_contract.storage import make_directory, storage_errors
from edgeopt_contract.values import digest_of

__all__ = ["Incoming"]

_PART = ".part"


class Incoming:
    """See the module."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def prepare(self) -> None:
        """Make the directory. Raises :class:`StorageError`."""
        with storage_errors(self.directory):
            make_directory(self.directory)

    def keep_only(self, wanted: Collection[str]) -> None:
        """Remove what belongs to no block of ``wanted``. Raises :class:`StorageError`."""
        with storage_errors(self.directory):
            for path in self.directory.iterdir():
                if path.name.removesuffix(_PART) not in wanted:
                    path.unlink()

    def clear(self) -> None:
        """Remove everything. Raises :class:`StorageError`."""
        with storage_errors(self.directory):
            if self.directory.exists():
                shutil.rmtree(self.directory)

    def free_bytes(self) -> int:
        """Return what the disk has left for this user."""
        return shutil.disk_usage(self.directory).free

    def read(self, sha256: str) -> bytes | None:
        """Return a block if it is here and whole."""
        try:
            data = (self.directory / sha256).read_bytes()
        except OSError:
            return None
        return data if digest_of(data) == sha256 else None

    def write(self, sha256: str, data: bytes) -> None:
        """Write a block that the caller has verified. Raises :class:`StorageError`; then it is not here.

        Under its own name at once, so a kill costs nothing that has come: half a block is known by its hash.
        """
        path = self.directory / sha256
        with storage_errors(path):
            try:
                path.write_bytes(data)
            except OSError:
                path.unlink(missing_ok=True)
                raise

    def sync(self, sha256: str) -> None:
        """Make a block survive a power cut. Raises :class:`StorageError`.

        The directory is not synced, for half the time: journaling file systems keep a new file's name with its bytes,
        and on others a power cut costs blocks, never a wrong one.
        """
        path = self.directory / sha256
        with storage_errors(path), path.open("rb") as file:
            os.fsync(file.fileno())

    # --- a block that comes in pieces -----------------------------------------------------------------------------

    def part(self, sha256: str) -> bytes:
        """Return the beginning of a block that was cut off; empty when there is none."""
        with contextlib.suppress(OSError):
            return self._part(sha256).read_bytes()
        return b""

    def append(self, sha256: str, piece: bytes | memoryview) -> None:
        """Add ``piece`` to the beginning of a block. A kill keeps it, a power cut may not. Raises `StorageError`."""
        path = self._part(sha256)
        with storage_errors(path), path.open("ab") as file:
            file.write(piece)

    def finish(self, sha256: str) -> None:
        """Let the part, whole and verified by the caller, be the block; not yet synced. Raises `StorageError`."""
        path = self._part(sha256)
        with storage_errors(path):
            path.replace(self.directory / sha256)

    def discard(self, sha256: str) -> None:
        """Forget the beginning of a block: it is damaged. Raises :class:`StorageError`."""
        path = self._part(sha256)
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def _part(self, sha256: str) -> Path:
        return self.directory / f"{sha256}{_PART}"

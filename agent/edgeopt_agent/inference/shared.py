"""Memory that the agent writes and one runner reads: a request's tensors get there by one copy instead of by a pipe.

A pipe takes a page and a copy for each 4 KiB on both sides, and wakes the reader at the first one: a picture of 600 KB
was on its way for more than a millisecond. Two halves take turns, for a runner counts the features of one request
while the next one is written: what answers a request has counted the one before. It is anonymous (``memfd``), takes
memory only where it was written to, and the runner gets it read-only. What is larger than a half, and everything where
the kernel has no such memory, goes through the pipe. It knows nothing of frames. Example::

    shared = SharedMemory.make()                  # None where there is none
    at = shared.put([b"abc", b"de"])              # 5 bytes at this place; None: too large
    view_of(shared.descriptor)[at : at + 5]       # in the runner, which inherited the descriptor
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from edgeopt_agent.runner.frames import Buffer

__all__ = ["SharedMemory", "view_of"]

_HALF_BYTES = 2 << 20  # three pictures of 600 KB


class SharedMemory:
    """See the module; ``descriptor`` is read-only, for the runner."""

    def __init__(self, descriptor: int, mapping: mmap.mmap) -> None:
        self.descriptor = descriptor
        self._mapping = mapping
        self._half = 0  # the one that was written to last

    @classmethod
    def make(cls, half_bytes: int = _HALF_BYTES) -> SharedMemory | None:
        """Make two halves of so many bytes; ``None`` where the kernel has no such memory."""
        try:
            writable = os.memfd_create("edgeopt-requests", os.MFD_CLOEXEC)
        except (AttributeError, OSError):  # no Linux, or one that refuses
            return None
        try:
            os.ftruncate(writable, 2 * half_bytes)
            mapping = mmap.mmap(writable, 2 * half_bytes)
            return cls(os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC), mapping)
        except OSError:
            return None
        finally:
            os.close(writable)

    def put(self, parts: Sequence[Buffer]) -> int | None:
        """Copy ``parts`` one after the other into the half whose turn it is and return where; ``None``: too large."""
        views = [memoryview(part).cast("B") for part in parts]
        half_bytes = len(self._mapping) // 2
        if sum(map(len, views)) > half_bytes:
            return None
        self._half = 1 - self._half
        at = end = self._half * half_bytes
        for view in views:
            self._mapping[end : end + len(view)] = view
            end += len(view)
        return at

    def close(self) -> None:
        """Forget it; the runner keeps its own mapping."""
        self._mapping.close()
        os.close(self.descriptor)


def view_of(descriptor: int) -> memoryview:
    """Map what ``descriptor`` refers to, for reading, and close it. Raises ``OSError``."""
    try:
        return memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
    finally:
        os.close(descriptor)

"""Cutting a file into content-defined blocks, so that two versions share what did not change.

A block ends where a rolling hash of the last 32 bytes falls below a threshold, so an insertion moves only the
blocks around it (the gear hash of FastCDC, Xia et al., USENIX ATC 2016; here without its normalisation).
Blocks are 16-128 KiB, 64 KiB on average: brokers with a 128 KB message limit carry them. A device never cuts, so it
never imports this module. Example::

    blocks = cut(data)                       # tuple of Block(sha256, size), in file order
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from edgeopt_contract.blocks import MAX_BLOCK_BYTES, MIN_BLOCK_BYTES, Block
from edgeopt_contract.values import digest_of

__all__ = ["cut"]

_MEAN_AFTER_MINIMUM = 48 * 1024  # expected bytes from the minimum to the boundary: 64 KiB in all
_WINDOW = 32
_THRESHOLD = np.uint32(2**32 // _MEAN_AFTER_MINIMUM)
# One fixed pseudo-random word per byte value; part of the format, never to be changed.
_GEAR = np.array(
    [int.from_bytes(hashlib.sha256(bytes([value])).digest()[:4], "big") for value in range(256)], dtype=np.uint32
)


def cut(data: bytes) -> tuple[Block, ...]:
    """Return the blocks of ``data`` in order; their concatenation is ``data``. Empty data has no block."""
    view = memoryview(data)
    ends = _block_ends(len(data), _boundary_candidates(np.frombuffer(data, dtype=np.uint8)))
    starts = [0, *ends[:-1]]
    return tuple(Block(digest_of(view[s:e]), e - s) for s, e in zip(starts, ends, strict=False))


def _boundary_candidates(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Return the positions after which a block may end: where the hash of the last 32 bytes is small."""
    if data.size < _WINDOW:
        return np.empty(0, dtype=np.int64)
    rolling = _GEAR[data]
    width = 1
    while width < _WINDOW:  # H[2w](i) = H[w](i) + (H[w](i-w) << w), modulo 2**32
        shifted = np.zeros_like(rolling)
        shifted[width:] = rolling[:-width] << np.uint32(width)
        rolling = rolling + shifted
        width *= 2
    return np.flatnonzero(rolling < _THRESHOLD).astype(np.int64) + 1


def _block_ends(size: int, candidates: npt.NDArray[np.int64]) -> list[int]:
    ends: list[int] = []
    start = 0
    while start < size:
        limit = min(start + MAX_BLOCK_BYTES, size)
        index = int(np.searchsorted(candidates, start + MIN_BLOCK_BYTES))
        candidate = int(candidates[index]) if index < candidates.size else limit
        start = min(candidate, limit)
        ends.append(start)
    return ends

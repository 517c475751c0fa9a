"""Counts of one window in as few bytes as they need: what ingest stores thousands of times a second.

Pure. The order is that of :class:`edgeopt_fleet.totals.Layout`; each count takes 1, 2, 4 or 8 bytes, little-endian, as
the greatest of the window needs, and the length tells which. Example::

    blobs = narrow(np.stack([layout.pack(w.cells, w.latency) for w in windows]))
    widen(blobs[0], layout.size)             # the same counts again, int64
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["narrow", "widen"]

Counts = npt.NDArray[np.int64]
_WIDTHS: tuple[np.dtype[Any], ...] = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<i8"))
_LIMITS = np.array([2**8, 2**16, 2**32])


def narrow(stack: Counts) -> list[bytes]:
    """Return the counts of each row of ``stack`` (windows, size), all zero or more, as bytes."""
    width = np.searchsorted(_LIMITS, stack.max(axis=1, initial=0), side="right")
    blobs = [b""] * len(stack)
    for number, kind in enumerate(_WIDTHS):
        rows = np.flatnonzero(width == number)
        for place, row in zip(rows.tolist(), stack[rows].astype(kind), strict=True):
            blobs[place] = row.tobytes()
    return blobs


def widen(blob: bytes, size: int) -> Counts:
    """Return the ``size`` counts of one window; zeros where the bytes are of another layout."""
    for kind in _WIDTHS:
        if len(blob) == size * kind.itemsize:
            return np.frombuffer(blob, dtype=kind).astype(np.int64)
    return np.zeros(size, dtype=np.int64)

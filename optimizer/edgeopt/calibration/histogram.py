"""How often an activation took which values: a histogram that grows with its data and can be merged.

Bins are a power of two wide and zero is always an edge between two of them. So a histogram of wider bins is had by
adding neighbours, exactly, and the histogram of a set of values is the same in whatever order and parts they come
(unless magnitudes differ by more than 2**126, where float32 ends). It chooses no range: that is
:mod:`edgeopt.calibration.ranges`. Pure. Example::

    histogram = Histogram.of(first).merge(Histogram.of(second))
    histogram.low, histogram.high                 # exact, not those of a bin
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeopt.samples import Array

__all__ = ["SIDE", "Histogram"]

Counts = npt.NDArray[np.int64]

# Bins on each side of zero. The greatest magnitude always lies in the outer half, so that at least 2,048 bins cover
# it: as many as ONNX Runtime's percentile calibrator has.
SIDE = 4096
_SIDE_BITS = 12
_LEAST_EXPONENT = -120  # 2**-_LEAST_EXPONENT is still a float32; smaller values are as good as zero
_CHUNK = 1 << 15  # values counted at a time: the scratch arrays stay in the CPU's cache


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of finite values.

    ``counts`` is int64 of shape (2 * SIDE,): entry ``i`` counts the values of ``[i - SIDE, i - SIDE + 1)`` times the
    ``width``, which is ``2**exponent``. ``low`` and ``high`` are the exact extremes; both 0 when nothing was counted.
    """

    exponent: int
    counts: Counts
    low: float
    high: float

    @classmethod
    def empty(cls) -> Histogram:
        """Return the histogram of no values, which changes nothing that it is merged with."""
        return cls(_LEAST_EXPONENT, np.zeros(2 * SIDE, np.int64), 0.0, 0.0)

    @classmethod
    def of(cls, values: Array) -> Histogram:
        """Return the histogram of float ``values`` of any shape. Raises :class:`ValueError` for NaN and infinity."""
        if not values.size:
            return cls.empty()
        flat = values.reshape(-1).astype(np.float32, copy=False)
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN or infinity cannot be counted")
        exponent = _exponent(max(-low, high))
        return cls(exponent, _counted(flat, exponent), low, high)

    @property
    def width(self) -> float:
        """The width of a bin, in the activation's unit."""
        return math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of the values of both."""
        if not other.total:
            return self
        if not self.total:
            return other
        exponent = max(self.exponent, other.exponent)
        counts = self.coarsened(exponent).counts + other.coarsened(exponent).counts
        return Histogram(exponent, counts, min(self.low, other.low), max(self.high, other.high))

    def coarsened(self, exponent: int) -> Histogram:
        """Return the same with bins of ``2**exponent``; ``exponent`` must not be less than its own."""
        if exponent < self.exponent:
            raise ValueError(f"bins of 2**{self.exponent} cannot be split into bins of 2**{exponent}")
        if exponent == self.exponent:
            return self
        doublings = min(exponent - self.exponent, _SIDE_BITS)  # more than that: one bin for each side remains
        merged = self.counts.reshape(-1, 1 << doublings).sum(axis=1)
        counts = np.zeros_like(self.counts)
        middle = len(merged) // 2
        counts[SIDE - middle : SIDE + middle] = merged
        return Histogram(exponent, counts, self.low, self.high)


def _exponent(magnitude: float) -> int:
    """Return the least exponent with which ``magnitude`` lies within ``SIDE`` bins."""
    if magnitude == 0:
        return _LEAST_EXPONENT
    bits = math.frexp(magnitude)[1]  # the magnitude is below 2**bits
    return max(bits - _SIDE_BITS, _LEAST_EXPONENT)


def _counted(flat: Array, exponent: int) -> Counts:
    """Return how many of ``flat`` (float32, one axis) lie in each bin; multiplying by a power of two is exact."""
    counts = np.zeros(2 * SIDE, np.int64)
    scaled = np.empty(min(_CHUNK, flat.size), np.float32)
    bins = np.empty(scaled.shape, np.intp)
    inverse = np.float32(math.ldexp(1.0, -exponent))
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK]
        part, where = scaled[: chunk.size], bins[: chunk.size]
        np.multiply(chunk, inverse, out=part)
        np.floor(part, out=part)
        np.add(part, SIDE, out=where, casting="unsafe")
        counts += np.bincount(where, minlength=2 * SIDE)
    return counts

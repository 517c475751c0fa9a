"""What one device served on one bundle, as one array of counts, and what can be read from it.

Pure. The array is int64, little-endian on disk: the cells of every feature in the order of the bundle's profile, then
the latency histogram (:data:`~edgeopt_contract.profile.LATENCY_EDGES_US`, one cell more than edges). Counts add up
exactly, so ingest adds windows to it and the gate subtracts what was there before a wave. It does not know tables or
messages. Functions that read take one array (size,) or a stack of devices (n, size) alike. Example::

    layout = Layout.of(profile)
    total = add(total, layout.pack(window.cells, window.latency))        # bytes + array -> bytes
    stack = layout.stack([row.counts for row in rows])                   # (devices, layout.size)
    latency_quantile(layout.latency_of(stack), 0.95)                     # microseconds, one a device
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from edgeopt_contract.features import LATENCY_EDGES_US, FeatureSpec, ReferenceProfile, Summary

__all__ = ["LARGEST_COUNT", "LATENCY_CELLS", "Layout", "add", "confidence_moments", "latency_quantile"]

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

LATENCY_CELLS = len(LATENCY_EDGES_US) + 1
LARGEST_COUNT = 2**40  # a cell above that is no count of one window; sums of millions of windows stay within int64
_STORED = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each feature's cells stand. ``specs`` are the profile's features, in its order."""

    specs: tuple[FeatureSpec, ...] = ()

    @classmethod
    def of(cls, profile: ReferenceProfile) -> Layout:
        """Return the layout that belongs to ``profile``."""
        return cls(tuple(feature.spec for feature in profile.features))

    @property
    def size(self) -> int:
        """How many counts an array has."""
        return sum(spec.cells for spec in self.specs) + LATENCY_CELLS

    def slices(self) -> dict[str, slice]:
        """Return where each feature stands, by its name."""
        places, start = {}, 0
        for spec in self.specs:
            places[spec.name] = slice(start, start + spec.cells)
            start += spec.cells
        return places

    def find(self, summary: Summary) -> FeatureSpec | None:
        """Return the first feature with that summary; ``None`` without one."""
        return next((spec for spec in self.specs if spec.summary is summary), None)

    def pack(self, cells: Mapping[str, Sequence[int]], latency: Sequence[int]) -> Counts:
        """Return the array (size,) of one window. A part that does not fit the layout counts as zeros."""
        flat: list[int] = []
        for spec in self.specs:
            flat.extend(_fitting(cells.get(spec.name, ()), spec.cells))
        flat.extend(_fitting(latency, LATENCY_CELLS))
        return np.array(flat, dtype=np.int64)

    def unpack(self, stored: bytes) -> Counts:
        """Return the array (size,) of what was stored; zeros where nothing was, or not in this layout."""
        if len(stored) != self.size * _STORED.itemsize:
            return np.zeros(self.size, dtype=np.int64)
        return np.frombuffer(stored, dtype=_STORED).astype(np.int64)

    def stack(self, stored: Sequence[bytes]) -> Counts:
        """Return the arrays (len(stored), size) of several devices, as :meth:`unpack` does for one."""
        length = self.size * _STORED.itemsize
        whole = b"".join(one if len(one) == length else bytes(length) for one in stored)
        return np.frombuffer(whole, dtype=_STORED).reshape(len(stored), self.size).astype(np.int64)

    def cells_of(self, counts: Counts, name: str) -> Counts:
        """Return the cells (…, cells) of one feature. Raises :class:`KeyError` when the profile has none such."""
        return counts[..., self.slices()[name]]

    def latency_of(self, counts: Counts) -> Counts:
        """Return the latency histogram (…, LATENCY_CELLS)."""
        return counts[..., -LATENCY_CELLS:]


def _fitting(counts: Sequence[int], cells: int) -> Sequence[int]:
    if len(counts) != cells or max(counts) > LARGEST_COUNT or min(counts) < 0:
        return (0,) * cells
    return counts


def add(stored: bytes, counts: Counts) -> bytes:
    """Return ``stored`` with ``counts`` added; ``counts`` alone where nothing, or another layout, was stored."""
    if len(stored) != counts.size * _STORED.itemsize:
        return counts.astype(_STORED).tobytes()
    return (np.frombuffer(stored, dtype=_STORED) + counts).astype(_STORED).tobytes()


def confidence_moments(layout: Layout, counts: Counts) -> tuple[Counts, Floats, Floats]:
    """Return number, mean and variance (each of shape (…,)) of the model's confidences.

    Each value is taken at its cell's middle, as :func:`edgeopt_contract.profile.mean_from_cells` does, but a value
    that is not a number counts as zero: a model that answers NaN is not confident. NaN without values, and everywhere
    for a model without confidences.
    """
    spec = layout.find(Summary.CONFIDENCE)
    if spec is None:
        shape = counts.shape[:-1]
        return np.zeros(shape, dtype=np.int64), np.full(shape, np.nan), np.full(shape, np.nan)
    cells = layout.cells_of(counts, spec.name)
    edges = np.asarray(spec.edges)
    middles = np.zeros(spec.cells)
    middles[: len(edges) + 1] = np.concatenate(([edges[0]], (edges[:-1] + edges[1:]) / 2, [edges[-1]]))
    n = cells.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        mean = (cells @ middles) / n
        variance = (cells @ middles**2) / n - mean**2
    return n, mean, np.maximum(variance, 0.0)


def latency_quantile(latency: Counts, quantile: float) -> Floats:
    """Return the latency (…,) in microseconds below which the share ``quantile`` (0-1) of ``latency`` (…, cells) lies.

    Between two edges it is interpolated as if latencies were lognormal there: a change of a tenth is seen although
    cells are a third wide, which interpolation by straight lines does not see when most of them lie in one cell. The
    first and last cell are taken at their edge. NaN without counts.
    """
    logs = np.log(np.asarray(LATENCY_EDGES_US))
    edges = np.concatenate(([logs[0]], logs, [logs[-1]]))  # of cell i: from i to i + 1
    below = np.cumsum(latency, axis=-1)
    total = np.maximum(below[..., -1:], 1)
    cell = np.minimum((below < quantile * total).sum(axis=-1, keepdims=True), latency.shape[-1] - 1)
    upper = np.take_along_axis(below, cell, axis=-1)
    lower = upper - np.take_along_axis(latency, cell, axis=-1)
    least = 0.5 / total
    low, high = (ndtri(np.clip(share / total, least, 1 - least)) for share in (lower, upper))
    share = np.clip((ndtri(quantile) - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    value = np.exp(edges[cell] + share * (edges[cell + 1] - edges[cell]))
    return np.asarray(np.where(below[..., -1:] > 0, value, np.nan)[..., 0])

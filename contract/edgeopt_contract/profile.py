"""Profile arithmetic: turning inputs and outputs into integer counts that merge exactly.

A feature is one number per inference (the brightness of a picture, one column of a table, the model's
confidence). The bundle fixes its cells once, from calibration data; a device only counts into them and sends the
integers. Counts of any windows and devices add up in any order to the same result, and no raw value leaves the
device.

Cells of a numeric feature with edges e0 < … < eK, in order::

    x < e0 | [e0,e1) … [eK-1,eK] | x > eK | missing (NaN) | +inf | -inf          K + 5 cells

Cells of a categorical feature with C categories: one for each, then one for anything else. Example::

    count_values(spec, summarize(spec, batch))      # one count a cell; counting.py does it for all features at once
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_contract.errors import MessageError
from edgeopt_contract.features import (
    CONFIDENCE_EDGES,
    LATENCY_EDGES_US,
    FeatureSpec,
    ReferenceFeature,
    ReferenceProfile,
    Source,
    Summary,
)

__all__ = [
    "CONFIDENCE_EDGES",
    "LATENCY_EDGES_US",
    "FeatureSpec",
    "ReferenceFeature",
    "ReferenceProfile",
    "Source",
    "Summary",
    "count_latency",
    "count_values",
    "mean_from_cells",
    "merge_cells",
    "probabilities",
    "quantile_from_latency",
    "summarize",
    "summarize_all",
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_AT_ONCE = 1 << 13  # elements: 64 KiB of float64, which stay in the cache; BLAS takes no threads for so few


def probabilities(scores: Array, *, logits: bool) -> Floats:
    """Return class probabilities, float64 of shape (n, classes), from scores of any trailing shape."""
    with np.errstate(invalid="ignore", over="ignore"):
        return _probabilities(np.asarray(scores).reshape(len(scores), -1), logits=logits)


def _probabilities(flat: Array, *, logits: bool) -> Floats:
    floats: Floats = flat.astype(np.float64)
    if not logits:
        return floats
    exponents = np.exp(floats - floats.max(axis=1, keepdims=True))
    normalized: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return normalized


def summarize(spec: FeatureSpec, batch: Array) -> Floats:
    """Return one float64 per sample of ``batch`` (first axis: samples). NaN where the sample gives none."""
    return summarize_all([spec], batch)[0]


def summarize_all(specs: Sequence[FeatureSpec], batch: Array) -> list[Floats]:
    """Return :func:`summarize` of each of ``specs``, which are of one tensor; what they share is computed once."""
    shared = _Shared(np.asarray(batch))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        return [_summarize(spec, shared) for spec in specs]


class _Shared:
    """What several summaries of one tensor need, each computed when it is first asked for."""

    def __init__(self, rows: Array) -> None:
        self.flat = rows.reshape(len(rows), -1)
        self.last_axis = rows.shape[-1] if rows.ndim > 1 else 1
        self._probabilities: dict[bool, Floats] = {}

    @cached_property
    def mean(self) -> Floats:
        return np.asarray(self.flat.mean(axis=1, dtype=np.float64))

    def probabilities(self, *, logits: bool) -> Floats:
        if logits not in self._probabilities:
            self._probabilities[logits] = _probabilities(self.flat, logits=logits)
        return self._probabilities[logits]


def _summarize(spec: FeatureSpec, shared: _Shared) -> Floats:
    if spec.summary is Summary.TOP1:
        flat = shared.flat
        best: Floats = flat.argmax(axis=1).astype(np.float64)
        best[np.isnan(flat.max(axis=1))] = np.nan  # the greatest is NaN when any is
        return best
    if spec.summary is Summary.CONFIDENCE:
        return np.asarray(shared.probabilities(logits=spec.logits).max(axis=1))
    if spec.summary is Summary.ENTROPY:
        p = shared.probabilities(logits=spec.logits)
        return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1))
    if spec.summary is Summary.MEAN:
        return shared.mean
    if spec.summary is Summary.STD:
        return _std(shared.flat, shared.mean)
    if spec.summary is Summary.SHARPNESS:
        return _sharpness(shared.flat, shared.last_axis)
    assert spec.column is not None  # FeatureSpec holds it together with COLUMN
    if spec.column >= shared.flat.shape[1]:
        return np.full(len(shared.flat), np.nan)
    return np.asarray(shared.flat[:, spec.column].astype(np.float64))


def _std(flat: Array, mean: Floats) -> Floats:
    """Return the standard deviation of each row, piece by piece: a copy of a picture in float64 costs more."""
    total, off = np.zeros(len(flat)), np.empty(min(_AT_ONCE, flat.shape[1]))
    for row, middle in enumerate(mean):
        for start in range(0, flat.shape[1], _AT_ONCE):
            piece = flat[row, start : start + _AT_ONCE]
            part = off[: piece.size]
            part[:] = piece
            part -= middle
            total[row] += part.dot(part)
    return np.asarray(np.sqrt(total / flat.shape[1]))


def _sharpness(flat: Array, last_axis: int) -> Floats:
    """Return the mean absolute difference of neighbours in lines of ``last_axis`` elements, piece by piece."""
    if last_axis < 2:
        return np.zeros(len(flat))
    lines = flat.reshape(len(flat), -1, last_axis)
    total, pieces = np.zeros(len(flat)), max(1, _AT_ONCE // last_axis)
    for start in range(0, lines.shape[1], pieces):
        part = lines[:, start : start + pieces]
        steps = np.subtract(part[:, :, 1:], part[:, :, :-1], dtype=np.float64)
        total += np.abs(steps, out=steps).sum(axis=(1, 2))
    return total / (lines.shape[1] * (last_axis - 1))


def count_values(spec: FeatureSpec, values: Floats) -> npt.NDArray[np.int64]:
    """Count ``values`` (n,) into the cells of ``spec``. Every value lands in exactly one cell."""
    if spec.summary is Summary.TOP1:
        known = (values >= 0) & (values < spec.categories)
        return np.bincount(np.where(known, values, spec.categories).astype(np.int64), minlength=spec.cells)
    edges = np.asarray(spec.edges)
    bins = len(edges) - 1
    cells = np.searchsorted(edges, values, side="right")  # 0: below e0, i: [e(i-1), e(i)), bins + 1: from eK on
    cells[values == edges[-1]] = bins
    cells[np.isnan(values)] = bins + 2
    cells[np.isposinf(values)] = bins + 3
    cells[np.isneginf(values)] = bins + 4
    return np.bincount(cells, minlength=spec.cells)


def count_latency(microseconds: Sequence[float]) -> npt.NDArray[np.int64]:
    """Count latencies into the ``len(LATENCY_EDGES_US) + 1`` cells that every device uses."""
    return np.bincount(
        np.searchsorted(LATENCY_EDGES_US, np.asarray(microseconds, dtype=np.float64), side="right"),
        minlength=len(LATENCY_EDGES_US) + 1,
    )


def quantile_from_latency(counts: Sequence[int], quantile: float) -> float:
    """Return the upper edge, in microseconds, of the cell that holds ``quantile`` (0-1); NaN without counts."""
    total = np.cumsum(np.asarray(counts, dtype=np.int64))
    if total.size == 0 or total[-1] == 0:
        return float("nan")
    cell = int(np.searchsorted(total, max(1, int(np.ceil(quantile * total[-1])))))
    return LATENCY_EDGES_US[min(cell, len(LATENCY_EDGES_US) - 1)]


def mean_from_cells(spec: FeatureSpec, counts: Sequence[int]) -> tuple[float, float, int]:
    """Return mean, variance and number of the finite values in ``counts``, each taken at its cell's middle.

    Values below and above the edges are taken at the outer edges. ``(nan, nan, 0)`` without counts.
    """
    edges = np.asarray(spec.edges)
    middles = np.concatenate(([edges[0]], (edges[:-1] + edges[1:]) / 2, [edges[-1]]))
    weights = np.asarray(counts[: len(middles)], dtype=np.float64)
    n = int(weights.sum())
    if n == 0:
        return float("nan"), float("nan"), 0
    mean = float(weights @ middles) / n
    return mean, float(weights @ (middles - mean) ** 2) / n, n


def merge_cells(*windows: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Add up windows of the same profile. Raises :class:`MessageError` when their cells do not match."""
    merged: dict[str, npt.NDArray[np.int64]] = {}
    for window in windows:
        for name, counts in window.items():
            new = np.asarray(counts, dtype=np.int64)
            if name in merged and merged[name].shape != new.shape:
                raise MessageError(f"feature {name}: expected {merged[name].size} cells, got {new.size}")
            merged[name] = merged[name] + new if name in merged else new
    return {name: tuple(int(n) for n in counts) for name, counts in merged.items()}

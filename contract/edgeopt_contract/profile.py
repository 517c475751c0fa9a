"""Profile arithmetic: turning inputs and outputs into integer counts that merge exactly.

A feature is one number per inference (the brightness of a picture, one column of a table, the model's
confidence). The bundle fixes its cells once, from calibration data; a device only counts into them and sends the
integers. Counts of any windows and devices add up in any order to the same result, and no raw value leaves the
device.

Cells of a numeric feature with edges e0 < … < eK, in order::

    x < e0 | [e0,e1) … [eK-1,eK] | x > eK | missing (NaN) | +inf | -inf          K + 5 cells

Cells of a categorical feature with C categories: one for each, then one for anything else. Example::

    counter = ProfileCounter(reference.features)
    counter.observe({"x": batch}, {"logits": scores})
    cells = counter.take()                          # {"brightness": (0, 12, 9, …), …}; the counter is empty again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgeopt_contract.errors import MessageError

__all__ = [
    "CONFIDENCE_EDGES",
    "LATENCY_EDGES_US",
    "FeatureSpec",
    "ProfileCounter",
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
]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_SPECIAL_CELLS = 5  # below, above, missing, +inf, -inf

# Fixed for every model, so that confidence compares across versions; finer near one, where classifiers live.
CONFIDENCE_EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0)
# 10 microseconds to 100 seconds, eight cells a decade; a latency histogram has one cell more than edges.
LATENCY_EDGES_US: tuple[float, ...] = tuple(float(round(10 ** (1 + step / 8), 1)) for step in range(57))


class Source(StrEnum):
    """Whether a feature looks at what goes into the model or at what comes out."""

    INPUT = "input"
    OUTPUT = "output"


class Summary(StrEnum):
    """How one sample of a tensor becomes one number."""

    MEAN = "mean"
    STD = "std"
    SHARPNESS = "sharpness"  # mean absolute difference of neighbours along the last axis
    COLUMN = "column"  # the element at the flat index ``column``
    CONFIDENCE = "confidence"  # the greatest class probability
    ENTROPY = "entropy"  # of the class probabilities, in nats
    TOP1 = "top1"  # index of the greatest score; categorical


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """One feature: where it comes from and its cells.

    ``edges`` (strictly increasing, at least two) for a numeric feature, ``categories`` for TOP1.
    ``logits`` says that the output holds unnormalised scores, so a softmax comes first.
    """

    name: str
    source: Source
    tensor: str
    summary: Summary
    column: int | None = None
    logits: bool = False
    edges: tuple[float, ...] = ()
    categories: int = 0

    def __post_init__(self) -> None:
        if self.summary is Summary.TOP1:
            if self.categories < 1 or self.edges:
                raise ValueError(f"{self.name}: a top1 feature has categories and no edges")
        elif (
            len(self.edges) < 2
            or not np.isfinite(self.edges).all()
            or any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False))
        ):
            raise ValueError(f"{self.name}: expected at least two strictly increasing, finite edges")
        if (self.column is not None) != (self.summary is Summary.COLUMN):
            raise ValueError(f"{self.name}: a column index belongs to, and only to, the summary 'column'")

    @property
    def cells(self) -> int:
        """How many counts this feature has."""
        return self.categories + 1 if self.edges == () else len(self.edges) - 1 + _SPECIAL_CELLS


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceFeature:
    """A feature with its counts over the calibration data, and their mean and standard deviation."""

    spec: FeatureSpec
    counts: tuple[int, ...]
    mean: float
    std: float

    def __post_init__(self) -> None:
        if len(self.counts) != self.spec.cells or min(self.counts) < 0:
            raise ValueError(f"{self.spec.name}: expected {self.spec.cells} counts of zero or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceProfile:
    """What the model's inputs and outputs looked like when it was packaged; ``profile.json`` of a bundle."""

    SCHEMA: ClassVar[int] = 1
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    rows: int
    features: tuple[ReferenceFeature, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [feature.spec.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("a feature stands twice in the profile")


def probabilities(scores: Array, *, logits: bool) -> Floats:
    """Return class probabilities, float64 of shape (n, classes), from scores of any trailing shape."""
    flat = np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)
    if not logits:
        return flat
    with np.errstate(invalid="ignore", over="ignore"):
        exponents = np.exp(flat - flat.max(axis=1, keepdims=True))
        normalized: Floats = exponents / exponents.sum(axis=1, keepdims=True)
    return normalized


def summarize(spec: FeatureSpec, batch: Array) -> Floats:
    """Return one float64 per sample of ``batch`` (first axis: samples). NaN where the sample gives none."""
    rows = np.asarray(batch)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if spec.summary in (Summary.CONFIDENCE, Summary.ENTROPY, Summary.TOP1):
            return _summarize_scores(spec, rows)
        last_axis = rows.shape[-1] if rows.ndim > 1 else 1
        return _summarize_values(spec, rows.astype(np.float64).reshape(len(rows), -1), last_axis)


def _summarize_scores(spec: FeatureSpec, scores: Array) -> Floats:
    if spec.summary is Summary.TOP1:
        flat = scores.reshape(len(scores), -1)
        return np.where(np.isnan(flat).any(axis=1), np.nan, flat.argmax(axis=1).astype(np.float64))
    p = probabilities(scores, logits=spec.logits)
    if spec.summary is Summary.CONFIDENCE:
        return np.asarray(p.max(axis=1))
    return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1))


def _summarize_values(spec: FeatureSpec, flat: Floats, last_axis: int) -> Floats:
    """Summarize ``flat`` (samples, elements); ``last_axis`` is the length of the tensor's last axis."""
    if spec.summary is Summary.MEAN:
        return np.asarray(flat.mean(axis=1))
    if spec.summary is Summary.STD:
        return np.asarray(flat.std(axis=1))
    if spec.summary is Summary.SHARPNESS:
        lines = flat.reshape(len(flat), -1, last_axis)
        return np.asarray(np.abs(np.diff(lines, axis=2)).mean(axis=(1, 2))) if last_axis > 1 else np.zeros(len(flat))
    assert spec.column is not None  # FeatureSpec holds it together with COLUMN
    return np.asarray(flat[:, spec.column]) if spec.column < flat.shape[1] else np.full(len(flat), np.nan)


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


class ProfileCounter:
    """Counts inferences into a profile's cells, in memory that does not grow."""

    def __init__(self, features: Sequence[ReferenceFeature]) -> None:
        self._specs = tuple(feature.spec for feature in features)
        self._counts = {spec.name: np.zeros(spec.cells, dtype=np.int64) for spec in self._specs}

    def observe(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Count a batch: arrays by tensor name, first axis samples. A tensor that is not there is not counted."""
        for spec in self._specs:
            tensor = (inputs if spec.source is Source.INPUT else outputs).get(spec.tensor)
            if tensor is not None:
                self._counts[spec.name] += count_values(spec, summarize(spec, tensor))

    def take(self) -> dict[str, tuple[int, ...]]:
        """Return the counts since the last call and start again from zero."""
        taken = {name: tuple(int(n) for n in counts) for name, counts in self._counts.items()}
        for counts in self._counts.values():
            counts.fill(0)
        return taken

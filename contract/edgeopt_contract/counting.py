"""Counting inferences into a profile's cells, all features at once, in memory that does not grow.

What a cell means is :mod:`edgeopt_contract.profile`; this gives the same cells as ``count_values(spec, summarize(…))``
feature by feature, at a fraction of the cost: columns of a table are compared with a table of edges in one step, and
what several summaries of one tensor need is computed once. The cells may lie anywhere, in shared memory for instance.
Example::

    counter = ProfileCounter(reference.features)
    counter.observe({"x": batch}, {"logits": scores})
    cells = counter.take()                          # {"brightness": (0, 12, 9, …), …}; the counter is empty again
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import mul
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeopt_contract.features import FeatureSpec, ReferenceFeature, Source, Summary
from edgeopt_contract.profile import count_values, summarize_all

__all__ = ["ProfileCounter"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int64]
Placed = Sequence[tuple[FeatureSpec, int]]  # features, and where the cells of each begin
_MANY = 32  # samples from which a search for each feature is faster than a table of comparisons
_OF_SCORES = (Summary.CONFIDENCE, Summary.ENTROPY, Summary.TOP1)
_TOP1, _CONFIDENCE = Summary.TOP1, Summary.CONFIDENCE
_exp, _log, _isfinite = math.exp, math.log, math.isfinite  # looked up once: they are called for every class
_FEW = 100  # classes up to which a loop in Python is faster


class ProfileCounter:
    """Counts inferences into ``cells``, or into cells of its own."""

    def __init__(self, features: Sequence[ReferenceFeature], cells: Cells | None = None) -> None:
        self._specs = tuple(feature.spec for feature in features)
        sizes = [spec.cells for spec in self._specs]
        self._offsets = [sum(sizes[:index]) for index in range(len(sizes))]
        self._cells = np.zeros(sum(sizes), dtype=np.int64) if cells is None else cells
        if self._cells.shape != (sum(sizes),):
            raise ValueError(f"expected {sum(sizes)} cells, got an array of shape {self._cells.shape}")
        self._groups = _group(list(zip(self._specs, self._offsets, strict=True)))

    def observe(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Count a batch: arrays by tensor name, first axis samples. A tensor that is not there is not counted."""
        for source, name, group in self._groups:
            tensor = (inputs if source is Source.INPUT else outputs).get(name)
            if tensor is not None and len(tensor):
                group.count(np.asarray(tensor), self._cells)

    def take(self) -> dict[str, tuple[int, ...]]:
        """Return the counts since the last call and start again from zero."""
        taken = {
            spec.name: tuple(int(n) for n in self._cells[offset : offset + spec.cells])
            for spec, offset in zip(self._specs, self._offsets, strict=True)
        }
        self._cells.fill(0)
        return taken


class _Group(Protocol):
    """Features of one tensor that are counted together."""

    def count(self, batch: Array, cells: Cells) -> None:
        """Add a batch to the cells of all features."""


def _group(placed: Placed) -> list[tuple[Source, str, _Group]]:
    groups: list[tuple[Source, str, _Group]] = []
    for (source, tensor, is_columns, _), group in groupby(sorted(placed, key=_kind), key=_kind):
        members = list(group)
        groups.append((Source(source), tensor, _Columns(members) if is_columns else _Whole(members)))
    return groups


def _kind(placed: tuple[FeatureSpec, int]) -> tuple[str, str, bool, int]:
    """Tell apart what is not counted together. Edges of columns are padded, so their lengths differ at most twofold."""
    spec, _ = placed
    is_column = spec.summary is Summary.COLUMN
    return spec.source, spec.tensor, is_column, len(spec.edges).bit_length() if is_column else 0


class _Columns:
    """Columns of a table."""

    def __init__(self, placed: Placed) -> None:
        specs = [spec for spec, _ in placed]
        longest = max(len(spec.edges) for spec in specs)
        self._columns = np.array([spec.column for spec in specs], dtype=np.int64)
        self._last_column = int(self._columns.max())
        # The last bin includes its upper edge, so a value is above it only from the next number on.
        edges = [
            (*spec.edges[:-1], math.nextafter(spec.edges[-1], math.inf), *[math.inf] * (longest - len(spec.edges)))
            for spec in specs
        ]
        self._edges = np.ascontiguousarray(np.transpose(edges))  # sums along the first axis are the fast ones
        self._sum_dtype = np.uint8 if longest < 256 else np.int64
        self._special = np.array([len(spec.edges) + 1 for spec in specs], dtype=np.int64)  # NaN, then +inf, -inf
        self._starts = np.array([start for _, start in placed], dtype=np.int64)
        self._placed = placed
        # For one sample at a time, the common case, memory that is there already.
        self._values = np.empty(len(specs))
        self._zeros = np.zeros(len(specs))
        self._reached = np.empty(self._edges.shape, dtype=np.bool_)
        self._reached_bytes = self._reached.view(np.uint8)

    def count(self, batch: Array, cells: Cells) -> None:
        """Add a batch. A single sample never meets a cell twice, so it needs no histogram."""
        if len(batch) == 1 and self._count_one(batch.reshape(-1), cells):
            return
        if len(batch) > _MANY:
            _count_many(self._placed, batch, cells)
            return
        for places in self._places(self._pick(batch.reshape(len(batch), -1))):
            cells[places] += 1

    def _count_one(self, flat: Array, cells: Cells) -> bool:
        """Add one sample if it has all columns and they are finite; say whether."""
        if self._last_column >= flat.size:
            return False
        values = self._values
        values[:] = flat.take(self._columns)
        if np.vdot(values, self._zeros) != 0.0:  # infinity times zero is NaN, and vdot does not warn of it
            return False
        np.less_equal(self._edges, values, out=self._reached)
        places = np.add.reduce(self._reached_bytes, 0, self._sum_dtype) + self._starts
        cells[places] += 1
        return True

    def _pick(self, flat: Array) -> Floats:
        """Return the columns (samples, features); NaN for one that the tensor does not have."""
        if self._last_column < flat.shape[1]:
            return flat.take(self._columns, axis=1).astype(np.float64)
        picked = np.full((len(flat), len(self._columns)), np.nan)
        known = self._columns < flat.shape[1]
        picked[:, known] = flat[:, self._columns[known]]
        return picked

    def _places(self, values: Floats) -> Cells:
        """Return the index of the cell of each value: how many edges are at or below it, or a special cell."""
        reached = self._edges <= values[:, np.newaxis, :]
        cells: Cells = np.add.reduce(reached.view(np.uint8), axis=1, dtype=self._sum_dtype) + self._starts
        if not np.isfinite(values).all():
            special = self._starts + self._special
            cells = np.where(np.isnan(values), special, cells)
            cells = np.where(np.isposinf(values), special + 1, cells)
            cells = np.where(np.isneginf(values), special + 2, cells)
        return cells


class _Whole:
    """Summaries of a whole tensor."""

    def __init__(self, placed: Placed) -> None:
        self._placed = placed
        self._specs = [spec for spec, _ in placed]
        self._are_scores = all(spec.summary in _OF_SCORES for spec in self._specs)
        self._logits = any(spec.logits for spec in self._specs)

    def count(self, batch: Array, cells: Cells) -> None:
        """Add a batch. For a few numbers Python is faster than NumPy."""
        if len(batch) > 1:
            _count_many(self._placed, batch, cells)
            return
        for (spec, start), value in zip(self._placed, self._summarize(batch), strict=True):
            cells[start + _place(spec, value)] += 1

    def _summarize(self, batch: Array) -> list[float]:
        """Return the summaries of one sample."""
        if self._are_scores and batch.size <= _FEW:
            scores = batch.ravel().tolist()
            if math.isfinite(sum(scores)):
                return _summarize_scores(self._specs, scores, softmax=self._logits)
        return [float(values[0]) for values in summarize_all(self._specs, batch)]


def _count_many(placed: Placed, batch: Array, cells: Cells) -> None:
    values = summarize_all([spec for spec, _ in placed], batch)
    for (spec, start), column in zip(placed, values, strict=True):
        cells[start : start + spec.cells] += count_values(spec, column)


def _summarize_scores(specs: Sequence[FeatureSpec], scores: Sequence[float], *, softmax: bool) -> list[float]:
    """Return what :func:`~edgeopt_contract.profile.summarize` does, for finite scores of one sample.

    With scores s, the greatest g and w = Σ exp(s - g), the entropy of the softmax is log w - Σ exp(s - g) (s - g) / w.
    """
    greatest, whole, entropy = max(scores), 1.0, 0.0
    if softmax:
        below = [score - greatest for score in scores]
        exponents = [_exp(difference) for difference in below]
        whole = sum(exponents)
        entropy = _log(whole) - sum(map(mul, exponents, below)) / whole
        if not _isfinite(entropy):  # a difference beyond what a float holds
            entropy = -sum([e / whole * _log(e / whole) for e in exponents if e > 0])
    values: list[float] = []
    for spec in specs:
        summary = spec.summary
        if summary is _TOP1:
            values.append(scores.index(greatest))
        elif summary is _CONFIDENCE:
            values.append(1.0 / whole if spec.logits else greatest)  # the greatest score's exponent is one
        else:
            values.append(entropy if spec.logits else -sum([p * _log(p) for p in scores if p > 0]))
    return values


def _place(spec: FeatureSpec, value: float) -> int:
    """Return the cell of one value, as :func:`~edgeopt_contract.profile.count_values` counts it."""
    if spec.summary is _TOP1:
        return int(value) if 0 <= value < spec.categories else spec.categories
    edges = spec.edges
    if _isfinite(value):
        return bisect_left(edges, value) if value == edges[-1] else bisect_right(edges, value)
    return len(edges) + 1 + (0 if math.isnan(value) else 1 if value > 0 else 2)

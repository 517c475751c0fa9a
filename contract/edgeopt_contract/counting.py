"""Counting inferences into a profile's cells, all features at once, in memory that does not grow.

What a cell means is :mod:`edgeopt_contract.profile`; this gives the same cells as ``count_values(spec, summarize(…))``
feature by feature, at a tenth of the cost: one comparison of a table of values with a table of edges instead of a
search for each feature. The cells may lie anywhere, in shared memory for instance. Example::

    counter = ProfileCounter(reference.features)
    counter.observe({"x": batch}, {"logits": scores})
    cells = counter.take()                          # {"brightness": (0, 12, 9, …), …}; the counter is empty again
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_contract.features import FeatureSpec, ReferenceFeature, Source, Summary
from edgeopt_contract.profile import summarize

__all__ = ["ProfileCounter"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.int64]
_COMPARISONS_AT_ONCE = 1 << 18  # bytes of the greatest table of comparisons


class ProfileCounter:
    """Counts inferences into ``cells``, or into cells of its own."""

    def __init__(self, features: Sequence[ReferenceFeature], cells: Cells | None = None) -> None:
        self._specs = tuple(feature.spec for feature in features)
        sizes = [spec.cells for spec in self._specs]
        self._offsets = [sum(sizes[:index]) for index in range(len(sizes))]
        self._cells = np.zeros(sum(sizes), dtype=np.int64) if cells is None else cells
        if self._cells.shape != (sum(sizes),):
            raise ValueError(f"expected {sum(sizes)} cells, got an array of shape {self._cells.shape}")
        self._groups = _group(self._specs, self._offsets)

    def observe(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Count a batch: arrays by tensor name, first axis samples. A tensor that is not there is not counted."""
        for group in self._groups:
            tensor = (inputs if group.source is Source.INPUT else outputs).get(group.tensor)
            if tensor is not None and len(tensor):
                self._add(group, group.values(np.asarray(tensor)))

    def take(self) -> dict[str, tuple[int, ...]]:
        """Return the counts since the last call and start again from zero."""
        taken = {
            spec.name: tuple(int(n) for n in self._cells[offset : offset + spec.cells])
            for spec, offset in zip(self._specs, self._offsets, strict=True)
        }
        self._cells.fill(0)
        return taken

    def _add(self, group: _Group, values: Floats) -> None:
        """Add ``values`` (samples, features). A single sample never meets a cell twice, so it needs no histogram."""
        rows = max(1, _COMPARISONS_AT_ONCE // max(1, group.width))
        for start in range(0, len(values), rows):
            places = group.places(values[start : start + rows])
            if len(places) == 1:
                self._cells[places[0]] += 1
            else:
                unique, counts = np.unique(places, return_counts=True)
                self._cells[unique] += counts


@dataclass(frozen=True, slots=True)
class _Group:
    """Features of one tensor that are summarized together and have about as many cells."""

    source: Source
    tensor: str
    values: Callable[[Array], Floats]  # (samples, …) to (samples, features)
    places: Callable[[Floats], Cells]  # (samples, features) to the index of each value's cell
    width: int  # comparisons for one sample


def _group(specs: Sequence[FeatureSpec], offsets: Sequence[int]) -> list[_Group]:
    placed = sorted(zip(specs, offsets, strict=True), key=lambda pair: _kind(pair[0]))
    groups = []
    for _, members in groupby(placed, key=lambda pair: _kind(pair[0])):
        pairs = list(members)
        group = [spec for spec, _ in pairs]
        first = group[0]
        starts = np.array([offset for _, offset in pairs], dtype=np.int64)
        places = _Categories(group, starts) if first.summary is Summary.TOP1 else _Edges(group, starts)
        width = sum(spec.cells for spec in group)
        groups.append(_Group(first.source, first.tensor, _summary_of(group), places, width))
    return groups


def _kind(spec: FeatureSpec) -> tuple[str, ...]:
    """Tell apart what cannot be counted together; lengths of edges differ at most twofold, for they are padded."""
    columns = "column" if spec.summary is Summary.COLUMN else spec.name
    categorical = "top1" if spec.summary is Summary.TOP1 else f"{len(spec.edges).bit_length():02d}"
    return (spec.source, spec.tensor, columns, categorical)


def _summary_of(group: Sequence[FeatureSpec]) -> Callable[[Array], Floats]:
    if group[0].summary is not Summary.COLUMN:
        (spec,) = group
        return lambda batch: summarize(spec, batch)[:, np.newaxis]
    columns = np.array([spec.column for spec in group], dtype=np.int64)
    last = int(columns.max())

    def pick(batch: Array) -> Floats:
        flat = batch.reshape(len(batch), -1)
        if last < flat.shape[1]:
            return flat[:, columns].astype(np.float64)
        known = columns < flat.shape[1]
        picked = flat[:, np.where(known, columns, 0)] if flat.shape[1] else np.zeros((len(flat), len(columns)))
        return np.where(known, picked.astype(np.float64), np.nan)

    return pick


class _Edges:
    """Places of numeric values: how many edges are at or below each, then the special cells."""

    def __init__(self, group: Sequence[FeatureSpec], starts: Cells) -> None:
        longest = max(len(spec.edges) for spec in group)
        self._edges = np.array([(*spec.edges, *[np.inf] * (longest - len(spec.edges))) for spec in group])
        self._last = np.array([spec.edges[-1] for spec in group])
        self._bins = np.array([len(spec.edges) - 1 for spec in group], dtype=np.int64)
        self._starts = starts

    def __call__(self, values: Floats) -> Cells:
        """Return the index of the cell of each of ``values`` (samples, features)."""
        cells = np.count_nonzero(self._edges <= values[:, :, np.newaxis], axis=2)
        cells -= values == self._last  # the last bin includes its upper edge
        if not np.isfinite(values).all():
            cells = np.where(np.isnan(values), self._bins + 2, cells)
            cells = np.where(np.isposinf(values), self._bins + 3, cells)
            cells = np.where(np.isneginf(values), self._bins + 4, cells)
        places: Cells = cells + self._starts
        return places


class _Categories:
    """Places of class indices; anything else has the cell after them."""

    def __init__(self, group: Sequence[FeatureSpec], starts: Cells) -> None:
        self._categories = np.array([spec.categories for spec in group], dtype=np.int64)
        self._starts = starts

    def __call__(self, values: Floats) -> Cells:
        """Return the index of the cell of each of ``values`` (samples, features)."""
        known = (values >= 0) & (values < self._categories)
        places: Cells = np.where(known, values, self._categories).astype(np.int64) + self._starts
        return places

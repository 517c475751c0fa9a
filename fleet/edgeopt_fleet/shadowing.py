"""What one device compared for one shadow, as counts that are added up window by window.

Pure. ``counts`` is one array of int64, little-endian on disk: the cells of
:data:`~edgeopt_contract.agreement.AGREEMENT`, the challenger's latency, the champion's latency of the same rows, and
what was passed over. ``classes`` holds as many counts that agreed as that disagreed, by the champion's top-1; it is
empty for a model without class scores. Example::

    total = total.add(Compared.of(window))
    total.effective_windows, total.median_us(CHAMPION)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from edgeopt_contract.agreement import (
    AGREED,
    AGREEMENT,
    AGREEMENT_CELLS,
    CHAMPION_LATENCY,
    CLASS_AGREED,
    CLASS_DISAGREED,
    DIFFERENCE_EDGES,
    DIFFERENCES,
    DISAGREED,
    INCOMPARABLE,
    MOST_CLASSES,
    SAMPLING,
)
from edgeopt_contract.messages import Telemetry
from edgeopt_fleet.totals import LARGEST_COUNT, LATENCY_CELLS, latency_quantile

__all__ = ["CHALLENGER", "CHAMPION", "SMALL_DIFFERENCE", "Compared", "class_windows"]

SMALL_DIFFERENCE = 0.1  # of the mean, in standard deviations: without class scores a row agrees below that
_NEAR = DIFFERENCES + DIFFERENCE_EDGES.index(SMALL_DIFFERENCE) + 1
_SAMPLING_CELLS = 2
_GREATEST_SUM = 2**62
_STORED = np.dtype("<i8")
_NO_COUNTS = bytes((AGREEMENT_CELLS + 2 * LATENCY_CELLS + _SAMPLING_CELLS) * _STORED.itemsize)

CHALLENGER = slice(AGREEMENT_CELLS, AGREEMENT_CELLS + LATENCY_CELLS)
CHAMPION = slice(CHALLENGER.stop, CHALLENGER.stop + LATENCY_CELLS)

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The sums of some windows. What could not be compared is among ``compared`` and never among ``agreed``."""

    windows: int = 0
    compared: int = 0
    agreed: int = 0
    incomparable: int = 0
    errors: int = 0
    squares: int = 0
    counts: bytes = _NO_COUNTS
    classes: bytes = b""

    @classmethod
    def of(cls, window: Telemetry) -> Self:
        """Return the counts of one window; a part of another size, or with counts that cannot be, counts nothing."""
        cells = window.cells
        found = _fitting(cells.get(AGREEMENT, ()), AGREEMENT_CELLS)
        by_score = found[AGREED] + found[DISAGREED]
        agreed = found[AGREED] if by_score else sum(found[DIFFERENCES:_NEAR])
        compared = found[INCOMPARABLE] + (by_score or sum(found[DIFFERENCES:]))
        flat = [
            *found,
            *_fitting(window.latency, LATENCY_CELLS),
            *_fitting(cells.get(CHAMPION_LATENCY, ()), LATENCY_CELLS),
            *_fitting(cells.get(SAMPLING, ()), _SAMPLING_CELLS),
        ]
        size = min(len(cells.get(CLASS_AGREED, ())), MOST_CLASSES + 1)
        by_class = [_fitting(cells.get(name, ()), size) for name in (CLASS_AGREED, CLASS_DISAGREED)]
        return cls(
            windows=1 if compared else 0,
            compared=compared,
            agreed=agreed,
            incomparable=found[INCOMPARABLE],
            errors=window.errors,
            squares=min(compared**2, _GREATEST_SUM),
            counts=np.array(flat, dtype=_STORED).tobytes(),
            classes=np.array(by_class, dtype=_STORED).tobytes() if size else b"",
        )

    def add(self, other: Compared) -> Compared:
        """Return the sum of both."""
        sums = {
            field.name: min(getattr(self, field.name) + getattr(other, field.name), _GREATEST_SUM)
            for field in fields(self)
            if field.name not in ("counts", "classes")
        }
        return Compared(
            **sums,
            counts=(self.cells + other.cells).astype(_STORED).tobytes(),
            classes=_wider(self.by_class, other.by_class).astype(_STORED).tobytes(),
        )

    @property
    def cells(self) -> Counts:
        """The counts as an array; zeros where another layout was stored."""
        stored = self.counts if len(self.counts) == len(_NO_COUNTS) else _NO_COUNTS
        return np.frombuffer(stored, dtype=_STORED).astype(np.int64)

    @property
    def by_class(self) -> Counts:
        """Rows (2, classes) that agreed and disagreed; the last class is any other."""
        return np.frombuffer(self.classes, dtype=_STORED).astype(np.int64).reshape(2, -1)

    @property
    def effective_windows(self) -> float:
        """How many windows of equal size tell as much (Kish 1965): fewer when one holds most of the rows."""
        return float(self.compared) ** 2 / self.squares if self.squares else 0.0

    def median_us(self, part: slice) -> float | None:
        """Return the median latency of :data:`CHALLENGER` or :data:`CHAMPION` in microseconds; None without any."""
        value = float(latency_quantile(self.cells[part], 0.5))
        return value if np.isfinite(value) else None


def class_windows(sums: Iterable[Compared]) -> npt.NDArray[np.float64]:
    """Return for each class (classes,) how many windows of equal size its rows on all devices tell as much as.

    Of a device it is known how many rows come in a window, not of which classes they are; here they are all of one, so
    the true number is no smaller. Windows are weighted by their rows (Kish 1965).
    """
    total = np.zeros((2, 0))
    for one in sums:
        rows = one.by_class.sum(axis=0).astype(np.float64)
        block = np.minimum(rows, one.squares / one.compared if one.compared else 0.0)
        total = _wider(total, np.stack([rows, rows * block]))
    rows, weights = total
    return rows * np.divide(rows, weights, out=np.zeros_like(rows), where=weights > 0)


def _fitting(counts: Sequence[int], size: int) -> Sequence[int]:
    if len(counts) != size or not size or max(counts) > LARGEST_COUNT or min(counts) < 0:
        return (0,) * size
    return counts


def _wider(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sum of two tables of classes, as wide as the wider one; the last class stays the last."""
    width = max(one.shape[1], other.shape[1])
    total = np.zeros((2, width), dtype=one.dtype)
    for table in (one, other):
        if table.size:
            total[:, : table.shape[1] - 1] += table[:, :-1]
            total[:, -1] += table[:, -1]
    return total

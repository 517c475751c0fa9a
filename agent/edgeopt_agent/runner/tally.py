"""Counting what was answered into the cells that outlive this process; the agent reads them.

Example::

    tally = Tally(cells, counter, finite=frozenset({"p"}))
    tally.ran()                                          # after each run of the model
    tally.answered(1, outputs, microseconds=[412.0])     # after the whole request
    tally.count(batch, outputs)                          # its features, when the answer has left
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeopt_agent.reports.counts import LATENCY, NONFINITE, ROWS, RUNS
from edgeopt_agent.runner.arrays import Array, Batch
from edgeopt_contract.counting import ProfileCounter
from edgeopt_contract.features import LATENCY_EDGES_US

__all__ = ["Tally"]

_FEW = 100  # numbers up to which plain Python is faster


@dataclass(frozen=True, slots=True)
class Tally:
    """The cells of one bundle; ``finite`` are the outputs that the golden ones say are never NaN or infinite."""

    cells: npt.NDArray[np.int64]
    counter: ProfileCounter
    finite: frozenset[str]

    def ran(self) -> None:
        """Give a sign of life."""
        self.cells[RUNS] += 1

    def answered(self, rows: int, outputs: Mapping[str, Array], microseconds: Sequence[float]) -> int:
        """Count the rows of a request; return how many samples have NaN or infinity where they should not."""
        nonfinite = self._nonfinite(outputs, rows)
        for time in microseconds:
            self.cells[LATENCY + bisect_right(LATENCY_EDGES_US, time)] += 1
        if nonfinite:
            self.cells[NONFINITE] += nonfinite
        self.cells[ROWS] += rows  # last: what is not counted here did not happen
        return nonfinite

    def count(self, batch: Batch, outputs: Mapping[str, Array]) -> None:
        """Count the features of a request whose rows are counted."""
        self.counter.observe(batch.arrays, outputs)

    def _nonfinite(self, outputs: Mapping[str, Array], rows: int) -> int:
        bad: set[int] = set()
        for name, array in outputs.items():
            if name in self.finite and array.dtype.kind == "f" and not _is_finite(array):
                finite = np.isfinite(array.reshape(rows, -1)).all(axis=1)
                bad.update(np.flatnonzero(~finite).tolist())
        return len(bad)


def _is_finite(array: Array) -> bool:
    if array.size <= _FEW and math.isfinite(sum(array.ravel().tolist())):
        return True  # a sum that overflows does not say
    return bool(np.isfinite(array).all())

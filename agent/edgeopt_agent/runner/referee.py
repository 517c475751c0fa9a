"""Compares a challenger's outputs with the champion's, row by row, and counts into the cells of a shadow.

What the cells mean is :mod:`edgeopt_contract.agreement`. Example::

    referee = Referee(class_feature(specs), golden_outputs_of_the_champion, cells)
    referee.judge(1, {"p": champions}, {"p": challengers}, microseconds=412.0)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from edgeopt_agent.runner.arrays import Array
from edgeopt_agent.runner.selftest import LEAST_SPREAD
from edgeopt_contract.agreement import (
    AGREED,
    AGREEMENT,
    CHAMPION_LATENCY,
    CLASS_AGREED,
    CLASS_DISAGREED,
    DISAGREED,
    INCOMPARABLE,
    difference_cell,
    shadow_features,
)
from edgeopt_contract.features import LATENCY_EDGES_US, FeatureSpec

__all__ = ["Referee"]

Floats = npt.NDArray[np.float64]


class Referee:
    """``classes`` names the output with class scores, if there is one; ``golden`` has the champion's outputs.

    ``cells`` are all that :func:`~edgeopt_contract.agreement.shadow_features` lists. Raises ``ValueError`` when they
    are not as many.
    """

    def __init__(self, classes: FeatureSpec | None, golden: Mapping[str, Array], cells: npt.NDArray[np.int64]) -> None:
        self._scores = classes.tensor if classes else ""
        self._classes = classes.categories if classes else 0
        self._spreads = {name: _spread(array) for name, array in golden.items()}
        self._cells: dict[str, npt.NDArray[np.int64]] = {}
        start = 0
        for name, size in shadow_features(self._classes):
            self._cells[name] = cells[start : start + size]
            start += size
        if cells.shape != (start,):
            raise ValueError(f"expected {start} cells of a shadow, got {cells.shape}")

    def judge(self, rows: int, expected: Mapping[str, Array], got: Mapping[str, Array], microseconds: float) -> None:
        """Count a request of so many rows, which the champion answered with ``expected`` in ``microseconds``."""
        agreement = self._cells[AGREEMENT]
        differences = self._differences(rows, expected, got)
        for row, difference in enumerate(differences):
            if not np.isfinite(difference):
                agreement[INCOMPARABLE] += 1
                continue
            agreement[difference_cell(float(difference))] += 1
            if self._scores in expected:
                self._judge_class(expected[self._scores][row], got[self._scores][row])
        self._cells[CHAMPION_LATENCY][bisect_right(LATENCY_EDGES_US, microseconds / rows)] += rows

    def _judge_class(self, expected: Array, got: Array) -> None:
        best = int(expected.argmax())
        agrees = best == int(got.argmax())
        self._cells[AGREEMENT][AGREED if agrees else DISAGREED] += 1
        by_class = self._cells.get(CLASS_AGREED if agrees else CLASS_DISAGREED)
        if by_class is not None:
            by_class[min(best, self._classes)] += 1

    def _differences(self, rows: int, expected: Mapping[str, Array], got: Mapping[str, Array]) -> Floats:
        """Return for each row the greatest mean difference of an output in standard deviations.

        NaN or infinity where a row cannot be compared.
        """
        greatest = np.zeros(rows)
        with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity is NaN, and said to be none
            for name, wanted in expected.items():
                given = got.get(name)
                if given is None or given.shape != wanted.shape or len(wanted) != rows:
                    return np.full(rows, np.nan)
                off = wanted.reshape(rows, -1).astype(np.float64) - given.reshape(rows, -1).astype(np.float64)
                if off.size:
                    greatest = np.maximum(greatest, np.abs(off).mean(axis=1) / self._spreads.get(name, 1.0))
        return greatest


def _spread(outputs: Array) -> float:
    """Return the standard deviation of the finite golden outputs, or what stands for none."""
    finite = outputs[np.isfinite(outputs)] if outputs.dtype.kind == "f" else outputs
    return max(float(finite.astype(np.float64).std()), LEAST_SPREAD) if finite.size else LEAST_SPREAD

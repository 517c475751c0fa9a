"""What one pass over the calibration samples found: a histogram for each activation, by tensor name.

All calibrators read their ranges from it, and the findings of two passes can be merged. It runs no model: that is
:mod:`edgeopt.calibration.collection`. Pure. Example::

    statistics = collect(model, samples)
    ranges = {calibrator: statistics.ranges(calibrator) for calibrator in Calibrator}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.calibration.histogram import Histogram
from edgeopt.calibration.ranges import Range, range_of
from edgeopt.recipe import Calibrator

__all__ = ["Statistics"]


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Histograms of a model's float activations, in the order of its graph."""

    tensors: Mapping[str, Histogram]

    def ranges(self, calibrator: Calibrator) -> dict[str, Range]:
        """Return (low, high) of each activation; zero is always inside."""
        return {name: range_of(one, calibrator) for name, one in self.tensors.items()}

    def merge(self, other: Statistics) -> Statistics:
        """Return what one pass over the samples of both would have found."""
        empty = Histogram.empty()
        names = dict.fromkeys((*self.tensors, *other.tensors))
        return Statistics({name: self.tensors.get(name, empty).merge(other.tensors.get(name, empty)) for name in names})

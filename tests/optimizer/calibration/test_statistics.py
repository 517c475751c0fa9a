"""What one pass found, merged with another."""

from __future__ import annotations

import numpy as np

from edgeopt.calibration.histogram import Histogram
from edgeopt.calibration.statistics import Statistics
from edgeopt.recipe import Calibrator


def test_merged_statistics_are_those_of_one_pass() -> None:
    """Also where one pass met a tensor that the other did not."""
    values = np.random.default_rng(0).standard_normal((2, 500)).astype(np.float32)
    first = Statistics({"a": Histogram.of(values[0]), "b": Histogram.of(values[0] * 5)})
    second = Statistics({"a": Histogram.of(values[1])})
    together = Statistics({"a": Histogram.of(values), "b": Histogram.of(values[0] * 5)})
    for calibrator in Calibrator:
        assert together.ranges(calibrator) == first.merge(second).ranges(calibrator)
        assert together.ranges(calibrator) == second.merge(first).ranges(calibrator)

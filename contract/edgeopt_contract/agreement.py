"""What a device counts of a challenger that runs beside the champion: cells beside those of its profile. Pure.

The features have fixed names and stand in ``Telemetry.cells`` of windows with ``extra["shadow"]``; like all cells they
are added up. Every request that the challenger answered is one row. Example::

    cells = telemetry.cells[AGREEMENT]
    cells[AGREED], cells[DISAGREED], cells[INCOMPARABLE]
    sum(cells[DIFFERENCES:])                       # every row that could be compared
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from edgeopt_contract.features import LATENCY_EDGES_US, FeatureSpec, Source, Summary

__all__ = [
    "AGREED",
    "AGREEMENT",
    "AGREEMENT_CELLS",
    "CHAMPION_LATENCY",
    "CLASS_AGREED",
    "CLASS_DISAGREED",
    "DIFFERENCES",
    "DIFFERENCE_EDGES",
    "DISAGREED",
    "INCOMPARABLE",
    "MOST_CLASSES",
    "PASSED_OVER",
    "PAUSED_SECONDS",
    "SAMPLING",
    "class_feature",
    "difference_cell",
    "shadow_features",
]

AGREEMENT = "agreement"  # of one row with the champion's answer to the same inputs
AGREED = 0  # the same top-1, where an output holds class scores
DISAGREED = 1  # another one
INCOMPARABLE = 2  # other shapes, or NaN or infinity on either side
DIFFERENCES = 3  # here begin the cells of the mean difference, of every row that could be compared
# In standard deviations of the champion's golden outputs: half a decade each, one cell below and one beyond.
DIFFERENCE_EDGES: tuple[float, ...] = tuple(10 ** (step / 2 - 4) for step in range(15))
AGREEMENT_CELLS = DIFFERENCES + len(DIFFERENCE_EDGES) + 1

CHAMPION_LATENCY = "champion_latency"  # the champion's own, of the same rows, in the cells of Telemetry.latency
CLASS_AGREED = "class_agreed"  # rows by the champion's top-1; the last cell is any other
CLASS_DISAGREED = "class_disagreed"
MOST_CLASSES = 1000  # beyond that the rows are not told apart by class

SAMPLING = "sampling"  # of the requests that should have been compared, what was not
PASSED_OVER = 0  # requests: the challenger was busy or being started again
PAUSED_SECONDS = 1  # seconds in which the device had no room for it, or was too hot


def class_feature(features: Iterable[FeatureSpec]) -> FeatureSpec | None:
    """Return the feature of a profile that names the output with class scores; ``None``: no output holds any."""
    return next((spec for spec in features if spec.source is Source.OUTPUT and spec.summary is Summary.TOP1), None)


def shadow_features(classes: int) -> tuple[tuple[str, int], ...]:
    """Return names and numbers of cells, in the order in which a device counts; ``classes`` 0: no class scores."""
    by_class = classes + 1 if 0 < classes <= MOST_CLASSES else 0
    return (
        (AGREEMENT, AGREEMENT_CELLS),
        (CHAMPION_LATENCY, len(LATENCY_EDGES_US) + 1),
        *(((CLASS_AGREED, by_class), (CLASS_DISAGREED, by_class)) if by_class else ()),
        (SAMPLING, 2),
    )


def difference_cell(difference: float) -> int:
    """Return the cell of :data:`AGREEMENT` for a mean difference in standard deviations."""
    return DIFFERENCES + bisect_right(DIFFERENCE_EDGES, difference)

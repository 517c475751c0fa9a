"""What is counted of a challenger: names, numbers of cells, and which cell a difference falls into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.agreement import (
    AGREEMENT,
    AGREEMENT_CELLS,
    CHAMPION_LATENCY,
    CLASS_AGREED,
    CLASS_DISAGREED,
    DIFFERENCE_EDGES,
    DIFFERENCES,
    SAMPLING,
    difference_cell,
    shadow_features,
)


def test_names_and_cells_literally() -> None:
    """The fleet stores them by these names and adds them up by place: they are part of the protocol."""
    plain = (("agreement", 19), ("champion_latency", 58), ("sampling", 2))
    assert plain == shadow_features(0) == shadow_features(1001)
    by_class = (("class_agreed", 4), ("class_disagreed", 4))
    assert (*plain[:2], *by_class, plain[2]) == shadow_features(3)
    assert ("agreement", "champion_latency", "class_agreed", "class_disagreed", "sampling") == (
        AGREEMENT,
        CHAMPION_LATENCY,
        CLASS_AGREED,
        CLASS_DISAGREED,
        SAMPLING,
    )


@pytest.mark.parametrize(
    ("difference", "cell"),
    [(0.0, 3), (0.99e-4, 3), (1e-4, 4), (1.0, 12), (3.0, 12), (3.17, 13), (999.0, 17), (1000.0, 18), (1e300, 18)],
)
def test_differences_fall_into_half_decades(difference: float, cell: int) -> None:
    """An edge belongs to the cell above it; the first cell is below all edges, the last beyond them."""
    assert cell == difference_cell(difference)


@given(difference=st.floats(0, allow_nan=False))
def test_every_difference_has_a_cell(difference: float) -> None:
    """And it is the one between its edges."""
    cell = difference_cell(difference)
    assert DIFFERENCES <= cell < AGREEMENT_CELLS
    edges = (float("-inf"), *DIFFERENCE_EDGES, float("inf"))
    assert edges[cell - DIFFERENCES] <= difference
    assert difference <= edges[cell - DIFFERENCES + 1]

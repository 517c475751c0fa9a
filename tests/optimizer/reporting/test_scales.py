"""Where numbers lie in a picture, and which are written at its axes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edgeopt.reporting.scales import Scale, round_ticks, spaced_ticks, trimmed_range


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 8))
def test_ticks_are_round_few_and_inside(low: float, width: float, count: int) -> None:
    """Equal steps within the range."""
    ticks = round_ticks(low, low + width, count)
    assert 1 <= len(ticks) <= count + 2
    assert all(low - width * 1e-6 <= tick <= low + width * (1 + 1e-6) for tick in ticks)


@given(st.floats(1e-9, 1e6))
def test_ticks_of_the_stretched_scale_do_not_touch(high: float) -> None:
    """At least the gap between neighbours, from zero on."""
    scale = Scale(low=0.0, high=high, start=0.0, end=200.0, stretched=True)
    ticks = spaced_ticks(scale, gap=30)
    assert 0.0 == ticks[0]
    assert all(scale(after) - scale(before) >= 30 for before, after in pairwise(ticks))


def test_a_scale_ends_at_its_edges_and_knows_what_lies_beyond() -> None:
    """What is beyond is drawn at the edge; square roots give small numbers more room."""
    scale = Scale(low=0.0, high=4.0, start=100.0, end=300.0, stretched=True)
    assert (100.0, 200.0, 300.0, 300.0) == (scale(-1), scale(1), scale(4), scale(9))
    assert (True, False) == (scale.holds(4), scale.holds(4.1))


def test_the_range_leaves_out_the_ends_of_long_series_only() -> None:
    """And always holds the number that all is compared with."""
    low, high = trimmed_range([(0.1, 1.4, 1.5, 1.6, 9.0)], always=1.0)
    assert 0.9 < low < 1.0
    assert 1.6 < high < 1.8
    low, high = trimmed_range([(0.1, 9.0)], always=1.0)
    assert low < 0.1
    assert 9.0 < high

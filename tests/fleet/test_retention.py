from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.retention import DAY, HOUR, Keep, Sums, add_up, bucket, may_go, unneeded

YEAR = 365 * DAY


@given(end=st.integers(-(2**53), 2**53), received=st.integers(2 * YEAR, 2**33), seconds=st.sampled_from([HOUR, DAY]))
def test_a_bucket_is_whole_and_believes_no_absurd_clock(end: int, received: int, seconds: int) -> None:
    """A multiple of an hour or a day; the right one where the clock can be right, never in the future."""
    start = bucket(end, received + 0.5, seconds)
    assert 0 == start % seconds
    assert start <= received
    assert start > received - 402 * DAY
    if received - 400 * DAY <= end <= received:
        assert start <= end < start + seconds


@given(end=st.integers(0, 2**33))
def test_the_hours_of_a_day_are_the_day_s(end: int) -> None:
    """Rolling up twice gives what rolling up at once gives."""
    hour = bucket(end, end, HOUR)
    assert bucket(end, end, DAY) == bucket(hour, hour, DAY)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9), st.integers(0, 99)), min_size=1), st.data())
def test_sums_do_not_depend_on_the_order(windows: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """However windows are grouped, their sum is the same, and none is counted twice."""
    parts = [Sums.of_window(rows, errors, np.array([count, rows])) for rows, errors, count in windows]
    shuffled = data.draw(st.permutations(parts))
    cut = data.draw(st.integers(0, len(parts) - 1))
    whole, halves = add_up(parts), add_up([*shuffled[:cut], add_up(shuffled[cut:])])
    assert (len(windows), sum(rows for rows, _, _ in windows)) == (whole.windows, whole.rows)
    assert (whole.windows, whole.rows, whole.errors) == (halves.windows, halves.rows, halves.errors)
    assert whole.counts.tolist() == halves.counts.tolist()


def test_a_window_waits_for_the_slowest_look() -> None:
    """What a look has not seen stays; bundles that nobody watches wait for nobody."""
    assert [True, True, False, True] == [
        may_go(5, "b", {"b": 7}), may_go(7, "b", {"b": 7}), may_go(8, "b", {"b": 7}), may_go(8, "c", {"b": 7})
    ]  # fmt: skip


def test_bundles_in_use_and_young_ones_stay() -> None:
    """Both must be so: nobody needs it, and it is old enough."""
    created = {"old": 0.0, "used": 0.0, "young": 100 * DAY}
    assert ["old"] == unneeded(created, {"used"}, 101.0 * DAY, Keep(bundle_days=90))
    assert [] == unneeded(created, {"used"}, 89.0 * DAY, Keep(bundle_days=90))

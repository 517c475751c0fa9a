from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from edgeopt_fleet.gate.bounds import divergence, effective, lower_bound, upper_bound, values_needed

shares = st.floats(0, 1)
alphas = st.floats(1e-6, 0.5)


def test_all_agreed_gives_the_bound_of_textbooks() -> None:
    """Of n values that are all 1 the bound is alpha ** (1 / n): 0.95 from 59 on."""
    assert 0.05 ** (1 / 59) == pytest.approx(lower_bound(1.0, 59, 0.05))
    assert 59 == values_needed(1.0, 0.95, 0.05)
    assert 0.0 == lower_bound(0.5, 0, 0.05)
    assert 1.0 == upper_bound(0.5, 0, 0.05)


@given(shares, st.floats(1, 1e6), alphas)
def test_bounds_surround_what_was_seen_and_mirror_each_other(seen: float, n: float, alpha: float) -> None:
    """And more values bring them nearer."""
    low, high = lower_bound(seen, n, alpha), upper_bound(seen, n, alpha)
    assert 0 <= low <= seen + 1e-9
    assert seen - 1e-9 <= high <= 1
    assert high == pytest.approx(1 - lower_bound(1 - seen, n, alpha), abs=1e-9)
    assert low <= lower_bound(seen, 2 * n, alpha) + 1e-9


@given(st.floats(0.01, 1), st.floats(0.01, 0.99), alphas)
def test_so_many_values_are_enough_and_one_less_is_not(seen: float, limit: float, alpha: float) -> None:
    """What is said to be missing is what is missing."""
    needed = values_needed(seen, limit, alpha)
    if seen <= limit:
        assert math.isinf(needed)
        return
    if divergence(seen, limit) < 1e-9:
        return
    assert lower_bound(seen, needed, alpha) >= limit - 1e-6
    assert lower_bound(seen, max(needed - 1.01, 0), alpha) <= limit + 1e-6


@pytest.mark.parametrize("true", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [1, 5, 30, 200])
def test_the_error_is_no_more_than_stated_for_the_widest_distribution(true: float, n: int) -> None:
    """Computed exactly for values that are 0 or 1: of all with this mean they lie furthest apart."""
    seen = np.arange(n + 1)
    above = np.array([lower_bound(one / n, n, 0.05) > true for one in seen])
    below = np.array([upper_bound(one / n, n, 0.05) < true for one in seen])
    chances = binom.pmf(seen, n, true)
    assert chances[above].sum() <= 0.05
    assert chances[below].sum() <= 0.05


def test_uneven_groups_count_for_less() -> None:
    """Even groups count in full; one with a single value says as much as that."""
    assert 60 == pytest.approx(effective([20.0, 20.0, 20.0]))
    assert effective([100.0, 1.0]) < 4
    assert 0 == effective([]) == effective([5.0, 0.0])

"""The histogram that grows: exact, whatever the order and the parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt.calibration.histogram import SIDE, Histogram

LARGE = float(np.float32(1e15))
SMALL = float(np.float32(1e-15))
FINITE = st.just(0.0) | st.floats(SMALL, LARGE, width=32) | st.floats(-LARGE, -SMALL, width=32)
VALUES = hnp.arrays(np.float32, st.integers(0, 60), elements=FINITE)
ORDINARY = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1000, 1000, width=32))


def same(first: Histogram, second: Histogram) -> bool:
    """Compare all fields."""
    return (first.exponent, first.low, first.high) == (second.exponent, second.low, second.high) and np.array_equal(
        first.counts, second.counts
    )


@given(VALUES, VALUES, VALUES)
def test_parts_and_order_do_not_matter(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> None:
    """Merging is commutative and associative, and gives what counting all at once gives."""
    at_once = Histogram.of(np.concatenate([first, second, third]))
    one, two, three = (Histogram.of(values) for values in (first, second, third))
    assert same(at_once, one.merge(two).merge(three))
    assert same(at_once, three.merge(two.merge(one)))


@given(ORDINARY)
def test_numpy_counts_the_same(values: np.ndarray) -> None:
    """numpy.histogram is the oracle, with the same edges."""
    histogram = Histogram.of(values)
    edges = np.arange(-SIDE, SIDE + 1) * histogram.width
    assert np.array_equal(np.histogram(values.astype(np.float64), edges)[0], histogram.counts)
    assert (values.min(), values.max()) == (histogram.low, histogram.high)


@given(ORDINARY.filter(lambda values: bool(np.abs(values).max() > 1e-20)))
def test_bins_are_no_wider_than_those_of_onnxruntime(values: np.ndarray) -> None:
    """ONNX Runtime's percentile calibrator has 2,048 of them for the greatest magnitude."""
    assert Histogram.of(values).width <= np.abs(values).max() / 2048


@given(VALUES, st.integers(0, 300))
@settings(max_examples=50)
def test_coarser_bins_lose_no_value_and_mix_no_signs(values: np.ndarray, doublings: int) -> None:
    """Zero stays an edge."""
    histogram = Histogram.of(values)
    coarse = histogram.coarsened(histogram.exponent + doublings)
    assert histogram.total == coarse.total
    assert histogram.counts[:SIDE].sum() == coarse.counts[:SIDE].sum()


def test_bins_cannot_be_split() -> None:
    """What was counted together stays together."""
    histogram = Histogram.of(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="cannot be split"):
        histogram.coarsened(histogram.exponent - 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_refused(bad: float) -> None:
    """Among good values, too."""
    with pytest.raises(ValueError, match="NaN or infinity"):
        Histogram.of(np.array([1.0, bad, 2.0], np.float32))


def test_nothing_counted_changes_nothing() -> None:
    """An empty tensor, before or after."""
    histogram = Histogram.of(np.array([-3.0, 0.5], np.float32))
    empty = Histogram.of(np.zeros((0, 4), np.float32))
    assert 0 == empty.total
    assert same(histogram, empty.merge(histogram))
    assert same(histogram, histogram.merge(empty))


def test_half_precision_counts_like_single() -> None:
    """Activations of float16 models."""
    values = np.linspace(-3, 5, 1000).astype(np.float16)
    assert same(Histogram.of(values.astype(np.float32)), Histogram.of(values))

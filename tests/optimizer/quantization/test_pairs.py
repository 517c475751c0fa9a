"""Eight bits that no pair of products overflows: exact on any CPU, finer than seven, for any weights."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.quantization.pairs import pair_safe
from edgeopt.saturation import saturating_product

FLOATS = st.floats(-4, 4, width=32) | st.sampled_from([-1.0, 0.0, 1.0, 3.0])
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9))


@given(st.data(), SHAPES)
def test_no_activations_saturate(data: st.DataObject, shape: tuple[int, int]) -> None:
    """The brightest ones in any places included: what VPMADDUBSW adds is the exact sum."""
    weights = data.draw(arrays.arrays(np.float32, shape, elements=FLOATS))
    rows = data.draw(arrays.arrays(np.uint8, (3, shape[1]), elements=st.sampled_from([0, 1, 254, 255])))
    integers, _ = pair_safe(weights)
    assert np.array_equal(rows.astype(np.int64) @ integers.T.astype(np.int64), saturating_product(rows, integers))


@given(st.data(), SHAPES)
def test_rounding_is_to_the_nearest_and_as_fine_as_seven_bits(data: st.DataObject, shape: tuple[int, int]) -> None:
    """Half a step at most is lost, and a step is no coarser than 1/63.5 nor finer than 1/127 of the greatest weight."""
    weights = data.draw(arrays.arrays(np.float32, shape, elements=FLOATS))
    integers, scales = pair_safe(weights)
    greatest = np.abs(weights).max(axis=1)
    lost = np.abs(integers * scales[:, None].astype(np.float64) - weights).max(axis=1)
    assert (lost <= scales * 0.5001).all()
    assert (scales[greatest > 0] <= 1.0001 * greatest[greatest > 0] / 63.5).all()
    assert (scales[greatest > 0] >= 0.9999 * greatest[greatest > 0] / 127).all()


def test_only_neighbours_of_one_sign_cost_range() -> None:
    """Large weights of two signs, or in two pairs, leave all eight bits; the same two as a pair leave seven."""
    _, scales = pair_safe(np.array([[1, -1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], np.float32))
    np.testing.assert_allclose([1 / 127, 1 / 127, 2 / 127], scales, rtol=1e-6)


def test_an_output_of_zeros_keeps_a_scale() -> None:
    """Nothing is divided by zero."""
    integers, scales = pair_safe(np.zeros((2, 3), np.float32))
    assert (0, 1.0) == (int(np.abs(integers).max()), float(scales.max()))

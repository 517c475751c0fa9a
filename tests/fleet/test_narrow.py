from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeopt_fleet.narrow import narrow, widen


@given(arrays.arrays(np.int64, st.tuples(st.integers(0, 6), st.integers(1, 9)), elements=st.integers(0, 2**62)))
def test_counts_come_back(stack: np.ndarray) -> None:
    """Whatever the counts, the same ones come back, each window in the narrowest width."""
    blobs = narrow(stack)
    assert len(stack) == len(blobs)
    for row, blob in zip(stack, blobs, strict=True):
        assert row.tolist() == widen(blob, stack.shape[1]).tolist()


@pytest.mark.parametrize(("greatest", "width"), [(255, 1), (256, 2), (65535, 2), (65536, 4), (2**32, 8)])
def test_a_count_takes_the_bytes_it_needs(greatest: int, width: int) -> None:
    """The greatest count of a window decides for the window."""
    assert 3 * width == len(narrow(np.array([[0, 1, greatest]]))[0])


def test_bytes_of_another_layout_are_zeros() -> None:
    """A window that was stored before its bundle's profile was here cannot be read as something else."""
    assert [0, 0] == widen(b"12345", 2).tolist()

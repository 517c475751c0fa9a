"""Fitting a caller's arrays to a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeopt_agent.arrays import fit_inputs
from edgeopt_contract.errors import DataError
from edgeopt_contract.manifest import TensorSpec

X = TensorSpec(name="x", dtype="float32", shape=(2, 3))
N = TensorSpec(name="n", dtype="int64", shape=())


@pytest.mark.parametrize(
    "value", [np.ones((2, 3)), np.ones((2, 3), np.uint8), [[1, 1, 1], [1, 1, 1]], np.ones((3, 2)).T]
)
def test_array_becomes_a_batch_of_one(value: Any) -> None:
    """Lists, integers, doubles and other layouts become the model's dtype, contiguous, with a first axis."""
    arrays, is_batch = fit_inputs([X], value)
    assert ((1, 2, 3), np.float32, 6, True) == (
        arrays["x"].shape, arrays["x"].dtype, arrays["x"].sum(), arrays["x"].flags.c_contiguous
    )  # fmt: skip
    assert not is_batch


def test_one_more_axis_is_a_batch() -> None:
    """Rows stay rows, and the caller gets them back as rows."""
    arrays, is_batch = fit_inputs([X, N], {"n": [7, 8], "x": np.zeros((2, 2, 3))})
    assert ({"x": (2, 2, 3), "n": (2,)}, True) == ({name: array.shape for name, array in arrays.items()}, is_batch)


def test_arrays_by_name_fit_several_inputs() -> None:
    """A mapping names its inputs; a scalar has the empty shape."""
    arrays, is_batch = fit_inputs([X, N], {"n": 7, "x": np.zeros((2, 3))})
    assert ({"x": (1, 2, 3), "n": (1,)}, False) == ({name: array.shape for name, array in arrays.items()}, is_batch)


@pytest.mark.parametrize("size", [0, -1])
def test_open_dimension_takes_any_size(size: int) -> None:
    """A size below one in the manifest is open."""
    spec = TensorSpec(name="x", dtype="float32", shape=(size, 3))
    assert (1, 9, 3) == fit_inputs([spec], np.ones((9, 3)))[0]["x"].shape


@pytest.mark.parametrize(
    ("specs", "value", "reason"),
    [
        ([X], np.ones((3, 2)), r"expected shape \(2, 3\)"),
        ([X], np.ones((1, 1, 2, 3)), "or rows of that shape"),
        ([X, N], np.ones((2, 3)), "expected arrays by name"),
        ([X], {"y": np.ones((2, 3))}, "expected the inputs x, got y"),
        ([X], {"x": np.ones((2, 3)), "y": 1}, "expected the inputs x"),
        ([X, N], {"x": np.ones((4, 2, 3)), "n": [1, 2]}, "as many rows"),
        ([X, N], {"x": np.ones((4, 2, 3)), "n": 1}, "expected shape"),
        ([N], 1.5, "expected int64"),
        ([X], "a picture", "expected float32"),
        ([X], [[1, 2], [3]], "expected float32"),
    ],
)
def test_input_that_does_not_fit_is_refused(specs: list[TensorSpec], value: Any, reason: str) -> None:
    """Wrong shapes, names, and values that would lose their fraction are each explained."""
    with pytest.raises(DataError, match=reason):
        fit_inputs(specs, value)

"""Fitting inputs to a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeopt_agent.tensors import fit_inputs
from edgeopt_contract.errors import DataError
from edgeopt_contract.manifest import TensorSpec

X = TensorSpec(name="x", dtype="float32", shape=(2, 3))
N = TensorSpec(name="n", dtype="int64", shape=())


@pytest.mark.parametrize("value", [np.ones((2, 3)), np.ones((2, 3), np.uint8), [[1, 1, 1], [1, 1, 1]]])
def test_array_becomes_a_batch_of_one(value: Any) -> None:
    """Lists, integers and doubles become the model's dtype, with a first axis."""
    (array,) = fit_inputs([X], value).values()
    assert ((1, 2, 3), np.float32, 6) == (array.shape, array.dtype, array.sum())


def test_arrays_by_name_fit_several_inputs() -> None:
    """A mapping names its inputs; a scalar has the empty shape."""
    fitted = fit_inputs([X, N], {"n": 7, "x": np.zeros((2, 3))})
    assert {"x": (1, 2, 3), "n": (1,)} == {name: array.shape for name, array in fitted.items()}


def test_open_dimension_takes_any_size() -> None:
    """A size below one in the manifest is open."""
    assert (1, 9, 3) == fit_inputs([TensorSpec(name="x", dtype="float32", shape=(-1, 3))], np.ones((9, 3)))["x"].shape


@pytest.mark.parametrize(
    ("specs", "value", "reason"),
    [
        ([X], np.ones((3, 2)), r"expected shape \(2, 3\)"),
        ([X], np.ones((1, 2, 3)), "without batch dimension"),
        ([X, N], np.ones((2, 3)), "expected arrays by name"),
        ([X], {"y": np.ones((2, 3))}, "expected the inputs x, got y"),
        ([X], {"x": np.ones((2, 3)), "y": 1}, "expected the inputs x"),
        ([N], 1.5, "expected int64"),
        ([X], "a picture", "expected float32"),
        ([X], [[1, 2], [3]], "expected float32"),
    ],
)
def test_input_that_does_not_fit_is_refused(specs: list[TensorSpec], value: Any, reason: str) -> None:
    """Wrong shapes, names, and values that would lose their fraction are each explained."""
    with pytest.raises(DataError, match=reason):
        fit_inputs(specs, value)

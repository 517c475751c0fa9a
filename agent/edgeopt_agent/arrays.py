"""Fitting a caller's arrays to what the model takes. Pure; for programs beside the agent, which itself has no NumPy.

Example::

    arrays, is_batch = fit_inputs(model.inputs, row)      # {"x": array of shape (1, 4), float32}, False
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_contract.errors import DataError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["fit_inputs"]

Array = npt.NDArray[Any]


def fit_inputs(specs: Sequence[TensorSpec], inputs: Any) -> tuple[dict[str, Array], bool]:
    """Return the inputs in the model's dtypes with an axis of rows in front, and whether they had that axis before.

    ``inputs`` is an array for a model with one input, or a mapping from names to arrays. An array with as many axes as
    the manifest says is one sample; with one more it is a batch, and then all must be. A size below 1 in the manifest
    takes any size there. Raises :class:`DataError`.
    """
    if not isinstance(inputs, Mapping):
        if len(specs) != 1:
            raise DataError(f"the model has {len(specs)} inputs: expected arrays by name, got {type(inputs).__name__}")
        inputs = {specs[0].name: inputs}
    if sorted(map(str, inputs)) != sorted(spec.name for spec in specs):
        names = ", ".join(spec.name for spec in specs)
        raise DataError(f"expected the inputs {names}, got {', '.join(map(str, inputs))}")
    arrays = {spec.name: _cast(spec, inputs[spec.name]) for spec in specs}
    batches = {arrays[spec.name].ndim == len(spec.shape) + 1 for spec in specs}
    is_batch = batches == {True}
    fitted = {name: array if is_batch else array[np.newaxis] for name, array in arrays.items()}
    for spec in specs:
        _check_shape(spec, arrays[spec.name].shape, fitted[spec.name].shape[1:])
    if len({len(array) for array in fitted.values()}) > 1:
        raise DataError("expected as many rows for each input")
    return fitted, is_batch


def _cast(spec: TensorSpec, value: Any) -> Array:
    try:
        array = np.asarray(value)
        return np.ascontiguousarray(array.astype(spec.dtype, casting="same_kind", copy=False)).reshape(array.shape)
    except (TypeError, ValueError) as error:
        raise DataError(f"input {spec.name}: expected {spec.dtype}, got {type(value).__name__}: {error}") from error


def _check_shape(spec: TensorSpec, given: tuple[int, ...], row: tuple[int, ...]) -> None:
    same = len(row) == len(spec.shape) and all(
        want < 1 or want == have for have, want in zip(row, spec.shape, strict=True)
    )
    if not same:
        raise DataError(f"input {spec.name}: expected shape {spec.shape}, or rows of that shape, got {given}")

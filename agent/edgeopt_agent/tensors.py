"""Fitting what a caller gives to what the model takes. Pure.

Example::

    fit_inputs(manifest.inputs, row)             # {"x": array of shape (1, 4), float32}
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


def fit_inputs(specs: Sequence[TensorSpec], inputs: Any) -> dict[str, Array]:
    """Return one sample as arrays with a first axis of one, in the model's dtypes.

    ``inputs`` is an array for a model with one input, or a mapping from names to arrays; no batch dimension. A shape
    of the manifest with a size below 1 takes any size there. Raises :class:`DataError`.
    """
    if not isinstance(inputs, Mapping):
        if len(specs) != 1:
            raise DataError(f"the model has {len(specs)} inputs: expected arrays by name, got {type(inputs).__name__}")
        inputs = {specs[0].name: inputs}
    missing = [spec.name for spec in specs if spec.name not in inputs]
    if missing or len(inputs) != len(specs):
        names = ", ".join(spec.name for spec in specs)
        raise DataError(f"expected the inputs {names}, got {', '.join(map(str, inputs))}")
    return {spec.name: _fit(spec, inputs[spec.name]) for spec in specs}


def _fit(spec: TensorSpec, value: Any) -> Array:
    try:
        array = np.asarray(value)
        fitted = array.astype(spec.dtype, casting="same_kind", copy=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"input {spec.name}: expected {spec.dtype}, got {type(value).__name__}: {error}") from error
    same = len(array.shape) == len(spec.shape) and all(
        want in (have, 0) or want < 0 for have, want in zip(array.shape, spec.shape, strict=True)
    )
    if not same:
        raise DataError(f"input {spec.name}: expected shape {spec.shape} without batch dimension, got {array.shape}")
    return fitted[np.newaxis]

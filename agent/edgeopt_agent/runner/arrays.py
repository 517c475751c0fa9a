"""Tensors as NumPy arrays, and whether they fit the model. Only the runner imports this. Pure.

Example::

    batch = fit_inputs(manifest.inputs, request.tensors)        # Batch({"x": …}, rows=1, single=True)
    tensor_of("p", outputs["p"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_agent.runner.frames import Tensor
from edgeopt_contract.errors import DataError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["Array", "Batch", "array_of", "fit_inputs", "tensor_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs by name, first axis samples; ``single`` when they came as one sample without that axis."""

    arrays: dict[str, Array]
    rows: int
    single: bool


def tensor_of(name: str, array: Array) -> Tensor:
    """Wrap ``array``."""
    return Tensor(name, array.dtype.name, array.shape, array.tobytes())


def array_of(tensor: Tensor) -> Array:
    """Return the array, read-only. Raises :class:`DataError` when bytes, shape and dtype contradict each other."""
    try:
        dtype = np.dtype(tensor.dtype)
        if dtype.hasobject or min(tensor.shape, default=0) < 0:
            raise ValueError("expected a plain dtype and a shape without negative sizes")
        return np.frombuffer(tensor.data, dtype=dtype).reshape(tensor.shape)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"input {tensor.name}: {len(tensor.data)} bytes are no {tensor.dtype} of shape {tensor.shape}: {error}"
        ) from error


def fit_inputs(specs: Sequence[TensorSpec], tensors: Sequence[Tensor]) -> Batch:
    """Return ``tensors`` as arrays with a first axis for the samples, in the model's dtypes.

    Each has either the rank of its spec (one sample) or one axis more (a batch). A size below 1 in the spec takes any
    size. The name may be empty for a model with one input. Raises :class:`DataError`.
    """
    given = {tensor.name: tensor for tensor in tensors}
    if len(specs) == 1 and len(tensors) == 1 and not tensors[0].name:
        given = {specs[0].name: tensors[0]}
    if len(tensors) != len(specs) or any(spec.name not in given for spec in specs):
        wanted = ", ".join(spec.name for spec in specs)
        raise DataError(f"expected the inputs {wanted}, got {', '.join(tensor.name or '?' for tensor in tensors)}")
    fitted = {spec.name: _fit(spec, array_of(given[spec.name])) for spec in specs}
    single = {array.ndim == len(spec.shape) for spec, array in zip(specs, fitted.values(), strict=True)}
    if len(single) != 1:
        raise DataError("expected all inputs as one sample, or all as a batch; some have a batch dimension, some not")
    if single == {True}:
        return Batch({name: array[np.newaxis] for name, array in fitted.items()}, 1, single=True)
    rows = {len(array) for array in fitted.values()}
    if len(rows) != 1 or rows == {0}:
        raise DataError(f"expected as many samples for each input and at least one, got {sorted(rows)}")
    return Batch(fitted, rows.pop(), single=False)


def _fit(spec: TensorSpec, array: Array) -> Array:
    try:
        fitted = array.astype(spec.dtype, casting="same_kind", copy=False)
    except TypeError as error:
        raise DataError(f"input {spec.name}: expected {spec.dtype}, got {array.dtype}: {error}") from error
    sizes = array.shape[len(array.shape) - len(spec.shape) :]
    same = array.ndim - len(spec.shape) in (0, 1) and all(
        want < 1 or want == have for have, want in zip(sizes, spec.shape, strict=True)
    )
    if not same:
        raise DataError(f"input {spec.name}: expected shape {spec.shape}, or a batch of that, got {array.shape}")
    return fitted

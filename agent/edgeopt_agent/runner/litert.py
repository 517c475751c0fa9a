"""LiteRT on the CPU.

Where a tensor of the model is an 8-bit number with a scale, floats go in and come out, as for every other runtime.
Whole numbers of 64 bits, of which the converter makes 32, are made smaller if they fit. Example::

    model = open_model(order)
    model.run({"x": array})["p"]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeopt_agent.runner.arrays import Array
from edgeopt_agent.runner.port import Order
from edgeopt_contract.errors import DataError, MissingExtraError, ModelError

__all__ = ["open_model"]


class _Session:
    def __init__(self, interpreter: Any) -> None:
        signatures = list(interpreter.get_signature_list())
        if len(signatures) != 1:
            raise ModelError(f"the model has {len(signatures)} signatures: expected one")
        runner = interpreter.get_signature_runner(signatures[0])
        self._interpreter = interpreter
        self._in: dict[str, Any] = runner.get_input_details()
        self._out: dict[str, Any] = runner.get_output_details()
        self.inputs = list(self._in)
        self.outputs = list(self._out)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        for name, tensor in self._in.items():
            self._interpreter.set_tensor(tensor["index"], _inside(name, inputs[name], tensor))
        self._interpreter.invoke()
        return {
            name: _outside(self._interpreter.get_tensor(tensor["index"]), tensor) for name, tensor in self._out.items()
        }


def open_model(order: Order) -> _Session:
    """Load a ``.tflite`` model; raises what LiteRT raises, or :class:`MissingExtraError`."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("ai_edge_litert", "litert") from error
    interpreter = Interpreter(model_content=order.data, num_threads=order.threads)
    interpreter.allocate_tensors()
    return _Session(interpreter)


def _has_scale(tensor: Mapping[str, Any]) -> bool:
    return tensor["quantization"][0] != 0 and np.issubdtype(tensor["dtype"], np.integer)


def _inside(name: str, array: Array, tensor: Mapping[str, Any]) -> Array:
    """Return ``array`` as the model takes it."""
    dtype = np.dtype(tensor["dtype"])
    if dtype.kind not in "iu":
        return array.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    if array.dtype.kind == "f" and _has_scale(tensor):
        scale, zero = tensor["quantization"]
        with np.errstate(invalid="ignore"):  # NaN has no place among eight bits; any number will do
            return np.asarray(np.clip(np.rint(array / scale) + zero, limits.min, limits.max)).astype(dtype)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise DataError(f"input {name}: expected numbers from {limits.min} to {limits.max}, got greater ones")
    return array.astype(dtype, copy=False)


def _outside(array: Array, tensor: Mapping[str, Any]) -> Array:
    if not _has_scale(tensor):
        return array
    scale, zero = tensor["quantization"]
    floats: Array = ((array.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)
    return floats

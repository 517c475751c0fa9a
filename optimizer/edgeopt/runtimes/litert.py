"""Running a ``.tflite`` model with LiteRT's interpreter on the CPU, one sample at a time.

Inputs and outputs have the names of the model's signature, which :mod:`edgeopt.runtimes.litert_convert` makes those of
the ONNX model. Where they are 8-bit numbers with a scale, floats go in and come out here, as they do for every other
runtime. Whole numbers of 64 bits, of which the converter makes 32, may still come as 64 bits. The shapes are fixed when
the model is converted; the layout is the module's (NCHW). Example::

    session = LiteRtSession(Path("int8.tflite").read_bytes(), threads=1)
    session.predict(samples)["logits"].shape          # (n, 10)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgeopt.runtimes.batches import Batches
from edgeopt.samples import Array
from edgeopt.silence import silenced, silenced_natively
from edgeopt_contract.errors import MissingExtraError, ModelError

__all__ = ["LiteRtSession"]


class LiteRtSession(Batches):
    """A loaded model. The first axis of every input and output is the batch, which is one."""

    converted = frozenset({("int32", "int64")})

    def __init__(self, model: bytes, *, threads: int) -> None:
        """Load ``model``, which must have one signature. Raises :class:`ModelError`."""
        interpreter = _interpreter()
        try:
            with silenced_natively():  # it announces its first delegate
                self._interpreter = interpreter(model_content=model, num_threads=threads)
                self._interpreter.allocate_tensors()
            self._in, self._out = _signature(self._interpreter)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"LiteRT cannot load the model: {error}") from error
        super().__init__(
            {
                name: (_outside(tensor), tuple(int(size) for size in tensor["shape"][1:]))
                for name, tensor in self._in.items()
            },
            list(self._out),
            batch=1,
        )

    def call_on(self, feeds: dict[str, Array]) -> Callable[[], object]:
        """Return a function that runs ``feeds`` (of one sample) and does nothing else.

        Quantizing the inputs belongs to it where the model takes 8-bit numbers: a device does it for each sample.
        """
        self._check(feeds)
        for name, array in feeds.items():
            _check_range(name, array, self._in[name]["dtype"])
        tensors = [(self._in[name], array) for name, array in feeds.items()]
        put, invoke, take = self._interpreter.set_tensor, self._interpreter.invoke, self._interpreter.get_tensor
        results = [tensor["index"] for tensor in self._out.values()]

        def run() -> object:
            for tensor, array in tensors:
                put(tensor["index"], _inside(array, tensor))
            invoke()
            return [take(index) for index in results]

        return run

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        self.call_on(feeds)()
        return {
            name: _dequantized(self._interpreter.get_tensor(tensor["index"]), tensor)
            for name, tensor in self._out.items()
        }


def _signature(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the details of each input and output by its name in the only signature."""
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        raise ModelError(f"the .tflite model has {len(signatures)} signatures: expected one")
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    for name, tensor in inputs.items():
        if len(tensor["shape"]) == 0 or tensor["shape"][0] != 1:
            raise ModelError(f"input '{name}' is {list(tensor['shape'])}: expected a first dimension of 1")
    return inputs, outputs


def _scaled(tensor: Mapping[str, Any]) -> bool:
    return tensor["quantization"][0] != 0 and np.issubdtype(tensor["dtype"], np.integer)


def _outside(tensor: Mapping[str, Any]) -> str:
    """Return the dtype that a sample must have."""
    return "float32" if _scaled(tensor) else np.dtype(tensor["dtype"]).name


def _check_range(name: str, array: Array, dtype: Any) -> None:
    """Refuse whole numbers that would not survive being made smaller."""
    if array.dtype.kind == "i" and np.dtype(dtype).kind == "i" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise ModelError(
                f"input '{name}' has numbers from {array.min()} to {array.max()}: the .tflite model takes "
                f"{np.dtype(dtype).name} only"
            )


def _inside(array: Array, tensor: Mapping[str, Any]) -> Array:
    """Return ``array`` in the type that the model takes."""
    if not _scaled(tensor):
        return array if array.dtype == tensor["dtype"] else array.astype(tensor["dtype"])
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    quantized: Array = np.clip(np.rint(array / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])
    return quantized


def _dequantized(array: Array, tensor: Mapping[str, Any]) -> Array:
    if not _scaled(tensor):
        return array
    scale, zero = tensor["quantization"]
    floats: Array = ((array.astype(np.int32) - zero) * np.float32(scale)).astype(np.float32)
    return floats


def _interpreter() -> Any:
    try:
        with silenced():
            from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtraError("ai_edge_litert", "litert") from error
    return Interpreter

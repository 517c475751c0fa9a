"""Running an ONNX model with ONNX Runtime on the CPU, with a fixed number of threads.

It converts ONNX Runtime's errors and hides its warnings; it measures nothing. Example::

    session = OnnxRuntimeSession(Path("fp32.onnx").read_bytes(), threads=1)
    session.predict(samples)["logits"].shape          # (n, 10)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnxruntime as ort

from edgeopt.samples import Array, Sample, chunks, stack
from edgeopt_contract.errors import ModelError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["OnnxRuntimeSession"]

_BATCH = 32
_ERRORS_ONLY = 3
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeSession:
    """A loaded model. The first axis of every input and output is the batch."""

    def __init__(self, model: bytes, *, threads: int, simulated: bool = False) -> None:
        """Load ``model``.

        ``simulated`` computes quantized layers as what they stand for (dequantize, float, quantize) instead of with
        this CPU's integer kernels, so that a model for another kind of CPU is judged without this one's saturation.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        if simulated:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"ONNX Runtime {ort.__version__} cannot load the model: {error}") from error
        self._inputs = {node.name: (_dtype(node.type, node.name), node.shape) for node in self._session.get_inputs()}
        self._outputs = tuple(node.name for node in self._session.get_outputs())
        self._batch = self._check_batch()

    @property
    def inputs(self) -> dict[str, tuple[str, tuple[int | None, ...]]]:
        """Dtype and shape of each input without batch dimension; ``None`` is any length."""
        return {
            name: (dtype, tuple(size if isinstance(size, int) else None for size in shape[1:]))
            for name, (dtype, shape) in self._inputs.items()
        }

    def predict(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return each output for all ``samples``, first axis samples. Raises :class:`ModelError`."""
        parts = [self._run(stack(chunk), len(chunk)) for chunk in chunks(samples, self._batch)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def predict_singly(self, samples: Sequence[Sample]) -> dict[str, Array]:
        """Return the same, one sample at a time: exactly what a device computes."""
        parts = [self._run(stack([sample]), 1) for sample in samples]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def call_on(self, feeds: dict[str, Array]) -> Callable[[], object]:
        """Return a function that runs ``feeds`` (from :func:`~edgeopt.samples.stack`) and does nothing else.

        That is what a stopwatch may measure; two sessions that are compared share the feeds, for where an array lies
        in memory matters to small models.
        """
        run, outputs = self._session.run, list(self._outputs)
        return lambda: run(outputs, feeds)

    def specs(self, sample: Sample) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return the model's inputs and outputs as they are for ``sample``."""
        outputs = self._run(stack([sample]), 1)
        return _specs(sample.inputs), _specs({name: array[0] for name, array in outputs.items()})

    def _run(self, feeds: Mapping[str, Array], count: int) -> dict[str, Array]:
        try:
            results = self._session.run(list(self._outputs), dict(feeds))
        except Exception as error:
            raise ModelError(f"the model failed on the data: {error}") from error
        for name, result in zip(self._outputs, results, strict=True):
            if not isinstance(result, np.ndarray) or result.ndim == 0 or len(result) != count:
                shape = getattr(result, "shape", type(result).__name__)
                raise ModelError(f"output '{name}' is {shape} for {count} samples: its first axis must be the batch")
        return dict(zip(self._outputs, results, strict=True))

    def _check_batch(self) -> int:
        """Return how many samples go into one run: one when the model's batch dimension is fixed at one."""
        for name, (_, shape) in self._inputs.items():
            if not shape or (isinstance(shape[0], int) and shape[0] != 1):
                raise ModelError(f"input '{name}' is {shape}: expected a first dimension of 1 or of any length")
        fixed = any(isinstance(shape[0], int) for _, shape in self._inputs.values())
        return 1 if fixed else _BATCH


def _specs(tensors: Mapping[str, Array]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=name, dtype=array.dtype.name, shape=tuple(array.shape)) for name, array in tensors.items()
    )


def _dtype(kind: str, name: str) -> str:
    if kind not in _DTYPES:
        raise ModelError(f"input '{name}' is {kind}: expected a tensor of numbers")
    return _DTYPES[kind]

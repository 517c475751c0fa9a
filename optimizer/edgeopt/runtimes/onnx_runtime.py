"""Running an ONNX model with ONNX Runtime on the CPU, with a fixed number of threads.

It converts ONNX Runtime's errors and hides its warnings; it measures nothing. Example::

    session = OnnxRuntimeSession(Path("fp32.onnx").read_bytes(), threads=1)
    session.predict(samples)["logits"].shape          # (n, 10)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnxruntime as ort

from edgeopt.runtimes.batches import Batches
from edgeopt.samples import Array
from edgeopt_contract.errors import ModelError

__all__ = ["OnnxRuntimeSession", "loaded", "session_options"]

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


def session_options(threads: int, *, simulated: bool = False) -> ort.SessionOptions:
    """Return ONNX Runtime's settings as on the device; ``simulated``: every node computed as it stands in the file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # As on the device; and a thread that spins while another model is timed would slow that one down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if simulated:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def loaded(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """Return ``model`` loaded for the CPU. Raises :class:`ModelError` when ONNX Runtime refuses it."""
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class for each of its codes
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot load the model: {error}") from error


class OnnxRuntimeSession(Batches):
    """A loaded model. The first axis of every input and output is the batch."""

    def __init__(self, model: bytes, *, threads: int, simulated: bool = False) -> None:
        """Load ``model``.

        ``simulated`` computes quantized layers as what they stand for (dequantize, float, quantize) instead of with
        this CPU's integer kernels, so that a model for another kind of CPU is judged without this one's saturation.
        """
        self._session = loaded(model, session_options(threads, simulated=simulated))
        shapes = {node.name: node.shape for node in self._session.get_inputs()}
        super().__init__(
            {
                node.name: (
                    _dtype(node.type, node.name),
                    tuple(size if isinstance(size, int) else None for size in node.shape[1:]),
                )
                for node in self._session.get_inputs()
            },
            [node.name for node in self._session.get_outputs()],
            _batch_size(shapes),
        )

    def call_on(self, feeds: dict[str, Array]) -> Callable[[], object]:
        """Return a function that runs ``feeds`` (from :func:`~edgeopt.samples.stack`) and does nothing else.

        That is what a stopwatch may measure; two sessions that are compared share the feeds, for where an array lies
        in memory matters to small models.
        """
        run, outputs = self._session.run, list(self._outputs)
        return lambda: run(outputs, feeds)

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(list(self._outputs), feeds), strict=True))


def _batch_size(inputs: Mapping[str, Sequence[object]]) -> int:
    """Return how many samples go into one run: one when the model's batch dimension is fixed at one."""
    for name, shape in inputs.items():
        if not shape or (isinstance(shape[0], int) and shape[0] != 1):
            raise ModelError(f"input '{name}' is {shape}: expected a first dimension of 1 or of any length")
    return 1 if any(isinstance(shape[0], int) for shape in inputs.values()) else _BATCH


def _dtype(kind: str, name: str) -> str:
    if kind not in _DTYPES:
        raise ModelError(f"input '{name}' is {kind}: expected a tensor of numbers")
    return _DTYPES[kind]

"""Running an ONNX model with OpenVINO on the CPU, with a fixed number of threads and a stated precision.

The model is compiled once, for one sample at a time, as a device runs it; a free batch dimension takes a third longer.
It computes in float32, also where a CPU has AMX or AVX512-BF16 and OpenVINO alone would choose bfloat16: what is judged
here has to be what a device computes, which may have neither. Nothing is sent anywhere: OpenVINO's telemetry belongs to
its converter, which is not used (ADR 0013). Example::

    session = OpenVinoSession(Path("int8.onnx").read_bytes(), threads=1)
    session.predict(samples)["logits"].shape          # (n, 10)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from edgeopt.runtimes.batches import Batches
from edgeopt.samples import Array
from edgeopt.silence import silenced
from edgeopt_contract.errors import MissingExtraError, ModelError

__all__ = ["OpenVinoSession"]


class OpenVinoSession(Batches):
    """A loaded model. The first axis of every input and output is the batch."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        """Compile ``model``. Raises :class:`ModelError`."""
        openvino = _openvino()
        try:
            names = _names(model)
            with silenced():
                core = openvino.Core()
                graph = core.read_model(model)
                ports = {name: graph.input(name) for name in names[0]}
                graph.reshape({name: _one(name, port.partial_shape) for name, port in ports.items()})
                compiled = core.compile_model(graph, "CPU", _settings(threads))
        except ModelError:
            raise
        except Exception as error:
            version = openvino.get_version().split("-")[0]
            raise ModelError(f"OpenVINO {version} cannot load the model: {_first_line(error)}") from error
        self._request = compiled.create_infer_request()
        self._tensor_type = openvino.Tensor
        shapes = {name: tuple(compiled.input(name).partial_shape) for name in names[0]}
        self._in = {name: compiled.input(name) for name in names[0]}
        self._out = {name: compiled.output(name) for name in names[1]}
        super().__init__(
            {
                name: (port.element_type.to_dtype().name, tuple(_length(size) for size in shapes[name][1:]))
                for name, port in self._in.items()
            },
            names[1],
            batch=1,
        )

    def call_on(self, feeds: dict[str, Array]) -> Callable[[], object]:
        """Return a function that runs ``feeds`` (of one sample) and does nothing else."""
        self._check(feeds)
        infer, places = self._request.infer, self._places(feeds)

        def run() -> object:
            for place, array in places:
                np.copyto(place, array)  # what a device does with a new sample
            return infer(share_inputs=True, share_outputs=True)

        return run

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        self.call_on(feeds)()
        return {name: np.array(self._request.get_tensor(port).data) for name, port in self._out.items()}

    def _places(self, feeds: dict[str, Array]) -> list[tuple[Array, Array]]:
        """Give the request tensors of the right shapes; return where each array has to be written."""
        for name, array in feeds.items():
            port = self._in[name]
            if port.partial_shape.is_dynamic:
                self._request.set_tensor(port, self._tensor_type(port.element_type, list(array.shape)))
        return [(self._request.get_tensor(self._in[name]).data, array) for name, array in feeds.items()]


def _settings(threads: int) -> dict[str, object]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,  # whoever else runs on that core would decide the time
    }


def _names(model: bytes) -> tuple[list[str], list[str]]:
    """Return the names of inputs and outputs in the order of the ONNX model, which OpenVINO does not keep."""
    graph = onnx.load_model_from_string(model).graph
    weights = {item.name for item in graph.initializer}
    return [item.name for item in graph.input if item.name not in weights], [item.name for item in graph.output]


def _one(name: str, shape: Any) -> list[Any]:
    """Return ``shape`` for one sample."""
    sizes = [size if size.is_dynamic else size.get_length() for size in shape]
    if not sizes or (isinstance(sizes[0], int) and sizes[0] != 1):
        raise ModelError(f"input '{name}' is {shape}: expected a first dimension of 1 or of any length")
    return [1, *sizes[1:]]


def _length(size: Any) -> int | None:
    return None if size.is_dynamic else int(size.get_length())


def _first_line(error: Exception) -> str:
    """Return what OpenVINO says below the source line of its own that it begins with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return next(iter(told or lines), type(error).__name__)


def _openvino() -> Any:
    try:
        with silenced():
            import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino

"""OpenVINO as it is: the float model, run in float32 by OpenVINO; and a session for models in its own format.

OpenVINO's IR is two files; a peer gives both as one (:func:`benchmarks.optimizer.peers.port.ir_bytes`). Example::

    IrSession(made.model, threads=1).predict(samples)
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.optimizer.peers.port import Made, Work, ir_bytes, ir_parts
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.batches import Batches
from edgeopt.runtimes.openvino import OpenVinoSession
from edgeopt.silence import silenced

__all__ = ["IrSession", "OpenVinoFloat", "read_onnx", "saved"]

_SETTINGS = {  # those of edgeopt.runtimes.openvino
    "PERFORMANCE_HINT": "LATENCY",
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "ENABLE_CPU_PINNING": False,
}


@dataclass(frozen=True, slots=True)
class OpenVinoFloat:
    """The float model in OpenVINO, computed in float32."""

    name: str = "openvino, fp32"
    needs: tuple[str, ...] = ("openvino",)

    def quantize(self, work: Work) -> Made:
        """Return the float model itself."""
        return Made(model=work.float_model, runtime=RuntimeName.OPENVINO)


def read_onnx(model: bytes) -> Any:
    """Return an ``openvino.Model``."""
    import openvino

    return openvino.Core().read_model(model)


def saved(model: Any) -> bytes:
    """Return an ``openvino.Model`` as one piece; what is float in it stays float32."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(model, xml, compress_to_fp16=False)
        return ir_bytes(xml.read_bytes(), xml.with_suffix(".bin").read_bytes())


class IrSession(OpenVinoSession):
    """A loaded IR, compiled for one sample at a time and with the settings that edgeopt gives OpenVINO."""

    def __init__(self, model: bytes, *, threads: int) -> None:
        """Compile ``model`` (see :func:`saved`); inputs and outputs keep the names they had in ONNX."""
        import openvino

        with silenced():
            core = openvino.Core()
            graph = core.read_model(*ir_parts(model))
            graph.reshape({port.any_name: [1, *list(port.partial_shape)[1:]] for port in graph.inputs})
            compiled = core.compile_model(graph, "CPU", {**_SETTINGS, "INFERENCE_NUM_THREADS": threads})
        self._request = compiled.create_infer_request()
        self._tensor_type = openvino.Tensor
        self._in = {port.any_name: port for port in compiled.inputs}
        self._out = {port.any_name: port for port in compiled.outputs}
        inputs = {
            name: (port.element_type.to_dtype().name, tuple(_length(size) for size in list(port.partial_shape)[1:]))
            for name, port in self._in.items()
        }
        Batches.__init__(self, inputs, list(self._out), batch=1)


def _length(size: Any) -> int | None:
    return None if size.is_dynamic else int(size.get_length())

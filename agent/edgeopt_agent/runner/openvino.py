"""OpenVINO on the CPU.

It computes in float32 also where a CPU offers bfloat16: what was certified must be what runs. Some int8 networks make
it write beyond its memory; that takes this process down and nothing else. Example::

    model = open_model(order)
    model.run({"x": array})["p"]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeopt_agent.runner.arrays import Array
from edgeopt_agent.runner.port import Order
from edgeopt_contract.errors import MissingExtraError

__all__ = ["open_model"]


class _Session:
    def __init__(self, compiled: Any, order: Order) -> None:
        self._request = compiled.create_infer_request()
        self.inputs = list(order.inputs)
        self.outputs = list(order.outputs)
        self._out = {name: compiled.output(name) for name in self.outputs}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: np.array(self._request.get_tensor(port).data) for name, port in self._out.items()}


def open_model(order: Order) -> _Session:
    """Compile an ONNX model for one sample at a time; raises what OpenVINO raises, or :class:`MissingExtraError`."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    core = openvino.Core()
    graph = core.read_model(order.data)
    shapes = {}
    for name in order.inputs:
        shape = graph.input(name).partial_shape
        shapes[name] = [1, *(size if size.is_dynamic else size.get_length() for size in list(shape)[1:])]
    graph.reshape(shapes)
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": order.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    return _Session(core.compile_model(graph, "CPU", settings), order)

"""ONNX Runtime on the CPU. Importing this module imports the runtime.

Example::

model = open_model(order)
model.run({"x": array})["p"]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime

from edgeopt_agent.runner.arrays import Array
from edgeopt_agent.runner.port import Order

__all__ = ["open_model"]

_ERRORS_ONLY = 3


class _Session:
    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = [entry.name for entry in session.get_inputs()]
        self.outputs = [entry.name for entry in session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return dict(zip(self.outputs, self._session.run(self.outputs, dict(inputs)), strict=True))


def open_model(order: Order) -> _Session:
    """Load an ONNX model; raises what ONNX Runtime raises."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = order.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # A waiting thread must not burn the CPU that the device's own work needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return _Session(onnxruntime.InferenceSession(order.data, options, providers=["CPUExecutionProvider"]))

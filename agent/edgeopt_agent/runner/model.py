"""One model in ONNX Runtime: load from bytes that were hashed, run, and say how long it took.

Example::

    model = OnnxModel.load("model.onnx", threads=1)
    outputs, microseconds = model.run({"x": batch})
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgeopt_contract.values import digest_of

__all__ = ["OnnxModel"]


class OnnxModel:
    """A session and the digest of the bytes it was made from."""

    def __init__(self, session: Any, sha256: str) -> None:
        self._session = session
        self.sha256 = sha256
        self.inputs = [entry.name for entry in session.get_inputs()]
        self.outputs = [entry.name for entry in session.get_outputs()]

    @classmethod
    def load(cls, path: str, threads: int) -> OnnxModel:
        """Load ``path`` with ``threads`` intra-op threads; raises what ONNX Runtime raises."""
        import onnxruntime

        data = Path(path).read_bytes()  # one reading: what is hashed is what is loaded
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A waiting thread must not burn the CPU that the device's own work needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
        return cls(session, digest_of(data))

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> tuple[dict[str, npt.NDArray[Any]], float]:
        """Return the outputs by name and the microseconds that the model took."""
        start = time.perf_counter()
        outputs = self._session.run(self.outputs, dict(inputs))
        return dict(zip(self.outputs, outputs, strict=True)), (time.perf_counter() - start) * 1e6

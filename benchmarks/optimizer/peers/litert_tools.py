"""ai-edge-quantizer on the model that litert-torch makes of the PyTorch module: LiteRT's static and dynamic int8.

Example::

    LiteRt("ai-edge-quantizer, static", LiteRtInt8.STATIC).quantize(work)
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from benchmarks.optimizer.peers.port import Form, Made, Work
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.litert_convert import LiteRtInt8, convert, quantize_litert

__all__ = ["LiteRt"]


@dataclass(frozen=True, slots=True)
class LiteRt:
    """One recipe of ai-edge-quantizer."""

    name: str
    kind: LiteRtInt8
    needs: tuple[str, ...] = ("ai-edge-quantizer", "litert-torch", "ai-edge-litert")

    def quantize(self, work: Work) -> Made:
        """Return an int8 ``.tflite`` with float inputs and outputs."""
        outputs = [output.name for output in onnx.load_model_from_string(work.float_model).graph.output]
        plain = convert(work.module(), work.calibration[0], outputs)
        model = quantize_litert(plain, work.calibration, self.kind)
        return Made(model=model, runtime=RuntimeName.LITERT, form=Form.TFLITE)

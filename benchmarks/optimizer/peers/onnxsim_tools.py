"""onnxsim's ``quantize_auto``: the most compressed of its schemes whose outputs stay near the float model's.

It looks at accuracy and size only. The budget is its own default, a relative error of 2 %; it has none in points of a
metric. Example::

    OnnxsimAuto().quantize(work).note             # "weight_only int8 per_channel"
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from benchmarks.optimizer.peers.port import Made, Work
from edgeopt.samples import stack

__all__ = ["OnnxsimAuto"]

_SAMPLES = 32  # it runs all of them through every scheme


@dataclass(frozen=True, slots=True)
class OnnxsimAuto:
    """``quantize_auto``, by the function below it that also says what it chose."""

    name: str = "onnxsim, quantize_auto"
    needs: tuple[str, ...] = ("onnxsim",)

    def quantize(self, work: Work) -> Made:
        """Return what it recommends."""
        import onnxsim

        model = onnx.load_model_from_string(work.float_model)
        feeds = [stack([sample]) for sample in work.calibration[:_SAMPLES]]
        found = onnxsim.recommend_quantization(model, calibration_data=feeds)
        within = "" if found.meets_budget else ", over its budget"
        note = f"{found.config.scheme} {found.config.dtype} {found.config.granularity}{within}"
        return Made(model=found.quantized_model.SerializeToString(), note=note)

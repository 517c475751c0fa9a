"""Arithmetic in sixteen-bit floats, where the CPU has it.

The model computes in fp16 between float32 inputs and outputs. It pays on ARM cores with fp16 arithmetic (Armv8.2-A,
FEAT_FP16), for which ONNX Runtime has kernels; elsewhere ONNX Runtime casts every operand to float32 and back, which is
slower than float32 itself. It judges nothing: what fp16 costs in accuracy, the gate sees. Example::

    to_half(model)      # where edgeopt.quantization.families.half_precisions(target) names it
"""

from __future__ import annotations

import onnx

from edgeopt.graph import stripped
from edgeopt.silence import silenced
from edgeopt_contract.errors import ModelError

__all__ = ["to_half"]


def to_half(model: bytes) -> bytes:
    """Return ``model`` computing in fp16, with float32 inputs and outputs.

    Weights beyond fp16 (an attention mask's "minus infinity") are brought to its range by ONNX Runtime's converter.
    Raises :class:`ModelError` when the model cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with silenced():
        try:
            half = convert_float_to_float16(onnx.load_model_from_string(model), keep_io_types=True)
        except Exception as error:  # whatever a model can do to ONNX Runtime's Python code
            raise ModelError(f"ONNX Runtime cannot convert the model to fp16: {error}") from error
    return stripped(half)

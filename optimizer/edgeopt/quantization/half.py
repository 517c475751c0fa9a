"""Sixteen-bit floats: arithmetic in fp16 where the CPU has it, or fp16 in the file alone.

``to_half`` makes a model that computes in fp16 between float32 inputs and outputs. It pays on ARM cores with fp16
arithmetic (Armv8.2-A, FEAT_FP16), for which ONNX Runtime has kernels; elsewhere ONNX Runtime casts every operand to
float32 and back, which is slower than float32 itself. There ``store_half`` keeps only the weights in fp16: they are
cast once, while the model is loaded, so the file is half as large and the speed that of float32. It judges nothing:
what fp16 costs in accuracy, the gate sees. Example::

    to_half(model, Precision.FP16)      # where edgeopt.quantization.families.half_precisions(target) names it
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeopt.graph import stripped
from edgeopt.recipe import Precision
from edgeopt.silence import silenced
from edgeopt_contract.errors import ModelError

__all__ = ["store_half", "to_half"]

_GREATEST = 65504.0  # of fp16 (IEEE 754-2019, table 3.5)
_LEAST_ELEMENTS = 128  # a Cast costs about as many bytes as it saves below


def to_half(model: bytes, kind: Precision) -> bytes:
    """Return ``model`` computing in fp16, with float32 inputs and outputs.

    Weights beyond fp16 (an attention mask's "minus infinity") are brought to its range by ONNX Runtime's converter.
    Raises :class:`ModelError` when the model cannot be converted, and for bf16, which ONNX Runtime cannot run on a CPU.
    """
    if kind is not Precision.FP16:
        raise ModelError(
            f"cannot compute in {kind}: expected fp16; ONNX Runtime has no {kind} matrix products for CPUs: use "
            "fp16, or int8-weights for a smaller file"
        )
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with silenced():
        try:
            half = convert_float_to_float16(onnx.load_model_from_string(model), keep_io_types=True)
        except Exception as error:  # whatever a model can do to ONNX Runtime's Python code
            raise ModelError(f"ONNX Runtime cannot convert the model to fp16: {error}") from error
    return stripped(half)


def store_half(model: bytes) -> bytes:
    """Return ``model`` with its weights in fp16, computing in float32. Weights beyond fp16's range stay as they are.

    Raises :class:`ModelError` when there is no weight to store.
    """
    graph = onnx.load_model_from_string(model)
    given = {value.name for value in graph.graph.input}  # what a caller may replace is no constant
    weights = [one for one in graph.graph.initializer if one.name not in given and _fits(one)]
    if not weights:
        raise ModelError(f"no weights to store in fp16: expected constants of at least {_LEAST_ELEMENTS} floats")
    for weight in weights:
        _store(graph.graph, weight)
    return stripped(graph)


def _fits(weight: Any) -> bool:
    if weight.data_type != onnx.TensorProto.FLOAT:
        return False
    values = numpy_helper.to_array(weight)
    return bool(values.size >= _LEAST_ELEMENTS and np.abs(values).max() <= _GREATEST)


def _store(graph: Any, weight: Any) -> None:
    stored = f"{weight.name}_fp16"
    cast = onnx.helper.make_node("Cast", [stored], [weight.name], f"{weight.name}_cast", to=onnx.TensorProto.FLOAT)
    graph.node.insert(0, cast)
    graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), stored))
    graph.initializer.remove(weight)

"""Static int8 by ONNX Runtime's own tool, for tests of what happens to a quantized model afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

from edgeopt.nodes import name_nodes
from edgeopt.samples import Sample
from edgeopt.silence import silenced
from tests.optimizer.calibration_reader import Reader


def plain_int8(model: bytes, samples: Sequence[Sample], float_nodes: Sequence[str] = ()) -> bytes:
    """Return ``model`` in QDQ form: unsigned activations, signed weights for each channel, seven bits, min-max."""
    with tempfile.TemporaryDirectory() as folder, silenced():
        result = Path(folder) / "int8.onnx"
        quantize_static(
            name_nodes(onnx.load_model_from_string(model)),
            str(result),
            Reader(samples),
            quant_format=QuantFormat.QDQ,
            nodes_to_exclude=list(float_nodes),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return result.read_bytes()

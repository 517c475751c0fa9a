"""ONNX Runtime's own quantizers: with the defaults, and with the settings that people tune.

``tuned`` is what its documentation recommends for x86: uint8 activations, int8 weights per channel, and on CPUs whose
products saturate weights of 7 bits (``reduce_range``). Example::

    OnnxRuntimeStatic("onnxruntime, defaults").quantize(work)
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from benchmarks.optimizer.peers.port import Made, Work
from edgeopt.samples import Array, Sample, stack

__all__ = ["PERCENTILE", "PER_CHANNEL", "SEVEN_BITS", "OnnxRuntimeDynamic", "OnnxRuntimeStatic"]

PER_CHANNEL: Mapping[str, Any] = {"per_channel": True, "activation_type": "QUInt8", "weight_type": "QInt8"}
SEVEN_BITS: Mapping[str, Any] = {**PER_CHANNEL, "reduce_range": True}
PERCENTILE: Mapping[str, Any] = {**SEVEN_BITS, "calibrate_method": "Percentile"}


@dataclass(frozen=True, slots=True)
class OnnxRuntimeStatic:
    """``quantize_static``; ``options`` are its own, with enumerations by name."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ("onnxruntime",)

    def quantize(self, work: Work) -> Made:
        """Return static int8 in QDQ form."""
        from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

        kinds = {"activation_type": QuantType, "weight_type": QuantType, "calibrate_method": CalibrationMethod}
        options = {key: kinds[key][value] if key in kinds else value for key, value in self.options.items()}
        reader = _reader(work.calibration)
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "int8.onnx"
            quantize_static(onnx.load_model_from_string(work.float_model), str(result), reader, **options)
            return Made(model=result.read_bytes())


@dataclass(frozen=True, slots=True)
class OnnxRuntimeDynamic:
    """``quantize_dynamic`` with int8 weights, as its documentation recommends for transformers and LSTMs."""

    name: str = "onnxruntime, dynamic"
    needs: tuple[str, ...] = ("onnxruntime",)

    def quantize(self, work: Work) -> Made:
        """Return dynamic int8."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "int8.onnx"
            model = onnx.load_model_from_string(work.float_model)
            quantize_dynamic(model, str(result), weight_type=QuantType.QInt8)
            return Made(model=result.read_bytes())


def _reader(samples: Sequence[Sample]) -> Any:
    """Return a reader that hands the samples over one at a time, as batches of one."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
        """The samples in order."""

        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, Array]] = (stack([sample]) for sample in samples)

        def get_next(self) -> dict[str, Array] | None:
            """Return the next batch; ``None`` at the end."""
            return next(self._feeds, None)

    return Reader()

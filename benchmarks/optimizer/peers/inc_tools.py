"""Intel Neural Compressor for ONNX models (onnx-neural-compressor), as its documentation calls it.

Its own environment has numpy 1, which it needs. Example::

    NeuralCompressor("inc, static").quantize(work)          # in the environment of benchmarks.optimizer.peers.apart
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from benchmarks.optimizer.peers.port import Made, Work
from edgeopt.samples import Array, Sample, stack

__all__ = ["NeuralCompressor"]


@dataclass(frozen=True, slots=True)
class NeuralCompressor:
    """Static int8 in QDQ form, uint8 activations and int8 weights per channel."""

    name: str
    reduce_range: bool = False
    needs: tuple[str, ...] = ("onnx-neural-compressor",)

    def quantize(self, work: Work) -> Made:
        """Return static int8."""
        from onnx_neural_compressor.quantization import QuantFormat, config, quantize

        with tempfile.TemporaryDirectory() as folder:
            source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(work.float_model)
            settings = config.StaticQuantConfig(
                calibration_data_reader=_Reader(work.calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=self.reduce_range,
                calibration_sampling_size=len(work.calibration),
            )
            quantize(str(source), str(result), settings)
            return Made(model=onnx.load(result).SerializeToString())  # its weights lie in a file beside it


class _Reader:
    """Hands the samples over one at a time, and again after ``rewind``; the tool asks for nothing else."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self.rewind()

    def __iter__(self) -> Any:
        return iter(stack([sample]) for sample in self._samples)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next sample as a batch of one; ``None`` at the end."""
        sample = next(self._left, None)
        return None if sample is None else stack([sample])

    def rewind(self) -> None:
        """Begin again."""
        self._left = iter(self._samples)

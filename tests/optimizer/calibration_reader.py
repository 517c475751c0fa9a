"""Samples in the form in which ONNX Runtime's own calibration reads them, for tests in which it is the oracle."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

from edgeopt.samples import Sample, stack


class Reader(CalibrationDataReader):
    """Hands the samples to ONNX Runtime one at a time."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next, as a batch of one."""
        sample = next(self._samples, None)
        return None if sample is None else stack([sample])

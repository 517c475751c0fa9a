"""Static int8 with ONNX Runtime's quantizer: QDQ, one scale for each output channel of a weight.

Which number types is a question of the target's CPU (:func:`scheme_for`); which ranges and which operators is a
question of the model, answered by trying (:func:`candidates_for`) and looking at data. It judges nothing. Example::

    scheme = scheme_for(target)
    for candidate in candidates_for(model, calibration):
        quantized = quantize(model, candidate, scheme, calibration)
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from edgeopt.graph import op_types, stripped
from edgeopt.samples import Sample, stack
from edgeopt.silence import silenced
from edgeopt.targets import Target
from edgeopt_contract.errors import ModelError

__all__ = ["Calibrator", "Candidate", "Scheme", "candidates_for", "quantize", "scheme_for"]

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Where these stand, int8 for everything between the matrix products collapses (transformers: 81 to 39 % accuracy).
_FRAGILE = frozenset({"Softmax", "LayerNormalization", "Erf", "Gelu", "HardSwish"})
_PERCENTILE = 99.99
_PERCENTILE_BYTES = 512 * 2**20  # ONNX Runtime keeps every activation of every sample to build its histograms


class Calibrator(StrEnum):
    """How the range of an activation is taken from calibration data."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Number types that suit a kind of CPU, and what a device needs for them."""

    name: str
    signed_activations: bool
    reduce_range: bool
    arch: tuple[str, ...]
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to quantize; empty ``operators`` means all that ONNX Runtime can."""

    calibrator: Calibrator
    operators: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A short name for reports, for instance ``minmax, matrix products only``."""
        return f"{self.calibrator}, matrix products only" if self.operators else str(self.calibrator)


def scheme_for(target: Target) -> Scheme:
    """Return the number types for ``target``.

    x86 multiplies unsigned activations by signed weights. Without VNNI it adds pairs of products in 16 bits, which
    overflow, unless weights use 7 bits (Intel SDM, VPMADDUBSW; ONNX Runtime documentation, "reduce_range"). ARM's
    dot product wants both signed.
    """
    if target.arch == "x86_64":
        return Scheme(
            name="u8s8" if target.has_vnni else "u8s8 with 7-bit weights",
            signed_activations=False,
            reduce_range=not target.has_vnni,
            arch=("x86_64",),
            features=("vnni",) if target.has_vnni else (),
        )
    return Scheme(name="s8s8", signed_activations=True, reduce_range=False, arch=(target.arch,), features=())


def candidates_for(model: bytes, calibration: Sequence[Sample]) -> tuple[Candidate, ...]:
    """Return what is worth trying on ``model``, cheapest first."""
    candidates = [Candidate(calibrator=Calibrator.MINMAX)]
    if _activation_bytes(model) * len(calibration) <= _PERCENTILE_BYTES:
        candidates.append(Candidate(calibrator=Calibrator.PERCENTILE))
    if op_types(model) & _FRAGILE:
        candidates.append(Candidate(calibrator=Calibrator.MINMAX, operators=_HEAVY))
    return tuple(candidates)


def quantize(model: bytes, candidate: Candidate, scheme: Scheme, calibration: Sequence[Sample]) -> bytes:
    """Return ``model`` in int8. The same arguments give the same bytes. Raises :class:`ModelError`."""
    activations = QuantType.QInt8 if scheme.signed_activations else QuantType.QUInt8
    method = CalibrationMethod.MinMax if candidate.calibrator is Calibrator.MINMAX else CalibrationMethod.Percentile
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder, silenced():
        result = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                onnx.load_model_from_string(model),
                str(result),
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(candidate.operators) or None,
                per_channel=True,
                reduce_range=scheme.reduce_range,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                calibrate_method=method,
                extra_options={"CalibPercentile": _PERCENTILE},
            )
        except OSError:
            raise  # the disk's fault, not the model's
        except Exception as error:  # whatever a model can do to ONNX Runtime's Python code
            raise ModelError(f"ONNX Runtime cannot quantize the model ({candidate.name}): {error}") from error
        return stripped(onnx.load_model(str(result)))


def _activation_bytes(model: bytes) -> float:
    """Return about how many bytes one sample's activations take; infinite when their shapes are not known."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model)).graph
    known = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    total = 0.0
    for name in (name for node in graph.node for name in node.output if name):
        if name not in known or not known[name].HasField("shape"):
            return math.inf
        sizes = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in known[name].shape.dim]
        total += 4 * math.prod(sizes)
    return total


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime publishes no types
    """Hands the samples to ONNX Runtime one at a time."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next sample as a batch of one; ``None`` at the end."""
        sample = next(self._samples, None)
        return None if sample is None else stack([sample])

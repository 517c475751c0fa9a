"""Static int8 with ONNX Runtime's quantizer: QDQ, one scale for each output channel of a weight.

Which number types is a question of the target's CPU (:func:`scheme_for`); which ranges and which operators is a
question of the model, answered by trying (:func:`candidates_for`) and looking at data. It judges nothing. Example::

    scheme = scheme_for(target)
    for candidate in candidates_for(model, scheme, calibration):
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
from edgeopt.layers import convolutions, name_nodes
from edgeopt.samples import Sample, stack
from edgeopt.silence import silenced
from edgeopt.targets import Target
from edgeopt_contract.errors import ModelError

__all__ = ["Calibrator", "Candidate", "Scheme", "candidates_for", "quantize", "scheme_for"]

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Where these stand, int8 for everything between the matrix products collapses (transformers: 81 to 39 % accuracy).
_FRAGILE = frozenset({"Softmax", "LayerNormalization", "Erf", "Gelu", "HardSwish"})
# Without VNNI the first convolutions, few channels on many pixels, are no faster in int8 and lose the most.
_STEM = 3
_DEEP = 3 * _STEM  # convolutions from which on a float stem is a small part of the work
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
    """One way to quantize; empty ``operators`` means all that ONNX Runtime can.

    ``full_range_depthwise`` keeps 8 bits in depthwise weights where the scheme reduces the range of the others: those
    kernels add products in 32 bits. ``float_stem`` is how many of the first convolutions stay in float.
    """

    calibrator: Calibrator
    operators: tuple[str, ...] = ()
    full_range_depthwise: bool = False
    float_stem: int = 0

    @property
    def name(self) -> str:
        """A short name for reports, for instance ``minmax, matrix products only``."""
        parts = [str(self.calibrator)]
        if self.operators:
            parts.append("matrix products only")
        if self.full_range_depthwise:
            parts.append("8-bit depthwise")
        if self.float_stem:
            parts.append(f"first {self.float_stem} convolutions in float")
        return ", ".join(parts)


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


def candidates_for(model: bytes, scheme: Scheme, calibration: Sequence[Sample]) -> tuple[Candidate, ...]:
    """Return what is worth trying on ``model``, cheapest first."""
    candidates = [Candidate(calibrator=Calibrator.MINMAX)]
    if _activation_bytes(model) * len(calibration) <= _PERCENTILE_BYTES:
        candidates.append(Candidate(calibrator=Calibrator.PERCENTILE))
    if op_types(model) & _FRAGILE:
        candidates.append(Candidate(calibrator=Calibrator.MINMAX, operators=_HEAVY))
    if scheme.reduce_range:
        candidates.extend(_sparing_candidates(model))
    return tuple(candidates)


def _sparing_candidates(model: bytes) -> list[Candidate]:
    """Return ways to give up fewer bits where weights have only seven."""
    layers = convolutions(model)
    depthwise = any(layer.depthwise for layer in layers)
    stems = [0] if depthwise else []
    if len(layers) >= _DEEP:
        stems.append(_STEM)
    return [Candidate(calibrator=Calibrator.MINMAX, full_range_depthwise=depthwise, float_stem=stem) for stem in stems]


def quantize(model: bytes, candidate: Candidate, scheme: Scheme, calibration: Sequence[Sample]) -> bytes:
    """Return ``model`` in int8. The same arguments give the same bytes. Raises :class:`ModelError`."""
    activations = QuantType.QInt8 if scheme.signed_activations else QuantType.QUInt8
    method = CalibrationMethod.MinMax if candidate.calibrator is Calibrator.MINMAX else CalibrationMethod.Percentile
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder, silenced():
        result = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                name_nodes(onnx.load_model_from_string(model)),
                str(result),
                _Reader(calibration),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(candidate.operators) or None,
                nodes_to_exclude=_excluded_nodes(model, candidate),
                per_channel=True,
                reduce_range=scheme.reduce_range,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                calibrate_method=method,
                extra_options={
                    "CalibPercentile": _PERCENTILE,
                    "TensorQuantOverrides": _overrides(model, candidate),
                },
            )
        except OSError:
            raise  # the disk's fault, not the model's
        except Exception as error:  # whatever a model can do to ONNX Runtime's Python code
            raise ModelError(f"ONNX Runtime cannot quantize the model ({candidate.name}): {error}") from error
        return stripped(onnx.load_model(str(result)))


def _excluded_nodes(model: bytes, candidate: Candidate) -> list[str]:
    """Return every node before the first convolution that is quantized."""
    if not candidate.float_stem:
        return []
    return list(convolutions(model)[candidate.float_stem].before)


def _overrides(model: bytes, candidate: Candidate) -> dict[str, Any]:
    """Return the weights that keep eight bits, in the words of ONNX Runtime's quantizer."""
    if not candidate.full_range_depthwise:
        return {}
    layers = convolutions(model)[candidate.float_stem :]
    full_range = {"quant_type": QuantType.QInt8, "axis": 0, "reduce_range": False}
    return {layer.weight: [full_range] for layer in layers if layer.depthwise}


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

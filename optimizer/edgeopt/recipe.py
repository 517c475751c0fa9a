"""What is done to the float model to make one variant of it, and by which runtime it is run.

A recipe is complete: with the float model, the calibration data and the versions of the tools it gives the same bytes
again, so it is what a bundle's lineage keeps and what ``edgeopt reproduce`` follows. Layers are named by the nodes of
the prepared graph (:mod:`edgeopt.graph`), which have stable names. Pure. Example::

    Recipe(precision=Precision.INT8, calibrator=Calibrator.MSE, equalized=True).title    # "int8, mse, equalized"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Calibrator", "Precision", "Recipe", "RuntimeName"]


class Precision(StrEnum):
    """The number type in which most of the work is done."""

    FP32 = "fp32"
    INT8 = "int8"  # weights and activations; activation ranges come from calibration
    INT8_DYNAMIC = "int8-dynamic"  # weights and activations; activation ranges are taken while it runs
    INT8_WEIGHTS = "int8-weights"  # weights only: smaller, computed in float
    FP16 = "fp16"


class Calibrator(StrEnum):
    """How the range of an activation is taken from calibration data."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


class RuntimeName(StrEnum):
    """What runs a variant on the device; the names are those of a bundle's manifest."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    LITERT = "litert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a variant is made. From ``calibrator`` on, the fields mean something for int8 only.

    ``pruned``: made from the pruned network, not the original. ``planar``: its one-dimensional convolutions are
    written as two-dimensional ones (:mod:`edgeopt.planar`), also where nothing is quantized. ``operators``: the
    operator types that are quantized, empty for all that the quantizer knows. ``float_nodes``: nodes left in float.
    ``reduced_weights``: weights that use 7 of 8 bits, because u8 by s8 products would saturate
    (:mod:`edgeopt.saturation`); ``pair_safe``: these give up no more of the 8 bits than their pairs need
    (:mod:`edgeopt.quantization.pairs`). ``equalized``, ``bias_corrected``, ``rounding_learned``: rungs of the recovery
    ladder.
    """

    precision: Precision
    runtime: RuntimeName = RuntimeName.ONNXRUNTIME
    pruned: bool = False
    planar: bool = False
    calibrator: Calibrator = Calibrator.MINMAX
    signed_activations: bool = False
    operators: tuple[str, ...] = ()
    float_nodes: tuple[str, ...] = ()
    reduced_weights: tuple[str, ...] = ()
    pair_safe: bool = False
    equalized: bool = False
    bias_corrected: bool = False
    rounding_learned: bool = False

    @property
    def variant(self) -> str:
        """The name of the variant and the stem of its file: ``int8``, ``pruned-int8``, ``planar-fp32``."""
        runtime = "" if self.runtime is RuntimeName.ONNXRUNTIME else f"-{self.runtime}"
        network = f"{'pruned-' if self.pruned else ''}{'planar-' if self.planar else ''}"
        return f"{network}{self.precision}{runtime}"

    @property
    def title(self) -> str:
        """A short name for people, for instance ``int8, minmax, 3 layers in float, by openvino``."""
        network = f"{'pruned ' if self.pruned else ''}{'planar ' if self.planar else ''}"
        parts = [f"{network}{self.precision}"]
        if self.precision is Precision.INT8:
            parts.append(str(self.calibrator))
            parts.append("signed activations" if self.signed_activations else "")
        parts.append("only " + " ".join(self.operators) if self.operators else "")
        reduced = "safe in pairs" if self.pair_safe else "in 7 bits"
        parts.append(f"{_counted(self.reduced_weights, 'weight')} {reduced}" if self.reduced_weights else "")
        parts.append("equalized" if self.equalized else "")
        parts.append("bias corrected" if self.bias_corrected else "")
        parts.append("rounding learned" if self.rounding_learned else "")
        parts.append(f"{_counted(self.float_nodes, 'node')} in float" if self.float_nodes else "")
        parts.append(f"by {self.runtime}" if self.runtime is not RuntimeName.ONNXRUNTIME else "")
        return ", ".join(part for part in parts if part)


def _counted(things: Sequence[str], noun: str) -> str:
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"

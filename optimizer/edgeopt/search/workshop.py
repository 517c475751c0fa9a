"""Building a variant from its recipe: the one place where the tools of quantization are put together.

What several recipes share is made once: the calibration of a graph, the equalized graph, the learned rounding. The same
recipe gives the same bytes whatever was built before it. It measures and judges nothing. Example::

    workshop = Workshop({False: original}, calibration, seed=0)
    workshop.build(recipe)                       # bytes: ONNX, or .tflite for LiteRT
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import onnx

from edgeopt.calibration.collection import collect
from edgeopt.calibration.statistics import Statistics
from edgeopt.planar import planar
from edgeopt.preprocess import folded_nodes
from edgeopt.quantization.bias_correction import correct_bias
from edgeopt.quantization.dynamic import quantize_dynamic
from edgeopt.quantization.equalization import equalize
from edgeopt.quantization.float_layers import keep_float
from edgeopt.quantization.half import to_half
from edgeopt.quantization.recurrent import learn_recurrent
from edgeopt.quantization.rounding import learn_rounding
from edgeopt.quantization.static import quantize_static
from edgeopt.quantization.weights import compress_weights
from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.runtimes.litert_convert import LiteRtInt8, convert, quantize_litert
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError

__all__ = ["Float", "Workshop"]

T = TypeVar("T")

_LITERT = {
    Precision.FP32: None,
    Precision.INT8: LiteRtInt8.STATIC,
    Precision.INT8_DYNAMIC: LiteRtInt8.DYNAMIC,
    Precision.INT8_WEIGHTS: LiteRtInt8.WEIGHTS,
}
_FEW = 64  # samples that bias correction and learned rounding look at: more hardly help, and cost time
_SEQUENCES = 256  # that learned rounding of an LSTM runs through


@dataclass(frozen=True, slots=True)
class Float:
    """A float network: prepared ONNX, and the ``torch.nn.Module`` it came from (``None``: it came as ONNX)."""

    model: bytes
    module: Any = None


class Workshop:
    """Builds variants of one network, and of its pruned form if there is one."""

    def __init__(self, floats: Mapping[bool, Float], calibration: Sequence[Sample], *, seed: int, threads: int) -> None:
        """``floats`` maps ``Recipe.pruned`` to the network; ``calibration`` are the samples of that split."""
        self._floats = floats
        self._calibration = calibration
        self._seed = seed
        self._threads = threads
        self._made: dict[Any, Any] = {}

    def build(self, recipe: Recipe) -> bytes:
        """Return the variant. Raises :class:`ModelError` when it cannot be made, saying why."""
        if recipe.runtime is RuntimeName.LITERT:
            return self._litert(recipe)
        original = self._graph(recipe)
        match recipe.precision:
            case Precision.FP32:
                return original
            case Precision.INT8:
                return self._static(recipe)
            case Precision.INT8_DYNAMIC:
                return self._dynamic(original, recipe)
            case Precision.INT8_WEIGHTS:
                return compress_weights(original, recipe)
            case Precision.FP16:
                return to_half(original)

    def source_of(self, recipe: Recipe) -> bytes:
        """Return the float graph that the variant is the int8 form of: the equalized one, if it was equalized."""
        return self._equalized(recipe)

    def _dynamic(self, original: bytes, recipe: Recipe) -> bytes:
        """Quantize, then let the rounding of LSTMs learn."""
        quantized = quantize_dynamic(original, recipe)
        if not recipe.rounding_learned:
            return quantized
        return learn_recurrent(original, quantized, self._calibration[:_SEQUENCES], pair_safe=recipe.pair_safe)

    def _static(self, recipe: Recipe) -> bytes:
        """Quantize, then let rounding learn, then correct the biases: each works on what the one before it left."""
        model, few = self._equalized(recipe), self._calibration[:_FEW]
        plain = replace(
            recipe,
            rounding_learned=False,
            bias_corrected=False,
            runtime=RuntimeName.ONNXRUNTIME,
            float_nodes=tuple(sorted({*recipe.float_nodes, *folded_nodes(model)})),
        )
        ranges = self._statistics(recipe).ranges(recipe.calibrator)
        quantized = self._once(("int8", plain), lambda: quantize_static(model, plain, ranges))
        if recipe.rounding_learned:
            rounded = ("rounded", plain)
            quantized = self._once(rounded, lambda: learn_rounding(model, quantized, few, seed=self._seed).model)
        if recipe.bias_corrected:
            corrected = ("corrected", plain, recipe.rounding_learned)
            quantized = self._once(corrected, lambda: correct_bias(model, quantized, few))
        return keep_float(quantized)  # or ONNX Runtime would quantize what is left in float

    def _float(self, recipe: Recipe) -> Float:
        if recipe.pruned not in self._floats:
            raise ModelError("the recipe is for the pruned network, and there is none")
        return self._floats[recipe.pruned]

    def _graph(self, recipe: Recipe) -> bytes:
        """Return the float graph, with its convolutions in two dimensions if the recipe wants them so."""
        model = self._float(recipe).model
        return self._once(("planar", recipe.pruned), lambda: planar(model)) if recipe.planar else model

    def _equalized(self, recipe: Recipe) -> bytes:
        model = self._graph(recipe)
        if not recipe.equalized:
            return model
        return self._once(("equalized", recipe.pruned, recipe.planar), lambda: equalize(model).model)

    def _statistics(self, recipe: Recipe) -> Statistics:
        key = ("statistics", recipe.pruned, recipe.planar, recipe.equalized)
        model = self._equalized(recipe)
        return self._once(key, lambda: collect(model, self._calibration, threads=self._threads))

    def _litert(self, recipe: Recipe) -> bytes:
        original = self._float(recipe)
        if original.module is None:
            raise ModelError("LiteRT needs the PyTorch module: give MODEL as 'package.module:function'")
        if folded_nodes(original.model):
            raise ModelError("LiteRT converts the PyTorch module, which knows nothing of the --preprocess steps")
        if recipe.planar:
            raise ModelError("LiteRT converts the PyTorch module, whose convolutions are as they are")
        if recipe.precision not in _LITERT:
            raise ModelError(f"LiteRT gets {', '.join(_LITERT)}, not {recipe.precision}")
        outputs = [output.name for output in onnx.load_model_from_string(original.model).graph.output]
        plain = self._once(("litert", recipe.pruned), lambda: convert(original.module, self._calibration[0], outputs))
        kind = _LITERT[recipe.precision]
        return plain if kind is None else quantize_litert(plain, self._calibration, kind)

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

"""A model in static int8 by edgeopt's own calibration and quantizer, for tests of what comes before or after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeopt.calibration.collection import collect
from edgeopt.quantization.static import quantize_static
from edgeopt.recipe import Calibrator, Precision, Recipe
from edgeopt.samples import Sample


def minmax_int8(model: bytes, samples: Sequence[Sample], **fields: Any) -> bytes:
    """Return the prepared ``model`` quantized with min-max ranges of ``samples``; ``fields`` are the recipe's."""
    recipe = Recipe(precision=Precision.INT8, **fields)
    return quantize_static(model, recipe, collect(model, samples).ranges(Calibrator.MINMAX))

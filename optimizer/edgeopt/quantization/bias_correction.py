"""Empirical bias correction: the mean error that int8 makes in each output channel is taken off the layer's bias.

Rounding weights and activations shifts a layer's outputs, and the shifts add up over the layers (Nagel et al. 2019,
"Data-Free Quantization", section 4.2 and appendix D). Here every layer is corrected in the graph's order on what the
corrected layers before it give, in one pass over the samples. Only int32 biases change: size and speed stay. Example::

    corrected = correct_bias(float_model, quantized, samples[:64])
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.quantization.walking import Change, walk
from edgeopt.samples import Sample

__all__ = ["correct_bias"]


def correct_bias(float_model: bytes, quantized: bytes, samples: Sequence[Sample]) -> bytes:
    """Return ``quantized`` with corrected biases; some tens of ``samples`` are enough, each costs one inference.

    ``float_model`` must be the one that was quantized (the equalized one, if it was). A layer that shares its weights
    or biases, or is not in int8, is left alone. Raises :class:`ModelError` when a model cannot be run.
    """
    return walk(float_model, quantized, samples, lambda _: Change(centred=True))

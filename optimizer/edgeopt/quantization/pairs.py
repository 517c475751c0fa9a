"""As much of eight bits as no pair of products needs to overflow: less lost than with seven bits for a whole weight.

VPMADDUBSW, by which x86 without VNNI multiplies unsigned bytes by signed ones, adds neighbouring products in 16 bits
that saturate (Intel SDM, volume 2, PMADDUBSW). With activations up to 255 nothing can saturate as long as the weights
of one sign in a pair add up to 128 at most, since 255 x 128 = 32,640. Seven bits see to that whatever the weights are;
but large neighbours of one sign are rare, so each output channel here gets the finest scale at which its own pairs
hold. Pairs lie along the reduction, the first with the second input and so on (:mod:`edgeopt.saturation`). Pure.
Example::

    integers, scales = pair_safe(weights)           # int8 (outputs, inputs), float32 (outputs,)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeopt.samples import Array

__all__ = ["pair_safe", "unsafe_pairs"]

_PAIR = 128  # of one sign together
_MOST = 127  # of one integer; and of a pair before rounding, which adds at most one to its sum


def pair_safe(weights: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return ``weights`` (outputs, inputs) in int8 with a scale for each output, such that no pair can saturate.

    The scale is never coarser than that of seven bits, max |w| / 63.5, nor finer than that of eight. An output whose
    weights are all zero gets the scale 1.
    """
    greatest = _of_one_sign(weights.astype(np.float64)).max(axis=-1, initial=0)  # one alone is a pair with nothing
    scales = np.where(greatest > 0, greatest / _MOST, 1).astype(np.float32)
    integers = np.clip(np.rint(weights / scales[:, None].astype(np.float64)), -_MOST, _MOST)
    return integers.astype(np.int8), scales


def unsafe_pairs(integers: Array) -> npt.NDArray[np.bool_]:
    """Tell of each of ``integers`` (..., inputs) whether its pair can saturate."""
    unsafe = np.repeat(_of_one_sign(integers) > _PAIR, 2, axis=-1)
    return np.asarray(unsafe[..., : integers.shape[-1]])


def _of_one_sign(weights: Array) -> Array:
    """Return the greater of the sums of positive and of negative weights of each pair, (..., pairs)."""
    rest = weights.shape[-1] % 2
    padded = np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, rest)])
    pairs = padded.reshape(*weights.shape[:-1], -1, 2)
    return np.asarray(np.maximum(np.maximum(pairs, 0).sum(axis=-1), np.maximum(-pairs, 0).sum(axis=-1)))

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

__all__ = ["pair_safe"]

_MOST = 127  # of one integer; and of a pair before rounding, which adds at most one to its sum


def pair_safe(weights: Array) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return ``weights`` (outputs, inputs) in int8 with a scale for each output, such that no pair can saturate.

    The scale is never coarser than that of seven bits, max |w| / 63.5, nor finer than that of eight. An output whose
    weights are all zero gets the scale 1.
    """
    padded = np.pad(weights.astype(np.float64), ((0, 0), (0, weights.shape[1] % 2)))
    pairs = padded.reshape(len(padded), -1, 2)
    of_one_sign = np.maximum(np.maximum(pairs, 0).sum(axis=2), np.maximum(-pairs, 0).sum(axis=2))
    greatest = of_one_sign.max(axis=1, initial=0)  # a single weight is a pair with nothing
    scales = np.where(greatest > 0, greatest / _MOST, 1).astype(np.float32)
    integers = np.clip(np.rint(weights / scales[:, None].astype(np.float64)), -_MOST, _MOST)
    return integers.astype(np.int8), scales

"""A layer as a matrix product: what its kernel sees at some positions, what it should give there, and its weights.

A convolution of g groups becomes g products (positions, inputs) x (inputs, outputs), where inputs are the channels of a
group times the kernel; a Gemm becomes one. It reads a :class:`~edgeopt.quantization.walking.View`, and draws positions
by a seed. Example::

    patches = patches_of(view, count=4000, seed=0)
    patches.inputs.shape, patches.outputs.shape       # (groups, 4000, inputs), (groups, 4000, outputs)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt.quantization.walking import View
from edgeopt.samples import Array

__all__ = ["Patches", "patches_of", "rows_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """Inputs (groups, positions, inputs) and outputs (groups, positions, outputs), float32.

    ``samples`` (positions,) says which sample a position is of.
    """

    inputs: Array
    outputs: Array
    samples: Array

    def where(self, chosen: Array) -> Patches:
        """Return the positions for which ``chosen`` (positions,) holds."""
        return Patches(self.inputs[:, chosen], self.outputs[:, chosen], self.samples[chosen])


def rows_of(view: View, weights: Array) -> Array:
    """Return ``weights``, shaped like the layer's, as (groups, outputs of a group, inputs of a group)."""
    if view.operator == "Gemm":
        return (weights if view.attributes.get("transB", 0) else weights.T)[None]
    groups = view.attributes.get("group", 1)
    return weights.reshape(groups, weights.shape[0] // groups, -1)


def patches_of(view: View, count: int, seed: int) -> Patches | None:
    """Return at most ``count`` positions of all samples; ``None`` for a layer that is neither Gemm nor 1-D or 2-D."""
    if view.operator == "Gemm":
        return _of_rows(view, count, seed)
    if view.expected.ndim not in (3, 4):
        return None
    if str(_text(view.attributes.get("auto_pad", b"NOTSET"))) not in ("NOTSET", "VALID"):
        return None
    return _of_convolution(view, count, seed)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _of_rows(view: View, count: int, seed: int) -> Patches | None:
    if view.inputs.ndim != 2:
        return None
    total = len(view.inputs)
    chosen = _draw(total, count, seed)
    return Patches(view.inputs[chosen][None], view.expected[chosen][None], chosen)


def _of_convolution(view: View, count: int, seed: int) -> Patches:
    """Gather the patches of some positions, a 1-D convolution as a 2-D one of height one."""
    flat = view.expected.ndim == 3
    inputs = view.inputs[:, :, None] if flat else view.inputs
    expected = view.expected[:, :, None] if flat else view.expected
    samples, channels, *_ = inputs.shape
    outputs, height, width = expected.shape[1:]
    kernel = ([1] if flat else []) + list(view.weights.shape[2:])
    stride = ([1] if flat else []) + list(view.attributes.get("strides", [1] * (1 if flat else 2)))
    dilation = ([1] if flat else []) + list(view.attributes.get("dilations", [1] * (1 if flat else 2)))
    pads = list(view.attributes.get("pads", [0] * (2 if flat else 4)))
    top, left, bottom, right = [0, pads[0], 0, pads[1]] if flat else pads
    padded = np.pad(inputs, ((0, 0), (0, 0), (top, bottom), (left, right)))
    chosen = _draw(samples * height * width, count, seed)
    sample, row, column = np.unravel_index(chosen, (samples, height, width))
    down = row[:, None, None] * stride[0] + np.arange(kernel[0])[None, :, None] * dilation[0]
    across = column[:, None, None] * stride[1] + np.arange(kernel[1])[None, None, :] * dilation[1]
    seen = padded[sample[:, None, None], :, down, across]  # (positions, kernel height, kernel width, channels)
    groups = view.attributes.get("group", 1)
    seen = seen.transpose(0, 3, 1, 2).reshape(len(chosen), groups, channels // groups * kernel[0] * kernel[1])
    wanted = expected[sample, :, row, column].reshape(len(chosen), groups, outputs // groups)
    return Patches(seen.transpose(1, 0, 2), wanted.transpose(1, 0, 2), sample)


def _draw(total: int, count: int, seed: int) -> Array:
    """Return at most ``count`` of ``total`` positions, in order, without repetition."""
    if total <= count:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False))

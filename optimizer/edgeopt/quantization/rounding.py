"""Learned rounding: each int8 weight goes up or down so that the layer's output, not the weight, is nearest.

Nagel et al. 2020 ("Up or Down? Adaptive Rounding", AdaRound) pose the problem: per layer, find integers whose output on
what the quantized network feeds it is nearest to the float layer's. For a linear layer that error is a quadratic in the
weights, known from the sums X'X and X'Y over some thousand positions. Here it is solved as Frantar et al. 2022
("Optimal Brain Compression" and GPTQ) do: round one column, spread its error over those still open, then improve single
integers until none gains, at a cost for leaving the float weights. AdaRound comes a little nearer, in minutes
where this takes seconds (ADR 0010); nothing is drawn but the positions, by ``seed``.

Biases take up the mean error, as in :mod:`edgeopt.quantization.bias_correction`, which need not be run as well. An
output keeps its integers unless the new ones are better on samples held out for that, and no integer leaves the
range that the layer used: 7-bit weights stay 7-bit. Example::

    learned = learn_rounding(float_model, quantized, samples[:64], seed=0)
    learned.model, [gain.layer for gain in learned.gains]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.quantization.patches import Patches, patches_of, rows_of
from edgeopt.quantization.quadratic import Grid, Quadratic, learned
from edgeopt.quantization.walking import Change, View, walk
from edgeopt.samples import Array, Sample

__all__ = ["Gain", "Learned", "learn_rounding"]

_NUMBERS = 2**24  # that a layer learns from: positions x inputs of all groups
_POSITIONS = 12_000  # of all samples together, at most
_HELD_OUT = 4  # one sample in so many judges
_DAMPING = 1.0  # of the mean of X'X's diagonal: how hard it is to leave the float weights; less learns the pictures


@dataclass(frozen=True, slots=True)
class Gain:
    """The squared error of a layer's output on held-out samples, with the integers before and after."""

    layer: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Learned:
    """The model with learned integers, and the layers that changed."""

    model: bytes
    gains: tuple[Gain, ...]


def learn_rounding(float_model: bytes, quantized: bytes, samples: Sequence[Sample], *, seed: int = 0) -> Learned:
    """Return ``quantized`` with better integers in the weights of its convolutions and Gemms.

    ``float_model`` must be the one that was quantized (the equalized one, if it was). Scales and zero points stay;
    biases are corrected too, as learned weights assume it. The cost is bounded: one inference for each sample, and for
    each layer work that grows with outputs x inputs^2 of its kernel. From less than four samples no weight is learned.
    Raises :class:`ModelError` when a model cannot be run.
    """
    gains: list[Gain] = []

    def visit(view: View) -> Change:
        integers, gain = _learn(view, seed)
        if gain is not None:
            gains.append(gain)
        return Change(integers=integers, centred=True)

    model = walk(float_model, quantized, samples, visit)
    return Learned(model, tuple(gains))


def _learn(view: View, seed: int) -> tuple[Array | None, Gain | None]:
    """Return new integers for one layer, or nothing when they are no better."""
    inputs = view.weights.size // max(rows_of(view, view.weights).shape[1], 1)
    patches = patches_of(view, min(_POSITIONS, max(_NUMBERS // inputs, 1)), seed)
    if patches is None:
        return None, None
    held = patches.samples % _HELD_OUT == _HELD_OUT - 1
    if held.all() or not held.any():
        return None, None
    fit, judge = _quadratic(patches.where(~held)), _quadratic(patches.where(held))
    grid = _grid(view)
    old = rows_of(view, view.integers.astype(np.float64))
    damped = fit.damped(rows_of(view, view.weights.astype(np.float64)), _DAMPING)
    new = learned(damped, grid)
    before, after = judge.errors(grid.values(old)), judge.errors(grid.values(new))
    better = after < before  # an output's error depends on its own weights alone, so each is decided by itself
    if not better.any():
        return None, None
    places = rows_of(view, np.arange(view.integers.size).reshape(view.integers.shape)).reshape(-1)
    integers = np.empty(view.integers.size, view.integers.dtype)
    integers[places] = np.where(better[:, :, None], new, old).reshape(-1)
    gain = Gain(view.name, float(before.sum()), float(np.minimum(before, after).sum()))
    return integers.reshape(view.integers.shape), gain


def _grid(view: View) -> Grid:
    """Return the layer's grid; its range is what its integers use, the same on both sides of zero if they are."""
    shape = view.integers.shape
    scale = rows_of(view, np.broadcast_to(view.scale, shape).astype(np.float64))
    zero = rows_of(view, np.broadcast_to(view.zero, shape).astype(np.float64))
    low, high = float(view.integers.min()), float(view.integers.max())
    if not view.zero.any() and view.integers.dtype == np.int8:
        low, high = -max(-low, high), max(-low, high)
    return Grid(scale, zero, max(low, np.iinfo(view.integers.dtype).min), high)


def _quadratic(patches: Patches) -> Quadratic:
    """Return the quadratic of some positions; X and Y are centred, for a bias takes away whatever is constant."""
    count = patches.inputs.shape[1]
    inputs = patches.inputs - patches.inputs.mean(axis=1, keepdims=True)
    outputs = patches.outputs - patches.outputs.mean(axis=1, keepdims=True)
    hessian = (inputs.transpose(0, 2, 1) @ inputs).astype(np.float64) / count
    cross = (outputs.transpose(0, 2, 1) @ inputs).astype(np.float64) / count
    return Quadratic(hessian, cross, np.square(outputs, dtype=np.float64).sum(axis=1) / count)

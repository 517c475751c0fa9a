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
from edgeopt.quantization.walking import Change, View, walk
from edgeopt.samples import Array, Sample

__all__ = ["Gain", "Learned", "learn_rounding"]

_NUMBERS = 2**24  # that a layer learns from: positions x inputs of all groups
_POSITIONS = 12_000  # of all samples together, at most
_HELD_OUT = 4  # one sample in so many judges
_DAMPING = 1.0  # of the mean of X'X's diagonal: how hard it is to leave the float weights; less learns the pictures
_BLOCK = 64  # columns between two updates of all that follow
_SWEEPS = 3  # over single integers, at most


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
    fit, judge = _Quadratic.of(patches.where(~held)), _Quadratic.of(patches.where(held))
    grid = _Grid.of(view)
    old = rows_of(view, view.integers.astype(np.float64))
    damped = fit.damped(rows_of(view, view.weights.astype(np.float64)), _DAMPING)
    new = _improved(damped, grid, _rounded(damped, grid))
    before, after = judge.errors(grid.values(old)), judge.errors(grid.values(new))
    better = after < before  # an output's error depends on its own weights alone, so each is decided by itself
    if not better.any():
        return None, None
    places = rows_of(view, np.arange(view.integers.size).reshape(view.integers.shape)).reshape(-1)
    integers = np.empty(view.integers.size, view.integers.dtype)
    integers[places] = np.where(better[:, :, None], new, old).reshape(-1)
    gain = Gain(view.name, float(before.sum()), float(np.minimum(before, after).sum()))
    return integers.reshape(view.integers.shape), gain


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """What integers stand for, in rows (groups, outputs, inputs): (integer - zero) * scale, within low and high."""

    scale: Array
    zero: Array
    low: float
    high: float

    @classmethod
    def of(cls, view: View) -> _Grid:
        """Return the layer's grid; its range is what its integers use, the same on both sides of zero if they are."""
        shape = view.integers.shape
        scale = rows_of(view, np.broadcast_to(view.scale, shape).astype(np.float64))
        zero = rows_of(view, np.broadcast_to(view.zero, shape).astype(np.float64))
        low, high = float(view.integers.min()), float(view.integers.max())
        if not view.zero.any() and view.integers.dtype == np.int8:
            low, high = -max(-low, high), max(-low, high)
        return cls(scale, zero, max(low, np.iinfo(view.integers.dtype).min), high)

    def nearest(self, values: Array, columns: int | slice) -> Array:
        """Return the nearest integers to ``values`` of some columns."""
        integers = np.rint(values / self.scale[:, :, columns]) + self.zero[:, :, columns]
        return np.asarray(np.clip(integers, self.low, self.high))

    def values(self, integers: Array) -> Array:
        """Return the weights that ``integers`` stand for."""
        return (integers - self.zero) * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class _Quadratic:
    """Mean squared error of a layer as a function of its weights W (groups, outputs, inputs), but for the bias.

    For each output that is w'Hw - 2 w'c + constant, with H = X'X (groups, inputs, inputs), c a row of Y'X (groups,
    outputs, inputs), X and Y centred: a bias takes away whatever is constant.
    """

    hessian: Array
    cross: Array
    constant: Array

    @classmethod
    def of(cls, patches: Patches) -> _Quadratic:
        """Return the quadratic of some positions."""
        count = patches.inputs.shape[1]
        inputs = patches.inputs - patches.inputs.mean(axis=1, keepdims=True)
        outputs = patches.outputs - patches.outputs.mean(axis=1, keepdims=True)
        hessian = (inputs.transpose(0, 2, 1) @ inputs).astype(np.float64) / count
        cross = (outputs.transpose(0, 2, 1) @ inputs).astype(np.float64) / count
        return cls(hessian, cross, np.square(outputs, dtype=np.float64).sum(axis=1) / count)

    def errors(self, weights: Array) -> Array:
        """Return the mean squared error of each output, (groups, outputs)."""
        return np.asarray((weights * (weights @ self.hessian - 2 * self.cross)).sum(axis=2) + self.constant)

    def damped(self, weights: Array, strength: float) -> _Quadratic:
        """Return the same plus a cost for leaving ``weights``, ``strength`` times the inputs' mean square."""
        size = self.hessian.shape[-1]
        diagonal = np.diagonal(self.hessian, axis1=1, axis2=2).mean(axis=1)
        cost = np.maximum(strength * diagonal, 1e-12)[:, None, None]
        return _Quadratic(self.hessian + cost * np.eye(size), self.cross + cost * weights, self.constant)


def _rounded(quadratic: _Quadratic, grid: _Grid) -> Array:
    """Return integers near the best weights, each column's rounding error made good by the columns after it.

    The order is by the size of the inputs, the greatest first (GPTQ's "act-order").
    """
    order = np.argsort(-np.diagonal(quadratic.hessian, axis1=1, axis2=2).mean(axis=0), kind="stable")
    hessian = quadratic.hessian[:, order][:, :, order]
    best = np.linalg.solve(quadratic.hessian, quadratic.cross.transpose(0, 2, 1)).transpose(0, 2, 1)
    rest = best[:, :, order]
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).transpose(0, 2, 1)
    part = _Grid(grid.scale[:, :, order], grid.zero[:, :, order], grid.low, grid.high)
    integers = np.empty_like(rest)
    size = rest.shape[2]
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty_like(rest[:, :, start:end])
        for column in range(start, end):
            integers[:, :, column] = part.nearest(rest[:, :, column], column)
            value = (integers[:, :, column] - part.zero[:, :, column]) * part.scale[:, :, column]
            error = (rest[:, :, column] - value) / upper[:, None, column, column]
            rest[:, :, column:end] -= error[:, :, None] * upper[:, None, column, column:end]
            errors[:, :, column - start] = error
        rest[:, :, end:] -= errors @ upper[:, start:end, end:]
    result = np.empty_like(integers)
    result[:, :, order] = integers
    return result


def _improved(quadratic: _Quadratic, grid: _Grid, integers: Array) -> Array:
    """Return ``integers`` after sweeps that set each to its best while the others stand still."""
    values = grid.values(integers)
    diagonal = np.diagonal(quadratic.hessian, axis1=1, axis2=2)
    for _ in range(_SWEEPS):
        slope = values @ quadratic.hessian - quadratic.cross
        before = values.copy()
        for start in range(0, values.shape[2], _BLOCK):
            block = slice(start, min(start + _BLOCK, values.shape[2]))
            old = values[:, :, block].copy()
            for column in range(block.start, block.stop):
                target = values[:, :, column] - slope[:, :, column] / diagonal[:, None, column]
                integers[:, :, column] = grid.nearest(target, column)
                new = (integers[:, :, column] - grid.zero[:, :, column]) * grid.scale[:, :, column]
                step = new - values[:, :, column]
                values[:, :, column] = new
                slope[:, :, block] += step[:, :, None] * quadratic.hessian[:, None, column, block]
            rest = slice(block.stop, None)
            slope[:, :, rest] += (values[:, :, block] - old) @ quadratic.hessian[:, block, rest]
        if np.array_equal(values, before):
            break
    return integers

"""The error of a linear layer as a quadratic in its weights, and integers that are near its minimum.

Frantar et al. 2022 ("Optimal Brain Compression" and GPTQ): round one column, spread its error over those still open;
then improve single integers until none gains. It neither reads a graph nor chooses what is to be rounded (ADR 0010).
Pure. Example::

    integers = learned(quadratic.damped(weights, 1.0), grid)
    quadratic.errors(grid.values(integers))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeopt.samples import Array

__all__ = ["Grid", "Quadratic", "learned"]

_BLOCK = 64  # columns between two updates of all that follow
_SWEEPS = 3  # over single integers, at most


def learned(quadratic: Quadratic, grid: Grid) -> Array:
    """Return integers of ``grid``, (groups, outputs, inputs), at which ``quadratic`` is small."""
    return _improved(quadratic, grid, _rounded(quadratic, grid))


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What integers stand for, in rows (groups, outputs, inputs): (integer - zero) * scale, within low and high."""

    scale: Array
    zero: Array
    low: float
    high: float

    def nearest(self, values: Array, columns: int | slice) -> Array:
        """Return the nearest integers to ``values`` of some columns."""
        integers = np.rint(values / self.scale[:, :, columns]) + self.zero[:, :, columns]
        return np.asarray(np.clip(integers, self.low, self.high))

    def values(self, integers: Array) -> Array:
        """Return the weights that ``integers`` stand for."""
        return (integers - self.zero) * self.scale


@dataclass(frozen=True, slots=True, eq=False)
class Quadratic:
    """Mean squared error of a layer as a function of its weights W (groups, outputs, inputs), but for the bias.

    For each output that is w'Hw - 2 w'c + constant, with H = X'X (groups, inputs, inputs), c a row of Y'X (groups,
    outputs, inputs). Where a bias takes away whatever is constant, X and Y are centred.
    """

    hessian: Array
    cross: Array
    constant: Array

    def errors(self, weights: Array) -> Array:
        """Return the mean squared error of each output, (groups, outputs)."""
        return np.asarray((weights * (weights @ self.hessian - 2 * self.cross)).sum(axis=2) + self.constant)

    def damped(self, weights: Array, strength: float) -> Quadratic:
        """Return the same plus a cost for leaving ``weights``, ``strength`` times the inputs' mean square."""
        size = self.hessian.shape[-1]
        diagonal = np.diagonal(self.hessian, axis1=1, axis2=2).mean(axis=1)
        cost = np.maximum(strength * diagonal, 1e-12)[:, None, None]
        return Quadratic(self.hessian + cost * np.eye(size), self.cross + cost * weights, self.constant)


def _rounded(quadratic: Quadratic, grid: Grid) -> Array:
    """Return integers near the best weights, each column's rounding error made good by the columns after it.

    The order is by the size of the inputs, the greatest first (GPTQ's "act-order").
    """
    order = np.argsort(-np.diagonal(quadratic.hessian, axis1=1, axis2=2).mean(axis=0), kind="stable")
    hessian = quadratic.hessian[:, order][:, :, order]
    best = np.linalg.solve(quadratic.hessian, quadratic.cross.transpose(0, 2, 1)).transpose(0, 2, 1)
    rest = best[:, :, order]
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).transpose(0, 2, 1)
    part = Grid(grid.scale[:, :, order], grid.zero[:, :, order], grid.low, grid.high)
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


def _improved(quadratic: Quadratic, grid: Grid, integers: Array) -> Array:
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

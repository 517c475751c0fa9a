"""Finding samples that are nearly the same: a picture saved again, a brighter copy, a shifted sound, a changed bit.

Such copies in two splits let a model be judged with answers that its making has seen. Equal bytes are a matter of
:func:`edgeopt.splits.sample_digest`; here every input of a sample gets a sketch that small changes hardly move:

pictures (two axes of at least 8, at most 4 channels)
    The area means of a 12 x 12 grid for each channel, less their mean, at unit length. Near: correlation of at least
    0.998, mean within 15 % of the data's range and contrast within a factor of 1.4, so that neither brightness nor
    compression matters much, and another picture of the same composition is another picture.
sounds (one axis of at least 1024)
    The power in 64 bands of the spectrum, which knows no time. Pairs that correlate by 0.99 are then laid over each
    other: near when the greatest normalized cross-correlation at any shift is at least 0.95.
vectors (all other floats)
    The values, at most 256 evenly spaced ones, in standard deviations of their element over the data. Near: nearer than
    0.0001 of the median distance to the fourth neighbour, at which even on a line less than 0.1 % of distinct samples
    are so near by chance. It finds rounding and flipped low bits, and deliberately nothing more: rows of a table may
    well be alike.
integers and flags
    Equal or not: tokens that differ are other words.

Samples are near when all their inputs are. Nearness is handed on: the groups are the connected components. It does not
find crops, rotations or mirror images. Pure. Example::

    groups = near_duplicates([sample.inputs for sample in samples])      # [0, 1, 0, 3]: the third is like the first
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["near_duplicates"]

Array = npt.NDArray[Any]
Pairs = npt.NDArray[np.int64]  # of shape (n, 2)

_GRID = 12
_LEAST_SIDE, _MOST_CHANNELS = 8, 4
_PICTURE_CORRELATION = 0.998
_MEAN, _CONTRAST = 0.15, 1.4
_LEAST_SOUND, _BANDS = 1024, 64
_SOUND_CORRELATION, _OVERLAP = 0.99, 0.95
_MOST_ELEMENTS, _NEIGHBOUR, _NEARER = 256, 4, 1e-4
_FLAT = 1e-6  # contrast, as a share of the data's range, below which a sketch would be made of noise
_BLOCK = 512


def near_duplicates(samples: Sequence[Mapping[str, Array]]) -> list[int]:
    """Return, for each sample, the index of the first sample that it is equal or nearly equal to; often its own.

    Inputs are arrays by name, without batch dimension; only samples with equal names, shapes and dtypes are compared.
    The time grows with the square of their number, from about a second for ten thousand small pictures.
    """
    first = list(range(len(samples)))
    alike: dict[Any, list[int]] = defaultdict(list)
    for index, inputs in enumerate(samples):
        alike[tuple(sorted((name, array.dtype.str, array.shape) for name, array in inputs.items()))].append(index)
    for members in alike.values():
        names = sorted(samples[members[0]])
        roots = [_roots([samples[index][name] for index in members]) for name in names]
        seen: dict[tuple[int, ...], int] = {}
        for index, root in zip(members, zip(*roots, strict=True), strict=True):
            first[index] = seen.setdefault(root, index)
    return first


def _roots(arrays: Sequence[Array]) -> list[int]:
    """Return, for each array of one input, the least index of those that it is near to, directly or by others."""
    kind = _kind_of(arrays[0])
    pairs = _equal_pairs(arrays)
    if kind is not None and len(arrays) > 1:
        pairs = np.concatenate([pairs, kind(arrays)])
    left, right = pairs.T
    graph = coo_array((np.ones(len(pairs), bool), (left, right)), shape=(len(arrays), len(arrays)))
    _, labels = connected_components(graph, directed=False)
    _, firsts = np.unique(labels, return_index=True)
    return [int(index) for index in firsts[labels]]


def _equal_pairs(arrays: Sequence[Array]) -> Pairs:
    """Return each array with the first that is equal to it: a flat one has no sketch."""
    first: dict[bytes, int] = {}
    pairs = [(first.setdefault(array.tobytes(), index), index) for index, array in enumerate(arrays)]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _kind_of(array: Array) -> Callable[[Sequence[Array]], Pairs] | None:
    """Return what compares arrays like this one; ``None`` when they must be equal."""
    if _spatial_axes(array) is not None and (array.dtype.kind == "f" or array.dtype == np.uint8):
        return _near_pictures
    if max(array.shape, default=0) == array.size >= _LEAST_SOUND and (
        array.dtype.kind == "f" or array.dtype == np.int16
    ):
        return _near_sounds
    return _near_vectors if array.dtype.kind == "f" and array.size else None


def _spatial_axes(array: Array) -> tuple[int, int] | None:
    """Return the axes of height and width; ``None`` for what is no picture."""
    shape = array.shape
    if array.ndim not in (2, 3):
        return None
    axes = (1, 2) if array.ndim == 3 and shape[0] <= _MOST_CHANNELS else (0, 1)
    if min(shape[axes[0]], shape[axes[1]]) < _LEAST_SIDE:
        return None
    channels = array.size // (shape[axes[0]] * shape[axes[1]])
    return axes if channels <= _MOST_CHANNELS else None


def _near_pictures(arrays: Sequence[Array]) -> Pairs:
    axes = _spatial_axes(arrays[0])
    assert axes is not None
    sides = [_averaging(arrays[0].shape[axis]) for axis in axes]
    grids = np.stack([_pooled(array, axes, sides) for array in arrays])
    means, contrasts = grids.mean(axis=1), grids.std(axis=1)
    extent = float(grids.max() - grids.min())
    pairs = _correlated(grids, _PICTURE_CORRELATION, _FLAT * extent)
    left, right = pairs.T
    bright = np.abs(means[left] - means[right]) <= _MEAN * extent
    ratio = contrasts[left] / contrasts[right]
    near: Pairs = pairs[bright & (ratio <= _CONTRAST) & (ratio >= 1 / _CONTRAST)]
    return near


def _pooled(array: Array, axes: tuple[int, int], sides: Sequence[Array]) -> Array:
    """Return the area means of one picture, flat, float32."""
    planes = np.moveaxis(array.astype(np.float32), axes, (-2, -1))
    pooled: Array = (sides[0] @ planes @ sides[1].T).reshape(-1)
    return pooled


def _averaging(size: int) -> Array:
    """Return the matrix (cells, size) that averages ``size`` values over at most 12 cells of equal width."""
    edges = np.linspace(0, size, min(_GRID, size) + 1)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(covered, 0)
    averaging: Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return averaging


def _near_sounds(arrays: Sequence[Array]) -> Pairs:
    waves = [array.reshape(-1).astype(np.float32) for array in arrays]
    waves = [wave - wave.mean() for wave in waves]
    loudest = max(float(np.abs(wave).max()) for wave in waves)
    bands = np.stack([_spectrum(wave) for wave in waves])
    pairs = _correlated(bands, _SOUND_CORRELATION, _FLAT * loudest)
    return pairs[[_overlaps(waves[i], waves[j]) for i, j in pairs.tolist()]] if len(pairs) else pairs


def _spectrum(wave: Array) -> Array:
    """Return the root of the mean power in each band, in the wave's unit."""
    power = np.abs(np.fft.rfft(wave))[1:] ** 2
    starts = np.linspace(0, len(power), _BANDS, endpoint=False).astype(int)
    spectrum: Array = np.sqrt(np.add.reduceat(power, starts)) / len(wave)
    return spectrum


def _overlaps(a: Array, b: Array) -> bool:
    """Tell whether the waves are the same at some shift, whatever their volumes."""
    length = 2 * len(a)  # padded, so that nothing wraps around
    product = np.fft.irfft(np.fft.rfft(a, length) * np.conj(np.fft.rfft(b, length)), length)
    return float(np.abs(product).max()) >= _OVERLAP * float(np.linalg.norm(a) * np.linalg.norm(b))


def _near_vectors(arrays: Sequence[Array]) -> Pairs:
    step = -(-arrays[0].size // _MOST_ELEMENTS)
    rows = np.stack([array.reshape(-1)[::step] for array in arrays]).astype(np.float64)
    spread = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    if rows.shape[1] == 0:
        return np.empty((0, 2), np.int64)
    some = rows[:: max(1, len(rows) // _BLOCK)][:_BLOCK]
    squares = (some**2).sum(axis=1)[:, None] + (rows**2).sum(axis=1) - 2 * some @ rows.T
    neighbours = np.partition(squares, min(_NEIGHBOUR, len(rows) - 1), axis=1)[:, min(_NEIGHBOUR, len(rows) - 1)]
    return _within(rows, _NEARER * float(np.sqrt(np.median(np.maximum(neighbours, 0)))))


def _correlated(sketches: Array, least: float, flat: float) -> Pairs:
    """Return the pairs whose sketches correlate by ``least``; those with no more contrast than ``flat`` have none."""
    centred = sketches - sketches.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    usable = np.flatnonzero(lengths / np.sqrt(sketches.shape[1]) > flat)
    unit = centred[usable] / lengths[usable, None]
    pairs: Pairs = usable[_within(unit, float(np.sqrt(2 - 2 * least)))]  # |a - b|^2 = 2 - 2 cos of unit vectors
    return pairs


def _within(rows: Array, radius: float) -> Pairs:
    """Return the pairs (i < j) of ``rows`` that are at most ``radius`` apart.

    Sorted along the direction in which they differ most, rows further apart than the radius there need no comparison.
    """
    if len(rows) < 2:
        return np.empty((0, 2), np.int64)
    direction = np.linalg.eigh(np.cov(rows.T).reshape(rows.shape[1], rows.shape[1]))[1][:, -1]
    places = rows @ direction
    order = np.argsort(places, kind="stable")
    ordered, places = rows[order].astype(np.float32), places[order]
    squares = (ordered**2).sum(axis=1)
    slack = radius**2 + 1e-5 * float(squares.max(initial=0))  # what float32 loses; candidates are measured again
    reach = float(np.sqrt(slack))
    found = []
    for start in range(0, len(rows), _BLOCK):
        stop = min(start + _BLOCK, len(rows))
        end = int(np.searchsorted(places, places[stop - 1] + reach, side="right"))
        near = squares[start:stop, None] + squares[start:end] - 2 * ordered[start:stop] @ ordered[start:end].T <= slack
        left, right = np.nonzero(np.triu(near, 1))
        pairs = np.sort(np.stack([order[start + left], order[start + right]], axis=1), axis=1)
        exact = np.linalg.norm(rows[pairs[:, 0]] - rows[pairs[:, 1]], axis=1)
        found.append(pairs[exact <= radius])
    return np.concatenate(found).astype(np.int64)

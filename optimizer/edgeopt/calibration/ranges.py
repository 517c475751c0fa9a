"""The range of an activation, from its histogram: min-max, percentile, entropy and mean squared error.

Values outside of the range are clipped; the 8-bit steps inside are the finer the narrower it is. Which calibrator
serves a model best is found by trying: this is only their arithmetic. Pure. Example::

    low, high = range_of(histogram, Calibrator.MSE)      # low <= 0 <= high
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgeopt.calibration.histogram import SIDE, Histogram
from edgeopt.recipe import Calibrator

__all__ = ["PERCENTILE", "Range", "range_of"]

Floats = npt.NDArray[np.float64]
Range = tuple[float, float]

PERCENTILE = 99.99  # per cent of the values that stay inside of the range
_LEVELS = 256  # of 8 bits
# Entropy and error are searched on pairs of bins: at most 2,048 a side, as TensorRT has.
_SEARCHED_DOUBLINGS = 1
_ENTROPY_STEP = 8  # bins between two thresholds that are tried
_UNSEEN = 1e-4  # the count that stands for "none" where a logarithm needs one (as MXNet's and ONNX Runtime's)
_JOINT = np.linspace(1.0, 0.02, 50)  # shares of both extremes that are tried for the least squared error
_SINGLE = np.linspace(0.8, 1.25, 19)  # then of each end alone, around the best
_ROUNDS = 2


def range_of(histogram: Histogram, calibrator: Calibrator) -> Range:
    """Return the range (low, high) that ``calibrator`` takes for an activation; zero is always inside.

    Constants have their extremes as range, and where a calibrator would leave no width at all (nearly all values are
    zero) it gives way to min-max: everything would be rounded to zero.
    """
    chosen = calibrator if histogram.low < histogram.high else Calibrator.MINMAX
    low, high = _CALIBRATORS[chosen](histogram)
    if not high - low > 0:
        low, high = _minmax(histogram)
    return min(low, 0.0), max(high, 0.0)


def _minmax(histogram: Histogram) -> Range:
    """Return the extremes."""
    return histogram.low, histogram.high


def _percentile(histogram: Histogram) -> Range:
    """Return what cuts off 0.01 % of the values, as onnxruntime.quantization.calibrate.PercentileCalibrater does.

    Half of them at each end. As there, a threshold is the left edge of the bin in which it lies, and never outside of
    the extremes.
    """
    outside = 1 - PERCENTILE / 100
    low, high = ((_quantile_bin(histogram.counts, q) - SIDE) * histogram.width for q in (outside / 2, 1 - outside / 2))
    return max(low, histogram.low), min(high, histogram.high)


def _entropy(histogram: Histogram) -> Range:
    """Return the threshold whose 8-bit steps tell least apart from the values themselves (least KL divergence).

    S. Migacz, 8-bit inference with TensorRT, GTC 2017 (s7310), on magnitudes: ``p`` are the values clipped at the
    threshold, ``q`` what remains of them in 8-bit steps. A side that has no values takes none of the 256 steps, so
    that a ReLU's output has all of them. The zeros of a ReLU would outweigh all else and are exact in any range: the
    first bin counts as much as the second (as in NVIDIA's pytorch_quantization.calib.histogram).
    """
    coarse = _searchable(histogram)
    magnitudes = _magnitudes(coarse)
    magnitudes[0] = min(magnitudes[0], magnitudes[1])
    used = math.ceil(max(-coarse.low, coarse.high) / coarse.width)
    thresholds = np.unique(np.append(np.arange(_LEVELS // 2, used, _ENTROPY_STEP), used))
    below, above = (np.minimum(max(end, 0.0) / coarse.width / thresholds, 1) for end in (-coarse.low, coarse.high))
    levels = np.minimum(np.round(_LEVELS / np.maximum(below + above, 1)), thresholds)
    divergences = _divergences(magnitudes, thresholds, levels.astype(np.int64))
    best = float(thresholds[int(np.argmin(divergences))]) * coarse.width
    best = min(best, max(-histogram.low, histogram.high))
    return max(-best, histogram.low), min(best, histogram.high)


def _divergences(magnitudes: Floats, thresholds: npt.NDArray[np.int64], levels: npt.NDArray[np.int64]) -> Floats:
    """Return the KL divergence for each threshold (in bins), of which ``levels`` steps are made.

    Within a step ``q`` is the same for every bin that is not empty, so all sums over bins are differences of
    cumulative sums, and no bin is visited twice.
    """
    before = np.append(0, np.cumsum(magnitudes))
    filled = np.append(0, np.cumsum(magnitudes > 0))
    entropies = np.append(0, np.cumsum(magnitudes * np.log(np.maximum(magnitudes, 1))))
    steps = np.arange(_LEVELS + 1)
    edges = np.minimum(steps * thresholds[:, None] // levels[:, None], thresholds[:, None])
    inside, bins = np.diff(before[edges]), np.diff(filled[edges]).astype(np.float64)
    total, kept, last = before[-1], before[thresholds], magnitudes[thresholds - 1]
    outliers = total - kept
    rows, final = np.arange(len(thresholds)), levels - 1
    bins[rows, final] += (last == 0) & (outliers > 0)  # clipping fills the last bin
    q = np.maximum(inside / np.maximum(bins, 1), _UNSEEN)
    clipped = last + outliers
    p_log_p = entropies[thresholds - 1] + clipped * np.log(np.maximum(clipped, 1))
    p_log_q = (inside * np.log(q)).sum(axis=1) + outliers * np.log(q[rows, final])
    divergences = (p_log_p - p_log_q) / total - np.log(total) + np.log(np.maximum(kept, _UNSEEN))
    return np.where(kept > 0, divergences, np.inf)


def _mse(histogram: Histogram) -> Range:
    """Return the range with the least expected squared error of 8-bit values, clipping and rounding together.

    Nagel et al., A White Paper on Neural Network Quantization, arXiv:2106.08295, section 3.1: a search, first of both
    ends together, then of each alone.
    """
    coarse = _searchable(histogram)
    (filled,) = np.nonzero(coarse.counts)
    counts = coarse.counts[filled].astype(np.float64)
    values = (filled - SIDE + 0.5) * coarse.width
    values[filled == SIDE] = 0.0  # zero is exact in every range, and where it is frequent it is exactly zero
    values = np.clip(values, histogram.low, histogram.high)
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    ends = np.array([[low, high]])

    def best(candidates: Floats) -> Floats:
        errors = _squared_errors(values, counts, candidates)
        return candidates[[int(np.argmin(errors))]]

    ends = best(ends * _JOINT[:, None])
    for _ in range(_ROUNDS):
        for factors in _ONE_END:
            ends = best(np.clip(ends * (1 + np.outer(_SINGLE - 1, factors)), low, high))
    return float(ends[0, 0]), float(ends[0, 1])


_ONE_END = (np.array([0.0, 1.0]), np.array([1.0, 0.0]))


def _squared_errors(values: Floats, counts: Floats, ranges: Floats) -> Floats:
    """Return the sum of squared errors for each of ``ranges`` (n, 2), of ``values`` that occur ``counts`` times.

    The steps are those of QuantizeLinear with a scale and zero point as ONNX Runtime computes them (compute_scale_zp).
    """
    top = _LEVELS - 1
    low, high = ranges[:, :1], ranges[:, 1:]
    scale = np.maximum((high - low) / top, np.finfo(np.float32).tiny)
    zero = np.round(-low / scale)
    rounded = (np.clip(np.round(values / scale) + zero, 0, top) - zero) * scale
    errors: Floats = np.square(rounded - values) @ counts
    return errors


def _searchable(histogram: Histogram) -> Histogram:
    return histogram.coarsened(histogram.exponent + _SEARCHED_DOUBLINGS)


def _magnitudes(histogram: Histogram) -> Floats:
    """Return how often each bin of magnitudes occurs, float64 of shape (SIDE,)."""
    return (histogram.counts[SIDE:] + histogram.counts[:SIDE][::-1]).astype(np.float64)


def _quantile_bin(counts: npt.NDArray[np.int64] | Floats, share: float) -> int:
    """Return the first bin up to and with which ``share`` of all values lie."""
    cumulative = np.cumsum(counts)
    return min(int(np.searchsorted(cumulative, share * cumulative[-1])), len(counts) - 1)


_CALIBRATORS: dict[Calibrator, Callable[[Histogram], Range]] = {
    Calibrator.MINMAX: _minmax,
    Calibrator.PERCENTILE: _percentile,
    Calibrator.ENTROPY: _entropy,
    Calibrator.MSE: _mse,
}

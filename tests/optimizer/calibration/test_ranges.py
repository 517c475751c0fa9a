"""The arithmetic of the four calibrators, against ONNX Runtime, scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from onnxruntime.quantization.calibrate import HistogramCollector
from onnxruntime.quantization.quant_utils import compute_scale_zp

from edgeopt.calibration import ranges
from edgeopt.calibration.histogram import Histogram
from edgeopt.calibration.ranges import range_of
from edgeopt.recipe import Calibrator


def _distributions() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    normal = random.standard_normal(60_007)
    return {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "relu6": np.clip(normal * 4, 0, 6),
        "silu": normal * 3 / (1 + np.exp(-normal * 3)),
        "heavy tails": random.standard_t(3, 60_007),
        "one outlier": np.append(normal, 400.0),
        "far from zero": normal + 100,
        "tiny": normal * 1e-9,
        "uniform": random.uniform(-1, 3, 60_007),
    }


DISTRIBUTIONS = {name: values.astype(np.float32) for name, values in _distributions().items()}
EACH = pytest.mark.parametrize("values", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
EACH_CALIBRATOR = pytest.mark.parametrize("calibrator", Calibrator)


def onnxruntime_percentile(values: np.ndarray) -> tuple[float, float, float]:
    """Return ONNX Runtime's range, and the width of its bins."""
    collector = HistogramCollector("percentile", False, 2048, None, ranges.PERCENTILE, None)
    collector.collect({"x": values})
    low, high, _, edges = collector.compute_collection_result()["x"][:4]
    edges = collector.get_histogram_dict()["x"][1]
    return float(low), float(high), float(edges[1] - edges[0])


@EACH
def test_percentile_is_within_one_bin_of_onnxruntime(values: np.ndarray) -> None:
    """Its calibrator is the oracle."""
    expected_low, expected_high, width = onnxruntime_percentile(values)
    histogram = Histogram.of(values)
    low, high = range_of(histogram, Calibrator.PERCENTILE)
    width = max(width, histogram.width)  # its bins are the narrower ones where all magnitudes are far from zero
    assert abs(min(expected_low, 0) - min(low, 0)) <= width * 1.001
    assert abs(max(expected_high, 0) - max(high, 0)) <= width * 1.001


@EACH
def test_minmax_is_exact(values: np.ndarray) -> None:
    """Not the edge of a bin."""
    expected = (min(float(values.min()), 0.0), max(float(values.max()), 0.0))
    assert expected == range_of(Histogram.of(values), Calibrator.MINMAX)


@EACH
@EACH_CALIBRATOR
def test_zero_is_inside_and_nothing_is_outside_of_the_extremes(values: np.ndarray, calibrator: Calibrator) -> None:
    """A range has a width, zero can be told, and no step is spent on what does not occur."""
    low, high = range_of(Histogram.of(values), calibrator)
    assert low <= 0 <= high
    assert low < high
    greatest = float(np.abs(values).max())
    assert -greatest <= low
    assert high <= greatest


def squared_error(values: np.ndarray, low: float, high: float) -> float:
    """Return the mean squared error of 8-bit values, with the scale and zero point that ONNX Runtime takes."""
    least, most = np.array(0), np.array(255)
    zero, scale = compute_scale_zp(np.float64(low), np.float64(high), least, most)
    quantized = np.clip(np.round(values / scale) + zero, least, most)
    return float(np.square((quantized - zero) * scale - values).mean())


@EACH
def test_mse_finds_a_range_about_as_good_as_a_fine_search_on_the_values(values: np.ndarray) -> None:
    """Brute force over both ends is the oracle; no other calibrator is better by its own measure."""
    exact = values.astype(np.float64)
    low, high = min(exact.min(), 0.0), max(exact.max(), 0.0)
    shares = np.append(np.linspace(0.05, 1, 20), 0.01)
    candidates = [(low * down, high * up) for down in shares for up in shares]
    best = min(squared_error(exact, *candidate) for candidate in candidates)
    found = range_of(Histogram.of(values), Calibrator.MSE)
    error = squared_error(exact, *found)
    assert error <= 1.05 * best
    for calibrator in Calibrator:
        other = range_of(Histogram.of(values), calibrator)
        assert error <= 1.05 * squared_error(exact, *other)


def divergence(magnitudes: np.ndarray, threshold: int, levels: int) -> float:
    """Return the KL divergence as the paper's loop computes it, with scipy's sum."""
    p = magnitudes[:threshold].copy()
    p[-1] += magnitudes[threshold:].sum()
    q = np.zeros(threshold)
    for level in range(levels):
        step = slice(level * threshold // levels, (level + 1) * threshold // levels)
        filled = p[step] != 0
        if filled.any():
            q[step][filled] = max(magnitudes[:threshold][step].sum() / filled.sum(), 1e-4)
    # q sums up to what is inside, as it does where no bin had to be made up
    return float(scipy.special.rel_entr(p / p.sum(), q / magnitudes[:threshold].sum()).sum())


@EACH
def test_divergences_are_those_of_the_loop(values: np.ndarray) -> None:
    """Cumulative sums give what the loop over bins and steps gives."""
    magnitudes = ranges._magnitudes(ranges._searchable(Histogram.of(values)))
    thresholds = np.array([128, 300, 517, 1024, 1500])
    levels = np.array([128, 128, 200, 256, 256])
    thresholds, levels = (array[magnitudes.cumsum()[thresholds - 1] > 0] for array in (thresholds, levels))
    expected = [divergence(magnitudes, t, n) for t, n in zip(thresholds, levels, strict=True)]
    np.testing.assert_allclose(ranges._divergences(magnitudes, thresholds, levels), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["normal", "silu", "heavy tails"])
def test_entropy_is_near_that_of_onnxruntime(name: str) -> None:
    """Where no spike of zeros rules; it has 128 steps over both signs and leaves the last bins out, so only near."""
    values = DISTRIBUTIONS[name]
    collector = HistogramCollector("entropy", True, 2049, 129, None, None)
    collector.collect({"x": values})
    _, expected = collector.compute_collection_result()["x"][:2]
    _, high = range_of(Histogram.of(values), Calibrator.ENTROPY)
    assert float(expected) == pytest.approx(high, rel=0.25)


def test_entropy_clips_a_single_outlier() -> None:
    """That is what it is for: the others would share a few steps."""
    _, high = range_of(Histogram.of(DISTRIBUTIONS["one outlier"]), Calibrator.ENTROPY)
    assert 4 < high < 50


@EACH_CALIBRATOR
@pytest.mark.parametrize("constant", [0.0, 2.5, -1e-30, 7e30])
def test_constants_have_a_range(calibrator: Calibrator, constant: float) -> None:
    """From zero to the constant; nothing at all for zeros and for tensors without values."""
    histogram = Histogram.of(np.full(100, constant, np.float32))
    low, high = range_of(histogram, calibrator)
    assert abs(constant) == pytest.approx(max(-low, high))
    assert (0.0, 0.0) == range_of(Histogram.empty(), calibrator)


@EACH_CALIBRATOR
def test_an_activation_that_is_hardly_ever_there_keeps_a_range(calibrator: Calibrator) -> None:
    """All but 3 of 100,000 values are zero: the percentile is, too, and everything would be rounded away."""
    values = np.zeros(100_000, np.float32)
    values[:3] = (1.0, 2.0, 3.0)
    low, high = range_of(Histogram.of(values), calibrator)
    assert 0 == low
    assert high > 0.5

"""Totals: what a device served, as one array of counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.profile import (
    CONFIDENCE_EDGES,
    LATENCY_EDGES_US,
    FeatureSpec,
    ReferenceFeature,
    ReferenceProfile,
    Source,
    Summary,
    count_latency,
    count_values,
    mean_from_cells,
    quantile_from_latency,
)
from edgeopt_fleet.totals import LARGEST_COUNT, LATENCY_CELLS, Layout, add, confidence_moments, latency_quantile

CONFIDENCE = FeatureSpec(
    name="confidence", source=Source.OUTPUT, tensor="y", summary=Summary.CONFIDENCE, edges=CONFIDENCE_EDGES
)
TOP1 = FeatureSpec(name="top1", source=Source.OUTPUT, tensor="y", summary=Summary.TOP1, categories=3)
LAYOUT = Layout((CONFIDENCE, TOP1))


def _window(confidences: list[float], classes: list[int], latencies: list[float]) -> np.ndarray:
    cells = {
        "confidence": tuple(count_values(CONFIDENCE, np.asarray(confidences))),
        "top1": tuple(count_values(TOP1, np.asarray(classes, dtype=float))),
    }
    return LAYOUT.pack(cells, tuple(count_latency(latencies)))


def test_the_layout_follows_the_profile() -> None:
    """Cells stand in the profile's order, the latency histogram last."""
    profile = ReferenceProfile(
        rows=0,
        features=tuple(
            ReferenceFeature(spec=spec, counts=(0,) * spec.cells, mean=0.0, std=1.0) for spec in (CONFIDENCE, TOP1)
        ),
    )
    assert LAYOUT == Layout.of(profile)
    assert LAYOUT.size == CONFIDENCE.cells + 4 + LATENCY_CELLS
    counts = _window([0.05, 0.97], [2, 7], [25.0])
    assert [0, 0, 1, 1] == LAYOUT.cells_of(counts, "top1").tolist()
    assert 1 == LAYOUT.latency_of(counts).sum()


@given(st.lists(st.lists(st.floats(0, 1), max_size=5), min_size=1, max_size=5))
def test_windows_add_up_in_any_order(windows: list[list[float]]) -> None:
    """What is stored is the sum of all windows, whatever their order; the bytes are the same."""
    packed = [_window(values, [0] * len(values), [100.0] * len(values)) for values in windows]
    forward, backward = b"", b""
    for counts in packed:
        forward = add(forward, counts)
    for counts in reversed(packed):
        backward = add(backward, counts)
    assert forward == backward
    assert sum(packed).tolist() == LAYOUT.unpack(forward).tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "latency", [(1,), (), (LARGEST_COUNT + 1, *(0,) * (LATENCY_CELLS - 1)), (2**70,) * LATENCY_CELLS]
)
def test_what_does_not_fit_counts_as_nothing(latency: tuple[int, ...]) -> None:
    """A part of another shape, or with impossible counts, spoils nothing else."""
    counts = LAYOUT.pack({"top1": (1, 0, 0, 0), "confidence": (5,), "other": (1,)}, latency)
    assert 1 == counts.sum()


def test_a_total_of_another_layout_is_no_data() -> None:
    """Bytes of another length are read as zeros, alone and in a stack."""
    good = add(b"", _window([0.5], [1], [10.0]))
    assert [3, 0, 0] == LAYOUT.stack([good, b"", good[:-8]]).sum(axis=1).tolist()
    assert 0 == LAYOUT.unpack(good[:-8]).sum()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_confidences_are_those_of_the_contract(values: list[float]) -> None:
    """Mean and variance are those that the contract computes from the same cells."""
    counts = _window(values, [], [])
    mean, variance, n = mean_from_cells(CONFIDENCE, count_values(CONFIDENCE, np.asarray(values)).tolist())
    got_n, got_mean, got_variance = confidence_moments(LAYOUT, np.stack([counts, counts]))
    assert [n, n] == got_n.tolist()
    assert got_mean == pytest.approx(mean)
    assert got_variance == pytest.approx(variance, abs=1e-12)


def test_a_confidence_that_is_no_number_counts_as_zero() -> None:
    """A model that answers NaN half of the time has half the confidence."""
    _, mean, _ = confidence_moments(LAYOUT, _window([0.55, float("nan")], [], []))
    assert 0.275 == pytest.approx(float(mean))


def test_without_values_there_is_no_confidence() -> None:
    """Nothing served, or a model without classes: not a number, never zero."""
    assert np.isnan(confidence_moments(LAYOUT, _window([], [], []))[1])
    assert np.isnan(confidence_moments(Layout(), Layout().pack({}, ()))[1])


@given(st.lists(st.floats(11, 9e7), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_cell_that_holds_it(values: list[float], quantile: float) -> None:
    """The interpolated quantile lies within the cell whose upper edge the contract gives."""
    counts = count_latency(values)
    upper = quantile_from_latency(counts.tolist(), quantile)
    got = float(latency_quantile(counts, quantile))
    edges = (LATENCY_EDGES_US[0], *LATENCY_EDGES_US)
    assert edges[edges.index(upper, 1) - 1] * 0.999 <= got <= upper * 1.001


@pytest.mark.parametrize("spread", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("middle", [8.0, 8.1, 8.2])
def test_a_shift_smaller_than_a_cell_is_seen(spread: float, middle: float) -> None:
    """Latencies that grow by a tenth give a 95th percentile that grows by a tenth, wherever they stand in a cell."""
    latencies = np.random.default_rng(5).lognormal(middle, spread, 20_000)
    before = latency_quantile(count_latency(latencies.tolist()), 0.95)
    after = latency_quantile(count_latency((latencies * 1.1).tolist()), 0.95)
    assert 0.10 == pytest.approx(float(after / before - 1), abs=0.03)
    assert float(np.quantile(latencies, 0.95)) == pytest.approx(float(before), rel=0.04)


def test_no_latency_without_counts() -> None:
    """A device that served nothing has no latency."""
    assert np.isnan(latency_quantile(np.zeros((2, LATENCY_CELLS), dtype=np.int64), 0.95)).all()

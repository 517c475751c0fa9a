"""Profile arithmetic: every value counted once, and counts that merge exactly in any order."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.counting import ProfileCounter
from edgeopt_contract.errors import MessageError
from edgeopt_contract.profile import (
    CONFIDENCE_EDGES,
    LATENCY_EDGES_US,
    FeatureSpec,
    ReferenceFeature,
    Source,
    Summary,
    count_latency,
    count_values,
    mean_from_cells,
    merge_cells,
    probabilities,
    quantile_from_latency,
    summarize,
)


def spec(summary: Summary = Summary.MEAN, **changes: Any) -> FeatureSpec:
    """A feature of the input 'x' with edges 0, 1, 2, 4."""
    fields: dict[str, Any] = {"edges": () if summary is Summary.TOP1 else (0.0, 1.0, 2.0, 4.0)}
    return FeatureSpec(name="f", source=Source.INPUT, tensor="x", summary=summary, **(fields | changes))


def reference(of: FeatureSpec) -> ReferenceFeature:
    """A reference without counts: devices only need the cells."""
    return ReferenceFeature(spec=of, counts=(0,) * of.cells, mean=0.0, std=1.0)


any_float = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1.0, 2.0, 4.0, math.inf, -math.inf, math.nan])


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (-1e-300, 0),
        (0.0, 1),
        (-0.0, 1),
        (0.999, 1),
        (1.0, 2),
        (2.0, 3),
        (3.999, 3),
        (4.0, 3),
        (np.nextafter(4.0, 5.0), 4),
        (1e308, 4),
        (math.nan, 5),
        (math.inf, 6),
        (-math.inf, 7),
    ],
)
def test_each_value_has_the_documented_cell(value: float, cell: int) -> None:
    """Below, [e0,e1), [e1,e2), [e2,e3], above, missing, +inf, -inf: the last bin is closed."""
    expected = [0] * 8
    expected[cell] = 1
    assert expected == count_values(spec(), np.array([value])).tolist()


@given(values=st.lists(any_float, max_size=50))
def test_every_value_lands_in_exactly_one_cell(values: list[float]) -> None:
    """Counts add up to the number of values; none is lost and none counted twice."""
    counts = count_values(spec(), np.array(values, dtype=np.float64))
    assert (len(values), 8) == (counts.sum(), counts.size)


@given(values=st.lists(st.integers(-2, 5) | st.just(math.nan), max_size=50))
def test_every_category_lands_in_its_cell_or_the_last(values: list[float]) -> None:
    """A class that the profile does not know, and no class at all, count as unseen."""
    counts = count_values(spec(Summary.TOP1, categories=3), np.array(values, dtype=np.float64))
    expected = [values.count(0), values.count(1), values.count(2)]
    assert [*expected, len(values) - sum(expected)] == counts.tolist()


@given(data=st.data(), windows=st.lists(st.lists(any_float, max_size=20), min_size=1, max_size=5))
def test_windows_merge_exactly_in_any_order(data: st.DataObject, windows: list[list[float]]) -> None:
    """Any grouping and order of windows gives the counts of all values at once."""
    counts = [{"f": tuple(count_values(spec(), np.array(w, dtype=np.float64)).tolist())} for w in windows]
    shuffled = data.draw(st.permutations(counts))
    split = data.draw(st.integers(0, len(shuffled)))
    together = np.array([value for window in windows for value in window], dtype=np.float64)
    merged = merge_cells(merge_cells(*shuffled[:split]), merge_cells(*shuffled[split:]))
    assert {"f": tuple(count_values(spec(), together).tolist())} == merged


def test_windows_of_different_profiles_do_not_merge() -> None:
    """Counts of other cells mean something else."""
    with pytest.raises(MessageError, match="feature f: expected 2 cells, got 3"):
        merge_cells({"f": (1, 2)}, {"f": (1, 2, 3)})


def test_a_feature_that_one_window_lacks_is_kept() -> None:
    """A device with an older agent counts fewer features; the others are not lost."""
    assert {"f": (4, 6), "g": (1,)} == merge_cells({"f": (1, 2)}, {"f": (3, 4), "g": (1,)})


def test_summaries_of_a_picture() -> None:
    """Mean, spread, sharpness along lines and one element, per sample, computed by hand."""
    batch = np.array([[[0.0, 2.0], [4.0, 10.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert [4.0, 1.0] == summarize(spec(Summary.MEAN), batch).tolist()
    assert [float(np.std([0, 2, 4, 10])), 0.0] == summarize(spec(Summary.STD), batch).tolist()
    assert [4.0, 0.0] == summarize(spec(Summary.SHARPNESS), batch).tolist()
    assert [4.0, 1.0] == summarize(spec(Summary.COLUMN, column=2), batch).tolist()


def test_a_scalar_per_sample_has_no_sharpness_and_its_own_mean() -> None:
    """A batch of plain numbers is one element a sample."""
    batch = np.array([3.0, 5.0])
    assert [3.0, 5.0] == summarize(spec(Summary.MEAN), batch).tolist()
    assert [0.0, 0.0] == summarize(spec(Summary.SHARPNESS), batch).tolist()


def test_a_column_that_is_not_there_is_missing() -> None:
    """A table with fewer columns than calibrated is seen as missing values, not as an error in the device's loop."""
    values = summarize(spec(Summary.COLUMN, column=7), np.zeros((2, 3)))
    assert [0, 0, 0, 0, 0, 2, 0, 0] == count_values(spec(), values).tolist()


def test_bytes_do_not_overflow() -> None:
    """A bright uint8 picture has a mean of 255, not what 8 bits would hold."""
    batch = np.full((1, 64, 64), 255, dtype=np.uint8)
    assert [255.0] == summarize(spec(Summary.MEAN), batch).tolist()


scores = st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=4).map(np.array)


@given(logits=scores)
def test_probabilities_of_logits_are_a_softmax(logits: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """They add up to one and keep the order; confidence is their greatest, entropy at most log C."""
    p = probabilities(logits, logits=True)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(p, expected, rtol=1e-9)
    confidence = summarize(spec(Summary.CONFIDENCE, logits=True), logits)
    entropy = summarize(spec(Summary.ENTROPY, logits=True), logits)
    np.testing.assert_allclose(confidence, expected.max(axis=1), rtol=1e-9)
    assert np.all((entropy >= 0) & (entropy <= np.log(3) + 1e-9))


def test_huge_logits_do_not_overflow() -> None:
    """The softmax is shifted by the maximum first."""
    assert [[1.0, 0.0]] == probabilities(np.array([[1e4, -1e4]]), logits=True).tolist()


def test_probabilities_that_are_already_normal_are_taken_as_they_are() -> None:
    """A model that ends in a softmax says so in its profile; certainty has no entropy."""
    batch = np.array([[0.25, 0.75], [0.0, 1.0]])
    assert [0.75, 1.0] == summarize(spec(Summary.CONFIDENCE), batch).tolist()
    assert 0.0 == summarize(spec(Summary.ENTROPY), batch)[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_output_is_seen_as_missing_or_unseen(bad: float) -> None:
    """A device that computes NaN does not look like one that is sure of class 0."""
    batch = np.array([[bad, bad, 0.0]])
    confidence = spec(Summary.CONFIDENCE, logits=True)
    assert 1 == count_values(confidence, summarize(confidence, batch))[5]
    if math.isnan(bad):
        top1 = spec(Summary.TOP1, categories=3)
        assert [0, 0, 0, 1] == count_values(top1, summarize(top1, batch)).tolist()


def test_top1_is_the_index_of_the_greatest_score() -> None:
    """Integer scores too, as a quantized graph may give."""
    batch = np.array([[1, 9, 3], [7, 0, 0]], dtype=np.int32)
    assert [1.0, 0.0] == summarize(spec(Summary.TOP1, categories=3), batch).tolist()


latencies = st.lists(st.floats(10, 1e8 - 1, exclude_min=True), min_size=1, max_size=200)


@given(values=latencies, quantile=st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_latency_quantile_is_numpys_within_one_cell(values: list[float], quantile: float) -> None:
    """Eight cells a decade: the answer lies above the true quantile by at most a third."""
    expected = float(np.quantile(values, quantile, method="inverted_cdf"))
    actual = quantile_from_latency(count_latency(values).tolist(), quantile)
    assert expected <= actual <= expected * 10 ** (1 / 8) * 1.01


def test_latency_outside_the_edges_is_counted() -> None:
    """Too fast and too slow have a cell each; a quantile there is the outermost edge."""
    counts = count_latency([1.0, 1e9])
    assert (1, 1, 2) == (counts[0], counts[-1], counts.sum())
    assert (LATENCY_EDGES_US[0], LATENCY_EDGES_US[-1]) == (
        quantile_from_latency(counts.tolist(), 0.5),
        quantile_from_latency(counts.tolist(), 1.0),
    )


@pytest.mark.parametrize("counts", [(), (0,) * 58])
def test_no_latency_has_no_quantile(counts: tuple[int, ...]) -> None:
    """Nothing measured is not zero microseconds."""
    assert math.isnan(quantile_from_latency(counts, 0.5))


def test_latency_edges_are_part_of_the_protocol() -> None:
    """10 microseconds to 100 seconds in 56 steps, the same on every device for ever."""
    assert (57, 10.0, 13.3, 100.0, 1e8) == (
        len(LATENCY_EDGES_US),
        *LATENCY_EDGES_US[:2],
        LATENCY_EDGES_US[8],
        LATENCY_EDGES_US[-1],
    )
    assert sorted(set(LATENCY_EDGES_US)) == list(LATENCY_EDGES_US)


def test_mean_from_cells_by_hand() -> None:
    """Finite values count at the middle of their cell, outer ones at the edge, special ones not."""
    mean, variance, n = mean_from_cells(spec(), (1, 2, 0, 0, 1, 9, 9, 9))
    values = [0.0, 0.5, 0.5, 4.0]
    assert (np.mean(values), np.var(values), 4) == (pytest.approx(mean), pytest.approx(variance), n)


def test_mean_of_nothing_is_not_a_number() -> None:
    """No data is not a mean of zero."""
    mean, variance, n = mean_from_cells(spec(), (0, 0, 0, 0, 0, 5, 5, 5))
    assert (True, True, 0) == (math.isnan(mean), math.isnan(variance), n)


@given(
    low=st.floats(-1e3, 1e3),
    width=st.floats(1e-3, 1e3),
    bins=st.integers(1, 30),
    share=st.lists(st.floats(0, 1), min_size=1, max_size=50),
)
def test_mean_from_cells_is_within_half_a_cell(low: float, width: float, bins: int, share: list[float]) -> None:
    """For values inside the edges the mean is off by at most half the widest cell."""
    edges = tuple(float(e) for e in np.linspace(low, low + width, bins + 1))
    if np.any(np.diff(edges) <= 0):
        return  # too narrow for the precision of the numbers
    values = np.clip(low + np.array(share) * width, edges[0], edges[-1])
    feature = spec(edges=edges)
    mean, _, n = mean_from_cells(feature, count_values(feature, values).tolist())
    assert len(share) == n
    assert abs(float(values.mean()) - mean) <= width / bins * 0.5 + 1e-6


def test_counter_counts_batches_and_starts_again() -> None:
    """Take returns what was counted since the last take; a tensor that is not there is not counted."""
    top1 = spec(Summary.TOP1, categories=2)
    features = [
        reference(spec()),
        reference(FeatureSpec(name="c", source=Source.OUTPUT, tensor="y", summary=top1.summary, categories=2)),
    ]
    counter = ProfileCounter(features)
    counter.observe({"x": np.array([[0.5], [5.0]])}, {"y": np.array([[1.0, 0.0], [0.0, 1.0]])})
    counter.observe({"x": np.array([[math.nan]])}, {"other": np.zeros((1, 2))})
    assert {"f": (0, 1, 0, 0, 1, 1, 0, 0), "c": (1, 1, 0)} == counter.take()
    assert {"f": (0,) * 8, "c": (0,) * 3} == counter.take()


@pytest.mark.parametrize("edges", [(1.0,), (1.0, 1.0), (2.0, 1.0), (0.0, math.nan), (0.0, math.inf)])
def test_cells_without_sense_cannot_be_made(edges: tuple[float, ...]) -> None:
    """Edges increase strictly and are finite; a NaN among them would make every comparison false."""
    with pytest.raises(ValueError, match="strictly increasing, finite edges"):
        spec(edges=edges)


def test_a_window_costs_a_few_dozen_bytes_a_feature() -> None:
    """Measured as JSON: 16 equal-probability bins over 10,000 rows stay below 100 bytes, confidence too."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=10_000)
    edges = tuple(float(e) for e in np.quantile(rng.normal(size=10_000), np.linspace(0, 1, 17)))
    numeric = spec(edges=edges)
    confidence = spec(edges=CONFIDENCE_EDGES)
    for feature, observed in ((numeric, values), (confidence, rng.beta(8, 1, size=10_000))):
        cells = count_values(feature, observed).tolist()
        assert len(json.dumps(cells, separators=(",", ":"))) <= 100

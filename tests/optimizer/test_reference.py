"""The reference profile and the golden file."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt.reference import BINS, equal_probability_edges, golden_file, golden_samples, reference_profile
from edgeopt.samples import Sample
from edgeopt_contract.codec import decode, encode
from edgeopt_contract.counting import ProfileCounter
from edgeopt_contract.profile import CONFIDENCE_EDGES, ReferenceProfile, Source, Summary

RANDOM = np.random.default_rng(0)


def _names(profile: ReferenceProfile, source: Source) -> list[str]:
    return [feature.spec.name for feature in profile.features if feature.spec.source is source]


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        ({"input": (3, 8, 8)}, ["brightness", "contrast", "sharpness"]),
        ({"input": (8, 8)}, ["brightness", "contrast", "sharpness"]),
        ({"sound": (2, 100)}, ["sound.mean", "sound.std", "sound.sharpness"]),
        ({"row": (3,)}, ["row[0]", "row[1]", "row[2]"]),
        ({"row": (65,)}, ["row.mean", "row.std", "row.sharpness"]),
        ({"age": ()}, ["age"]),
        ({"eye": (3, 8, 8), "age": ()}, ["eye.brightness", "eye.contrast", "eye.sharpness", "age"]),
    ],
)
def test_features_of_inputs(shapes: dict[str, tuple[int, ...]], names: list[str]) -> None:
    """Pictures, signals and tables each get features that a person can name."""
    inputs = {name: RANDOM.standard_normal((50, *shape)) for name, shape in shapes.items()}
    assert names == _names(reference_profile(inputs, {}), Source.INPUT)


def test_features_of_scores() -> None:
    """Class, confidence and entropy; whether a softmax comes first is decided once, from the data."""
    logits = RANDOM.standard_normal((50, 4)) * 3
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for scores, are_logits in ((logits, True), (softmax, False)):
        profile = reference_profile({"x": np.zeros((50, 2))}, {"y": scores})
        assert ["class", "confidence", "entropy"] == _names(profile, Source.OUTPUT)
        kind, confidence, entropy = (feature for feature in profile.features if feature.spec.source is Source.OUTPUT)
        assert 4 == kind.spec.categories
        assert CONFIDENCE_EDGES == confidence.spec.edges
        assert (are_logits, are_logits) == (confidence.spec.logits, entropy.spec.logits)
        assert float(softmax.max(axis=1).mean()) == pytest.approx(confidence.mean)


def test_other_outputs() -> None:
    """A single score is one feature; names carry the output's when there are several; a map of scores has none."""
    outputs = {"price": RANDOM.standard_normal((50, 1)), "map": np.zeros((50, 4, 5))}
    profile = reference_profile({"x": np.zeros((50, 2))}, outputs)
    assert ["price.score"] == _names(profile, Source.OUTPUT)


def test_a_device_with_the_same_data_counts_the_same() -> None:
    """The reference counts are what ProfileCounter makes of the same samples; none is lost; it survives the file."""
    inputs, outputs = {"x": RANDOM.standard_normal((200, 1, 8, 8))}, {"y": RANDOM.standard_normal((200, 3))}
    profile = reference_profile(inputs, outputs)
    counter = ProfileCounter(profile.features)
    counter.observe(inputs, outputs)
    assert {feature.spec.name: feature.counts for feature in profile.features} == counter.take()
    assert all(sum(feature.counts) == profile.rows == 200 for feature in profile.features)
    assert profile == decode(ReferenceProfile, encode(profile))


class TestEdges:
    """Cells with about as many values each."""

    @given(
        hnp.arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e9, 1e9, allow_subnormal=False)),
    )
    def test_edges_increase_and_hold_all_values(self, values: np.ndarray) -> None:
        """Whatever repeats, edges are strictly increasing, and no finite value lies outside."""
        edges = equal_probability_edges(values)
        assert 2 <= len(edges) <= BINS + 1
        assert all(a < b for a, b in itertools.pairwise(edges))
        assert edges[0] <= values.min()
        assert values.max() <= edges[-1]

    def test_distinct_values_spread_evenly(self) -> None:
        """1,600 values make sixteen cells of a hundred."""
        counts, _ = np.histogram(np.arange(1600), equal_probability_edges(np.arange(1600)))
        assert [100] * BINS == pytest.approx(counts.tolist(), abs=1)

    def test_a_constant_and_nothing(self) -> None:
        """A constant gets one narrow cell; without finite values there is still a valid one."""
        low, high = equal_probability_edges(np.full(5, 3.0))
        assert low < 3.0 < high
        assert high - low < 1e-4
        assert (0.0, 1.0) == equal_probability_edges(np.array([np.nan, np.inf]))


@pytest.mark.parametrize(
    ("shape", "available", "count"),
    [((3,), 100, 64), ((1, 8, 8), 100, 64), ((3, 224, 224), 100, 4), ((64, 64), 3, 3), ((32, 32), 20, 8)],
)
def test_golden_inputs_are_few_and_small(shape: tuple[int, ...], available: int, count: int) -> None:
    """At most 64 and 32 KiB, but at least four where there are so many."""
    samples = [Sample({"x": np.zeros(shape, np.float32)}, None)] * available
    assert count == len(golden_samples(samples))


def test_the_golden_file_repeats_byte_by_byte() -> None:
    """Arrays by role and variant; equal content, equal bytes."""
    inputs, outputs = (
        {"x": np.arange(6.0).reshape(2, 3)},
        {"int8": {"y": np.ones((2, 4))}, "fp32": {"y": np.zeros((2, 4))}},
    )
    data = golden_file(inputs, outputs)
    assert data == golden_file(inputs, outputs)
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        assert {"inputs/x", "outputs/int8/y", "outputs/fp32/y"} == set(stored.files)
        assert np.array_equal(inputs["x"], stored["inputs/x"])
        assert np.array_equal(outputs["int8"]["y"], stored["outputs/int8/y"])


def test_a_feature_keeps_its_source_and_summary() -> None:
    """The agent finds the tensor by the names of the manifest."""
    profile = reference_profile({"row": RANDOM.standard_normal((30, 2))}, {})
    spec = profile.features[1].spec
    assert ("row", Summary.COLUMN, 1) == (spec.tensor, spec.summary, spec.column)

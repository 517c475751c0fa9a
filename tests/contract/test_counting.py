"""Counting all features at once gives the cells that counting them one by one gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.counting import ProfileCounter
from edgeopt_contract.features import FeatureSpec, ReferenceFeature, Source, Summary
from edgeopt_contract.profile import count_values, summarize

ODD = [math.nan, math.inf, -math.inf, -0.0, 1e300]


def feature(spec: FeatureSpec) -> ReferenceFeature:
    """A reference without counts: devices only need the cells."""
    return ReferenceFeature(spec=spec, counts=(0,) * spec.cells, mean=0.0, std=1.0)


@st.composite
def specs(draw: st.DrawFn) -> list[FeatureSpec]:
    """Some features of every kind, of an input 'x' and an output 'y', in any order."""
    made = []
    for index in range(draw(st.integers(1, 8))):
        summary = draw(st.sampled_from(Summary))
        edges = draw(st.lists(st.integers(-5, 5), min_size=2, max_size=9, unique=True).map(sorted))
        fields: dict[str, Any] = {"edges": tuple(float(edge) / 2 for edge in edges)}
        if summary is Summary.TOP1:
            fields = {"categories": draw(st.integers(1, 4))}
        elif summary is Summary.COLUMN:
            fields["column"] = draw(st.integers(0, 5))  # the tensors have 3 or 4 columns
        source = draw(st.sampled_from(Source))
        logits = draw(st.booleans())
        tensor = "x" if source is Source.INPUT else "y"
        made.append(
            FeatureSpec(name=f"f{index}", source=source, tensor=tensor, summary=summary, logits=logits, **fields)
        )
    return made


values = st.floats(-4, 4, width=32).map(lambda v: round(v * 2) / 2) | st.sampled_from(ODD)
batches = st.integers(1, 7).flatmap(
    lambda rows: st.tuples(
        st.lists(values, min_size=3 * rows, max_size=3 * rows).map(lambda v: np.reshape(v, (rows, 3))),
        st.lists(values, min_size=4 * rows, max_size=4 * rows).map(lambda v: np.reshape(v, (rows, 2, 2))),
    )
)


@given(specs(), st.lists(batches, min_size=1, max_size=3))
def test_cells_are_those_of_counting_one_by_one(
    features: list[FeatureSpec], given: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    """Rows and batches, values on an edge, NaN, infinities, columns that are not there: the same cells."""
    counter = ProfileCounter([feature(spec) for spec in features])
    expected = {spec.name: np.zeros(spec.cells, np.int64) for spec in features}
    for x, y in given:
        counter.observe({"x": x}, {"y": y})
        for spec in features:
            expected[spec.name] += count_values(spec, summarize(spec, x if spec.source is Source.INPUT else y))
    assert {name: tuple(cells.tolist()) for name, cells in expected.items()} == counter.take()


@pytest.mark.parametrize("odd", [*ODD, -1e300, 1.0])
def test_one_odd_value_of_a_single_row_is_counted_alike(odd: float) -> None:
    """Wherever it stands: the same cells as by the plain definition, and no warning."""
    edges = (-1.0, 0.0, 1.0)
    specs = [
        FeatureSpec(name=f"x{i}", source=Source.INPUT, tensor="x", summary=Summary.COLUMN, column=i, edges=edges)
        for i in range(3)
    ]
    for place in range(3):
        row = np.array([[0.5, -2.0, 1.0]])
        row[0, place] = odd
        counter = ProfileCounter([feature(spec) for spec in specs])
        counter.observe({"x": row}, {})
        assert {s.name: tuple(count_values(s, summarize(s, row)).tolist()) for s in specs} == counter.take()


@pytest.mark.parametrize("scores", [[1.7e308, -1.7e308, 0.0], [5.0, 5.0], [0.0, -800.0], [1e300, 1e300, -1e300]])
def test_entropy_of_far_scores_is_that_of_the_definition(scores: list[float]) -> None:
    """Differences that no float holds, and classes that are certain."""
    spec = FeatureSpec(
        name="e", source=Source.OUTPUT, tensor="y", summary=Summary.ENTROPY, logits=True, edges=(0.0, 0.1, 0.69, 0.7)
    )
    counter, row = ProfileCounter([feature(spec)]), np.array([scores])
    counter.observe({}, {"y": row})
    assert tuple(count_values(spec, summarize(spec, row)).tolist()) == counter.take()["e"]


def test_cells_may_lie_elsewhere() -> None:
    """The counter adds to what is there; an array of another length is refused."""
    spec = FeatureSpec(name="f", source=Source.INPUT, tensor="x", summary=Summary.MEAN, edges=(0.0, 1.0))
    cells = np.full(spec.cells, 10, dtype=np.int64)
    ProfileCounter([feature(spec)], cells).observe({"x": np.full((3, 1), 0.5)}, {})
    assert [10, 13, 10, 10, 10, 10] == cells.tolist()
    with pytest.raises(ValueError, match="expected 6 cells"):
        ProfileCounter([feature(spec)], cells[1:])


def test_large_batch_and_many_edges_are_counted_alike() -> None:
    """Whichever way is faster for a number of samples and of edges: the cells are the same."""
    edges = tuple(float(edge) for edge in range(2000))
    spec = FeatureSpec(name="f", source=Source.INPUT, tensor="x", summary=Summary.COLUMN, column=0, edges=edges)
    counter = ProfileCounter([feature(spec)])
    x = np.random.default_rng(1).uniform(-10, 2010, size=(100, 1))
    counter.observe({"x": x}, {})
    expected = counter.take()
    for row in x:
        counter.observe({"x": row[np.newaxis]}, {})
    assert expected == counter.take()
    assert tuple(count_values(spec, x[:, 0]).tolist()) == expected["f"]

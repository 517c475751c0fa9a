"""What a bundle's lineage says is asked for again, as it was."""

from __future__ import annotations

import json

import pytest

from edgeopt import rebuilding
from edgeopt.files.reading import Reading, TokenIds
from edgeopt.sources import DataSources

TOKENS = TokenIds(column="ids", pad=1, length=8, mask="attention_mask")


@pytest.mark.parametrize(
    "sources",
    [
        DataSources(single="examples.digits:data", reading=Reading(labels=("a", "b"))),
        DataSources(single="rows.csv", reading=Reading(shape=(3,), label_column="species", labels=("a", "b"))),
        DataSources(single="texts.jsonl", reading=Reading(labels=("a", "b"), tokens=TOKENS)),
        DataSources(calibration="a.npz", selection="b.npz", certification="c.npz", reading=Reading(labels=("a", "b"))),
    ],
    ids=["factory", "table", "tokens", "three"],
)
def test_sources_are_read_as_they_were(sources: DataSources) -> None:
    """Through JSON and back: the same sources, read in the same way."""
    given = json.loads(json.dumps(sources.given()))
    assert sources == rebuilding._sources(given, ("a", "b"))

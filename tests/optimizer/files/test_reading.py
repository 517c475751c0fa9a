"""Names of classes become labels by one rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.files.reading import Reading, in_words
from edgeopt_contract.errors import DataError


@given(st.lists(st.text(max_size=5), min_size=2, unique=True), st.randoms(use_true_random=False))
def test_names_among_the_labels_have_their_place_there(labels: list[str], random: object) -> None:
    """For every order of the labels and every part of them of two or more."""
    some = sorted(random.sample(labels, random.randint(2, len(labels))))  # type: ignore[attr-defined]  # Hypothesis' own
    indices = Reading(labels=tuple(labels)).indices(some, "data")
    assert some == [labels[indices[name]] for name in some]


@pytest.mark.parametrize("labels", [(), ("Katze", "Eule")])
def test_otherwise_the_place_among_the_sorted_names(labels: tuple[str, ...]) -> None:
    """Other names for the classes do not change their order."""
    assert {"cat": 0, "owl": 1} == Reading(labels=labels).indices(("cat", "owl"), "data")


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (("cat", "dog"), ("cat", "owl"), "has the class 'owl', which is not among --labels"),
        (("a", "b", "c"), ("cat", "owl"), "has 2 classes, --labels names 3 others"),
        ((), ("cat",), "data has one class only, 'cat': expected at least two"),
    ],
)
def test_what_would_give_wrong_labels(labels: tuple[str, ...], classes: tuple[str, ...], message: str) -> None:
    """A part of the names, too many other names, one class."""
    with pytest.raises(DataError, match=message):
        Reading(labels=labels).indices(classes, "data")


def test_shapes_in_words() -> None:
    """As people write them."""
    assert ["3 x any x 4", "a single number"] == [in_words((3, None, 4)), in_words(())]

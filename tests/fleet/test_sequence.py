from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.sequence import NumberSet


@given(st.lists(st.integers(1, 60), max_size=120))
def test_it_is_a_set_of_numbers(numbers: list[int]) -> None:
    """In any order and with repetitions it holds the same numbers as a plain set, in its least form."""
    stored, oracle = NumberSet(), set()
    for number in numbers:
        assert (number in stored) == (number in oracle)
        stored, oracle = stored.add(number), oracle | {number}

    assert oracle == {number for number in range(1, 70) if number in stored}
    assert len(oracle) == len(stored)
    ends = [stored.upto, *(edge for pair in stored.beyond for edge in pair)]
    assert ends == sorted(ends)
    ranges = ((0, stored.upto), *stored.beyond)
    assert all(first > end + 1 for (_, end), (first, _) in itertools.pairwise(ranges))


@given(st.sets(st.integers(1, 40)), st.sets(st.integers(1, 40)))
def test_only_what_is_stored_is_acknowledged(numbers: set[int], fresh: set[int]) -> None:
    """Never a number that is not stored; all fresh ones that are."""
    stored = NumberSet()
    for number in numbers:
        stored = stored.add(number)
    beyond = stored.acknowledgeable(fresh)
    assert set(beyond) <= numbers
    assert {number for number in numbers & fresh if number > stored.upto} <= set(beyond)


def test_an_acknowledgement_stays_small() -> None:
    """A gap that never closes does not make every acknowledgement larger; what just came is always in it."""
    stored = NumberSet(0, ((2, 50_000),))
    beyond = stored.acknowledgeable([49_999, 50_000])
    assert 1002 == len(beyond)
    assert (49_999, 50_000) == beyond[-2:]

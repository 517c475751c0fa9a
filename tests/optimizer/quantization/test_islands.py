"""The assignment of nodes to int8 and float is the cheapest one: all others were tried, on small graphs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.quantization.islands import Link, NodeTime, islands

CONVERSION_US = 3.0


def _time(name: str, kernel: float, *, integer: bool) -> NodeTime:
    """A node whose conversions say that each costs three microseconds whatever its size."""
    conversions = ((1, CONVERSION_US), (1000, CONVERSION_US)) if integer else ()
    return NodeTime(node=name, kernel_us=kernel, conversions=conversions, integer=integer)


def _chain(*names: str) -> tuple[Link, ...]:
    ends = [None, *names], [*names, None]
    return tuple(Link(producer=a, consumers=(b,), elements=10) for a, b in zip(*ends, strict=True))


def _times(
    in_float: Sequence[float], in_int8: Sequence[float | None]
) -> tuple[dict[str, NodeTime], dict[str, NodeTime]]:
    """Nodes a, b, c …; ``None``: int8 is not possible."""
    names = "abcdefgh"[: len(in_float)]
    before = {name: _time(name, cost, integer=False) for name, cost in zip(names, in_float, strict=True)}
    after = {
        name: _time(name, slow if fast is None else fast, integer=fast is not None)
        for name, slow, fast in zip(names, in_float, in_int8, strict=True)
    }
    return before, after


def _cost(
    in_float: set[str | None], before: Mapping[str, NodeTime], after: Mapping[str, NodeTime], links: Sequence[Link]
) -> float:
    """What a run takes when ``in_float`` are in float."""
    total = sum(before[name].total_us if name in in_float else after[name].kernel_us for name in before)
    for link in links:
        sides = {consumer in in_float for consumer in link.consumers} - {link.producer in in_float}
        total += CONVERSION_US * len(sides)
    return total


def test_a_slow_node_between_fast_ones_is_an_island_only_when_it_pays_for_its_conversions() -> None:
    """Leaving it in float costs a conversion on each side: five microseconds lost are kept, seven are not."""
    assert () == islands(*_times([10, 10, 10], [1, 15, 1]), _chain(*"abc"))
    assert (("b",),) == islands(*_times([10, 10, 10], [1, 17, 1]), _chain(*"abc"))


def test_neighbours_that_lose_little_each_share_the_conversions() -> None:
    """Alone none of them would pay."""
    assert (("b", "c", "d"),) == islands(*_times([10] * 5, [1, 13, 13, 13, 1]), _chain(*"abcde"))


def test_all_in_float_when_int8_gains_nothing() -> None:
    """The way in and the way out cost conversions as well."""
    assert (("a", "b"),) == islands(*_times([10, 10], [8, 8]), _chain(*"ab"))
    assert () == islands(*_times([10, 10], [6, 6]), _chain(*"ab"))


def test_separate_islands_are_separate_groups_in_order() -> None:
    """So that each can be measured for itself."""
    links = _chain(*"abcde")
    assert (("b",), ("d",)) == islands(*_times([50] * 5, [1, 90, 1, 90, 1]), links)


def test_what_cannot_be_quantized_is_no_part_of_an_island_but_joins_its_neighbours() -> None:
    """A float-only node in the middle makes its neighbours' int8 dearer; it is not named itself."""
    assert (("a", "c"),) == islands(*_times([10, 10, 10], [8, None, 8]), _chain(*"abc"))


def test_an_activation_that_float_fuses_counts_against_int8() -> None:
    """Float runs a and its activation b in one kernel; int8 runs b apart, in float, with two conversions."""
    before = {"a": _time("a", 10, integer=False), "c": _time("c", 100, integer=False)}
    after = {
        "a": _time("a", 8, integer=True),
        "b": _time("b", 4, integer=False),
        "c": _time("c", 1, integer=True),
    }
    assert (("a",),) == islands(before, after, _chain(*"abc"))


def test_a_node_fused_on_both_sides_stays_with_what_it_is_fused_into() -> None:
    """A ReLU has no time of its own: where its convolution stays in float, so does the ReLU."""
    before = {"a": _time("a", 9, integer=False), "c": _time("c", 9, integer=False)}
    after = {"a": _time("a", 90, integer=True), "c": _time("c", 1, integer=True)}
    assert (("a", "b"),) == islands(before, after, _chain(*"abc"))


@st.composite
def _problems(draw: st.DrawFn) -> tuple[dict[str, NodeTime], dict[str, NodeTime], tuple[Link, ...]]:
    """Draw graphs of up to six nodes in which each reads some earlier ones, with times from 0 to 20 microseconds."""
    size = draw(st.integers(1, 6))
    costs = st.integers(0, 20)
    in_float = draw(st.lists(costs, min_size=size, max_size=size))
    in_int8 = draw(st.lists(st.none() | costs, min_size=size, max_size=size))
    names: list[str | None] = [None, *"abcdef"[:size]]
    readers: dict[str | None, list[str | None]] = {name: [] for name in names}
    for place, name in enumerate(names[1:], start=1):
        for source in draw(st.sets(st.integers(0, place - 1), min_size=1, max_size=2)):
            readers[names[source]].append(name)
    links = [
        Link(producer=name, consumers=tuple(consumers or [None]), elements=10) for name, consumers in readers.items()
    ]
    return *_times(in_float, in_int8), tuple(links)


@given(_problems())
def test_no_other_assignment_is_cheaper(
    problem: tuple[dict[str, NodeTime], dict[str, NodeTime], tuple[Link, ...]],
) -> None:
    """Oracle: all assignments of up to six nodes; among equals the one with the fewest nodes in float."""
    before, after, links = problem
    if sum(time.integer for time in after.values()) < 1:
        assert () == islands(before, after, links)
        return
    free = [name for name in before if after[name].integer]
    fixed: set[str | None] = {None, *(name for name in before if name not in free)}
    chosen = {name for island in islands(before, after, links) for name in island}
    costs = {
        frozenset(some): _cost(fixed | set(some), before, after, links)
        for count in range(len(free) + 1)
        for some in itertools.combinations(free, count)
    }
    best = min(costs.values())
    assert best == pytest.approx(costs[frozenset(chosen)], abs=0.01)
    assert min(len(some) for some, cost in costs.items() if cost == best) == len(chosen)

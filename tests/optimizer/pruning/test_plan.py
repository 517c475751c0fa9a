"""How wide a pruned layer is, which channels go, and which ratio is taken."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.pruning.plan import ChannelGroup, PruningPlan, least_pruned, removal_steps
from edgeopt_contract.errors import UsageError


def group(layer: str, importance: list[float], parts: int = 1) -> ChannelGroup:
    """Return a group with an importance for each position in a part."""
    return ChannelGroup(layer, parts * len(importance), parts, tuple(importance))


@st.composite
def groups(draw: st.DrawFn) -> list[ChannelGroup]:
    """Draw one to four groups of any width."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 4])), min_size=1, max_size=4))
    numbers = st.floats(0, 10)
    return [
        group(str(at), draw(st.lists(numbers, min_size=size, max_size=size)), parts)
        for at, (size, parts) in enumerate(sizes)
    ]


class TestSteps:
    """Which channels go, in which order."""

    def test_the_least_important_go_first_and_ties_by_place(self) -> None:
        """Worked by hand: blocks of two of eight channels, until two are left."""
        steps = removal_steps([group("conv", [5.0, 1.0, 4.0, 1.0, 9.0, 1.0, 0.5, 7.0])], 2, 40)
        assert [{"conv": (1, 6)}, {"conv": (1, 3, 5, 6)}, {"conv": (0, 1, 2, 3, 5, 6)}] == steps

    def test_the_group_that_loses_the_least_share_comes_first(self) -> None:
        """Half of the first group matters nothing, so it goes before any of the second."""
        steps = removal_steps([group("even", [1.0] * 4), group("idle", [0.0, 0.0, 30.0, 30.0])], 2, 40)
        assert [{"idle": (0, 1)}, {"even": (0, 1), "idle": (0, 1)}] == steps

    def test_an_odd_width_first_becomes_a_multiple(self) -> None:
        """20 channels: 16, then 8."""
        steps = removal_steps([group("conv", [float(at) for at in range(20)])], 8, 40)
        assert [4, 12] == [len(step["conv"]) for step in steps]

    def test_few_steps_are_spread_evenly_and_end_with_the_last(self) -> None:
        """Seven steps thinned out to three."""
        whole = removal_steps([group("conv", [1.0] * 64)], 8, 40)
        assert [8, 16, 24, 32, 40, 48, 56] == [len(step["conv"]) for step in whole]
        assert [16, 40, 56] == [len(step["conv"]) for step in removal_steps([group("conv", [1.0] * 64)], 8, 3)]

    @given(groups=groups(), round_to=st.sampled_from([1, 4, 8, 16]))
    def test_widths_are_multiples_and_never_grow(self, groups: list[ChannelGroup], round_to: int) -> None:
        """For every step and group: whole blocks, one at least, and each part loses the same positions."""
        steps = removal_steps(groups, round_to, 1000)
        for one in groups:
            size, block = one.width // one.parts, math.lcm(round_to, one.parts)
            gone = [set(step.get(one.layer, ())) for step in steps]
            assert all(before <= after for before, after in pairwise(gone))
            for channels in gone:
                kept = one.width - len(channels)
                assert kept == one.width or (0 == kept % block and kept >= block)
                positions = {frozenset(at % size for at in channels if at // size == part) for part in range(one.parts)}
                assert 1 == len(positions)


class TestLeastPruned:
    """The search by bisection."""

    @given(length=st.integers(0, 40), first=st.integers(0, 60))
    def test_it_finds_the_first_that_is_fast_enough(self, length: int, first: int) -> None:
        """And asks about few: a logarithm and one more."""
        asked: list[int] = []

        def fast_enough(candidate: int) -> bool:
            asked.append(candidate)
            return candidate >= first

        expected = first if first < length else None
        assert expected == least_pruned(range(length), fast_enough)
        assert len(asked) <= 1 + math.ceil(math.log2(length)) if length > 1 else len(asked) <= 1

    def test_a_goal_out_of_reach_costs_one_question(self) -> None:
        """The most pruned is asked first."""
        asked: list[int] = []
        assert None is least_pruned(range(19), lambda candidate: bool(asked.append(candidate)))
        assert [18] == asked


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("speedup", 1.0),
        ("round_to", 0),
        ("epochs", -1),
        ("batch", 1),
        ("rate", 0.0),
        ("temperature", 0.0),
        ("threads", 0),
    ],
)
def test_a_plan_that_means_nothing_cannot_be_made(setting: str, value: float) -> None:
    """The message names the setting and what was expected."""
    with pytest.raises(UsageError, match=f"{setting} is {value}: expected "):
        PruningPlan(**{setting: value})  # type: ignore[arg-type]  # one setting at a time

"""How wide a pruned layer is, which channels go, and which ratio is taken."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.pruning.plan import RATIOS, ChannelGroup, PruningPlan, kept_width, least_important, least_pruned
from edgeopt_contract.errors import UsageError


class TestWidth:
    """What CPU kernels like: whole blocks of channels."""

    @pytest.mark.parametrize(
        ("width", "ratio", "step", "expected"),
        [
            (64, 0.3, 8, 48),  # 44.8 lies nearer to 48 than to 40
            (64, 0.95, 8, 8),  # one block stays
            (64, 0.05, 8, 64),  # 60.8 lies nearer to 64
            (32, 0.5, 16, 16),
            (8, 0.9, 8, 8),  # a width of one block stays
            (20, 0.1, 8, 16),  # an odd width becomes a multiple
            (6, 0.5, 8, 6),
            (10, 0.5, 1, 5),
        ],
    )
    def test_widths_are_the_nearest_multiples(self, width: int, ratio: float, step: int, expected: int) -> None:
        """Worked by hand."""
        assert expected == kept_width(width, ratio, step)

    @given(width=st.integers(1, 2048), ratio=st.sampled_from(RATIOS), step=st.sampled_from([1, 4, 8, 16, 24]))
    def test_a_changed_width_is_a_multiple_and_none_grows_or_vanishes(
        self, width: int, ratio: float, step: int
    ) -> None:
        """For every width."""
        kept = kept_width(width, ratio, step)
        assert 1 <= kept <= width
        assert kept == width or 0 == kept % step

    @given(width=st.integers(1, 512), step=st.sampled_from([1, 8, 16]))
    def test_a_greater_ratio_never_keeps_more(self, width: int, step: int) -> None:
        """The bisection relies on it."""
        widths = [kept_width(width, ratio, step) for ratio in RATIOS]
        assert sorted(widths, reverse=True) == widths


class TestLeastImportant:
    """The channels that go."""

    def test_the_smallest_go_and_ties_by_place(self) -> None:
        """Four of eight."""
        group = ChannelGroup("conv", 8, 1, (5.0, 1.0, 4.0, 1.0, 9.0, 1.0, 0.5, 7.0))
        assert (1, 3, 5, 6) == least_important(group, 0.5, 4)

    @given(
        parts=st.sampled_from([1, 2, 4]),
        size=st.integers(1, 32),
        ratio=st.sampled_from(RATIOS),
        round_to=st.sampled_from([1, 8]),
    )
    def test_parts_lose_the_same_positions(self, parts: int, size: int, ratio: float, round_to: int) -> None:
        """A grouped convolution stays one, with a width that fits both blocks and parts."""
        group = ChannelGroup("conv", parts * size, parts, tuple(float(-at % 7) for at in range(size)))
        gone = least_important(group, ratio, round_to)
        by_part = [{at - part * size for at in gone if at // size == part} for part in range(parts)]
        assert 1 == len({frozenset(positions) for positions in by_part})
        assert not gone or 0 == (parts * size - len(gone)) % math.lcm(parts, round_to)


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

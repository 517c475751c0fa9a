"""How much is asked for at once, how long the device waits, and how fast it goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.delivery.flow import LARGEST_WINDOW, Budget, Flow, Passage
from edgeopt_contract.blocks import MAX_BLOCK_BYTES

KIB = 1024


def simulate(bytes_per_second: float, round_trip: float, disk_seconds: float, blocks: int = 40) -> Flow:
    """Let blocks of 64 KiB come over a link, as many at once as the flow says; returns what it has learnt."""
    flow = Flow(longest_patience_seconds=10)
    now = free_at = 0.0
    under_way: list[Passage] = []
    for _ in range(blocks):
        while len(under_way) < flow.window:
            answered = max(now + round_trip, free_at)
            free_at = answered + 64 * KIB / bytes_per_second
            under_way.append(
                Passage(asked_at=now, answered_at=answered, arrived_at=free_at, kept_at=free_at + disk_seconds)
            )
        passage = under_way.pop(0)
        now = passage.kept_at
        flow = flow.after(passage, 64 * KIB)
    return flow


@pytest.mark.parametrize(
    ("what", "kilobits", "round_trip", "disk", "window"),
    [
        ("loopback with a disk", 8_000_000, 0.0005, 0.004, 1),
        ("loopback with a disk that is fast, too", 8_000_000, 0.001, 0.0002, 1),
        ("a local network", 100_000, 0.001, 0.004, 1),
        ("a home line", 10_000, 0.050, 0.004, 3),
        ("3G", 384, 0.400, 0.010, 2),
        ("a satellite", 10_000, 0.600, 0.010, LARGEST_WINDOW),
        ("an old modem", 16, 0.400, 0.010, 1),
    ],
)
def test_window_fits_the_way(what: str, kilobits: float, round_trip: float, disk: float, window: int) -> None:
    """One block where the way is short or slow, up to sixteen where a question takes many block times."""
    assert window == simulate(kilobits * 125, round_trip, disk).window, what


@given(rate=st.floats(1e3, 1e9), round_trip=st.floats(0, 5), disk=st.floats(0, 1), blocks=st.integers(1, 40))
def test_window_and_patience_stay_within_their_limits(rate: float, round_trip: float, disk: float, blocks: int) -> None:
    """Whatever the link does: one to sixteen blocks, and never more patience than was configured."""
    flow = simulate(rate, round_trip, disk, blocks)
    assert 1 <= flow.window <= LARGEST_WINDOW
    assert 1.0 <= flow.patience_seconds(flow.window) <= 10.0


def test_patience_grows_with_what_the_link_delivers() -> None:
    """Before the first block nothing is known; a fast link is asked soon, a slow one is waited for."""
    assert 10.0 == Flow(longest_patience_seconds=10).patience_seconds(1)
    assert 1.0 == simulate(1e8, 0.001, 0.001).patience_seconds(1)
    assert 10.0 == simulate(2_000, 0.4, 0.001).patience_seconds(1)


def test_small_blocks_teach_nothing_of_the_speed() -> None:
    """The golden inputs of a tiny model must not open the window for the large file behind them."""
    flow = Flow(longest_patience_seconds=10)
    flow = flow.after(Passage(asked_at=0, answered_at=0.4, arrived_at=0.41, kept_at=0.42), 900)
    assert 1 == flow.window


@given(st.lists(st.tuples(st.integers(1, MAX_BLOCK_BYTES), st.floats(0, 100)), max_size=40), st.floats(100, 1e6))
def test_budget_is_never_overdrawn(takes: list[tuple[int, float]], rate: float) -> None:
    """Up to any moment no more has gone than the rate allows, and one largest block."""
    budget, now, gone = Budget(rate), 0.0, 0
    for size, pause in takes:
        now += pause
        now += budget.take(size, now)
        gone += size
        assert gone <= rate * now + MAX_BLOCK_BYTES + 1


def test_no_budget_is_no_limit() -> None:
    """Without a cap nothing waits."""
    assert 0.0 == Budget(None).take(1 << 30, 0.0)

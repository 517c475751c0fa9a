"""When a challenger waits, and which requests it sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.shadow.room import is_sampled, why_wait

_MIB = 1 << 20


@pytest.mark.parametrize(
    ("strain", "runs", "said"),
    [
        ({}, True, ""),
        ({"throttled": 0.0, "temperature_celsius": 60.0, "memory_bytes": 500.0 * _MIB}, False, ""),
        ({"throttled": 1.0}, True, "the CPU is held back"),
        ({"temperature_celsius": 79.9}, True, ""),
        ({"temperature_celsius": 80.0}, True, "the machine is hot: 80 °C"),
        ({"temperature_celsius": 78.0}, False, "the machine is hot: 78 °C"),
        ({"memory_bytes": 33.0 * _MIB}, True, ""),
        ({"memory_bytes": 31.0 * _MIB}, True, "only 31 MiB of memory are left"),
        ({"memory_bytes": 131.0 * _MIB}, False, "only 131 MiB of memory are left"),
        ({"memory_bytes": 132.0 * _MIB}, False, ""),
    ],
)
def test_what_keeps_it_waiting(strain: dict[str, float], runs: bool, said: str) -> None:  # noqa: FBT001  # parametrized
    """What runs is paused later than what is paused begins again: it does not go back and forth."""
    assert said == why_wait(strain, runs=runs, needs_bytes=100 * _MIB)


@given(share=st.floats(0.001, 1.0), requests=st.integers(1, 3000))
def test_the_share_is_kept_at_every_moment(share: float, requests: int) -> None:
    """After any number of requests the share of them was taken, but for less than one."""
    taken = sum(is_sampled(number, share) for number in range(1, requests + 1))
    assert abs(taken - requests * share) < 1.001

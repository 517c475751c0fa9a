"""Pauses before trying again."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from edgeopt_agent.mqtt.backoff import full_jitter, reconnect_delay, restart_delay


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_full_jitter_stays_within_its_limits(attempt: int, seed: int) -> None:
    """However many attempts, the pause is between zero and the cap."""
    assert 0 <= full_jitter(attempt, base_seconds=0.5, cap_seconds=20, random=Random(seed)) <= 20


def test_full_jitter_grows() -> None:
    """The limit doubles with each attempt until the cap."""
    longest = [
        max(full_jitter(attempt, base_seconds=1, cap_seconds=8, random=Random(seed)) for seed in range(500))
        for attempt in range(6)
    ]
    assert [1, 2, 4, 8, 8, 8] == [round(value) for value in longest]


@given(st.integers(0, 2**32))
def test_first_reconnect_is_drawn_from_the_window(seed: int) -> None:
    """After a stable connection the window of the enrolment decides, and nothing else."""
    assert 0 <= reconnect_delay(0, window_seconds=75, random=Random(seed)) <= 75


def test_a_fleet_of_devices_spreads_over_the_window() -> None:
    """Five thousand devices fill a window of sixty seconds evenly: no second gets more than three times its share."""
    delays = [reconnect_delay(0, window_seconds=60, random=Random(seed)) for seed in range(5000)]
    per_second = [sum(int(delay) == second for delay in delays) for second in range(60)]
    assert 3 * 5000 / 60 > max(per_second)


def test_reconnects_of_a_small_fleet_are_capped_at_ten_seconds() -> None:
    """With a window of a second, even the hundredth failure waits ten seconds at most."""
    assert all(reconnect_delay(100, window_seconds=1, random=Random(seed)) <= 10 for seed in range(200))


def test_restarts_of_a_runner_slow_down() -> None:
    """No pause before the first start, then growing ones up to half a minute."""
    delays = [restart_delay(crashes) for crashes in range(20)]
    assert 0 == delays[0]
    assert sorted(delays) == delays
    assert 30 == delays[-1]

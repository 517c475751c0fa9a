"""The ratio of two times: right on known times, cautious on noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.timing import Plan, Times, estimate, measure


class _Clock:
    """A clock that moves only when a fake model runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def model(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += seconds

        return run


def test_runs_alternate_as_a_b_b_a_after_the_warm_up() -> None:
    """Whatever drifts, drifts for both; the warm-up is not measured."""
    clock = _Clock()
    runs = [(clock.model("a", 3.0), clock.model("b", 2.0))]
    times = measure(runs, clock, Plan(seconds=0, warm_up=1, least_rounds=2))
    assert list("ab" + "abba" * 2) == clock.calls
    assert Times((3.0, 3.0), (2.0, 2.0)) == times


def test_measuring_ends_with_the_time_or_the_rounds() -> None:
    """At least the least, at most the most rounds."""
    clock = _Clock()
    runs = [(clock.model("a", 1.0), clock.model("b", 1.0))]
    assert 10 == len(measure(runs, clock, Plan(seconds=1, warm_up=0, least_rounds=10)).baseline)
    assert 25 == len(measure(runs, clock, Plan(seconds=100, warm_up=0, least_rounds=10)).baseline)
    assert 12 == len(measure(runs, clock, Plan(seconds=1e9, warm_up=0, least_rounds=10, most_rounds=12)).baseline)


def test_samples_take_turns() -> None:
    """Each pair of runs stands for one sample; all of them are used."""
    clock = _Clock()
    runs = [(clock.model(name, 1.0), clock.model(name.upper(), 1.0)) for name in "xyz"]
    measure(runs, clock, Plan(seconds=0, warm_up=0, least_rounds=6))
    assert {"x": 4, "y": 4, "z": 4} == {name: clock.calls.count(name) for name in "xyz"}


def test_a_constant_ratio_is_found_exactly() -> None:
    """Without noise the interval is a point."""
    speed = estimate(Times((0.003,) * 60, (0.002,) * 60))
    assert (1.5, 1.5, 1.5) == pytest.approx((speed.ratio_low, speed.ratio, speed.ratio_high))
    assert (3.0, 2.0, 60) == (pytest.approx(speed.baseline_ms), pytest.approx(speed.variant_ms), speed.rounds)


def test_a_disturbance_of_both_cancels() -> None:
    """A machine that is five times slower for a while changes no ratio."""
    slow = [5.0 if 20 <= number < 45 else 1.0 for number in range(90)]
    speed = estimate(Times(tuple(0.003 * s for s in slow), tuple(0.002 * s for s in slow)))
    assert (1.5, 1.5) == pytest.approx((speed.ratio_low, speed.ratio_high))


def test_two_equal_models_are_seldom_called_different() -> None:
    """A/A: of 400 noisy comparisons at most about 2.5 % put the lower bound above one."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        a, b = random.gamma(20, 1e-4, (2, 120))
        alarms += estimate(Times(tuple(a), tuple(b))).ratio_low > 1
    assert alarms / 400 <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)


@given(st.lists(st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)), min_size=30, max_size=90))
def test_the_interval_holds_the_estimate_and_repeats(pairs: list[tuple[float, float]]) -> None:
    """Deterministic, and low <= ratio <= high for any times."""
    times = Times(*map(tuple, zip(*pairs, strict=True)))
    speed = estimate(times)
    assert speed.ratio_low <= speed.ratio <= speed.ratio_high
    assert speed == estimate(times)


def test_a_clock_that_stood_still_does_not_divide_by_zero() -> None:
    """Times of zero give a ratio of one."""
    assert 1.0 == estimate(Times((0.0,) * 30, (0.0,) * 30)).ratio


@pytest.mark.parametrize(("rounds", "blocks"), [(5, 30), (29, 30), (5, 5)])
def test_too_few_rounds_are_refused(rounds: int, blocks: int) -> None:
    """An interval from a handful of rounds would say nothing."""
    with pytest.raises(ValueError, match="expected at least"):
        estimate(Times((1.0,) * rounds, (1.0,) * rounds), blocks=blocks)

"""The ratio of two times: right on known times, cautious on noise, blind to what favours neither model."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.timing import SCREENING, Plan, Run, Times, estimate, loader, measure

Seconds = Callable[["_Bench", str], float]


class _Bench:
    """A clock that moves only when a fake model runs, and what ran on it."""

    def __init__(self, seconds: Seconds, samples: int = 1) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.loads: list[int] = []
        self._seconds = seconds
        self._samples = samples

    def clock(self) -> float:
        """Give the time."""
        return self.now

    def load(self, repetition: int) -> list[tuple[Run, Run]]:
        """Give the runs of models ``a`` and ``b`` on each sample."""
        self.loads.append(repetition)
        return [(self._run(f"a{number}"), self._run(f"b{number}")) for number in range(self._samples)]

    def measure(self, plan: Plan) -> Times:
        """Measure on this bench."""
        return measure(self.load, self.clock, plan)

    def _run(self, name: str) -> Run:
        def run() -> None:
            self.now += self._seconds(self, name)
            self.calls.append(name)

        return run


def _constant(bench: _Bench, name: str) -> float:
    return 3.0 if name.startswith("a") else 2.0


def _repeated(baseline: float, variant: float, repetitions: int = 15) -> Times:
    return Times(((baseline,) * 4,) * repetitions, ((variant,) * 4,) * repetitions)


def test_each_repetition_loads_both_models_afresh() -> None:
    """Where a model lies in memory must not decide: the warm-up follows each load and is not measured."""
    bench = _Bench(_constant)
    times = bench.measure(Plan(seconds=0, repetitions=6, warm_up=2, least_rounds=1))
    assert list(range(6)) == bench.loads
    assert ["a0", "b0"] * 2 == bench.calls[:4]
    assert Times(((3.0,),) * 6, ((2.0,),) * 6) == times


def test_both_models_run_and_begin_equally_often() -> None:
    """In a round each model runs four times and follows itself as often as the other; rounds begin in turns."""
    bench = _Bench(_constant)
    bench.measure(Plan(seconds=0, repetitions=6, warm_up=0, least_rounds=2))
    rounds = ["".join(name[0] for name in bench.calls[start : start + 8]) for start in range(0, len(bench.calls), 8)]
    assert {"abbabaab", "baababba"} == set(rounds)
    assert 6 == rounds.count("abbabaab")


def test_samples_take_turns() -> None:
    """All of them are used."""
    bench = _Bench(_constant, samples=3)
    bench.measure(Plan(seconds=0, repetitions=6, warm_up=0, least_rounds=6))
    assert {48} == {bench.calls.count(f"a{number}") for number in range(3)}


def test_measuring_ends_with_the_time_or_the_least_rounds() -> None:
    """A fast model is measured until its share of the time is used, a slow one often enough."""
    fast = _Bench(lambda bench, name: 2**-9).measure(Plan(seconds=6, repetitions=6, warm_up=0, least_rounds=4))
    slow = _Bench(lambda bench, name: 9.0).measure(Plan(seconds=6, repetitions=6, warm_up=0, least_rounds=4))
    assert {64} == {len(rounds) for rounds in fast.baseline}
    assert {4} == {len(rounds) for rounds in slow.baseline}


@pytest.mark.parametrize(
    ("what", "seconds"),
    [
        ("the machine slows down steadily", lambda bench, name: 1.0 + 0.001 * len(bench.calls)),
        ("a run after one of the same model is faster", lambda bench, name: 0.9 if bench.calls[-1:] == [name] else 1.0),
        ("the first run of a round is slower", lambda bench, name: 1.1 if len(bench.calls) % 8 == 0 else 1.0),
    ],
)
def test_what_favours_neither_model_changes_no_ratio(what: str, seconds: Seconds) -> None:
    """Equal models stay equal, whatever the machine does to both."""
    times = _Bench(seconds).measure(Plan(seconds=0, repetitions=16, warm_up=0, least_rounds=8))
    assert 1.0 == pytest.approx(estimate(times).ratio, abs=0.005), what


def test_a_place_that_costs_time_changes_no_ratio() -> None:
    """Whoever is warmed up first in a repetition is slower in all of it: equal models stay equal, and unequal ones too.

    For as long as a process lives it may be the same place, so the models change places, and the interval says so.
    """

    class Bench(_Bench):
        def load(self, repetition: int) -> list[tuple[Run, Run]]:
            self.fresh = len(self.calls)
            return super().load(repetition)

    def slow(bench: _Bench, name: str) -> float:
        assert isinstance(bench, Bench)
        first = bench.calls[bench.fresh] if len(bench.calls) > bench.fresh else name
        return (2.0 if name == "a0" else ratio) * (1.01 if name == first else 1.0)

    for ratio in (2.0, 1.0):
        for repetitions in (6, 16):
            bench = Bench(slow)
            speed = estimate(bench.measure(Plan(seconds=0, repetitions=repetitions, warm_up=1, least_rounds=2)))
            assert speed.ratio_low < 2.0 / ratio < speed.ratio_high
            assert 2.0 / ratio == pytest.approx(speed.ratio, rel=1e-3)


def test_the_models_change_places_as_often_as_not() -> None:
    """And neither place goes with an order of loading: all four come as often."""
    bench = _Bench(_constant)
    bench.measure(Plan(seconds=0, repetitions=16, warm_up=1, least_rounds=1))
    first = [bench.calls[start][0] for start in range(0, len(bench.calls), 10)]
    loaded = "baababba" * 4
    assert {4} == {list(zip(first, loaded[::2], strict=True)).count(pair) for pair in itertools.product("ab", "ab")}


def test_a_constant_ratio_is_found_exactly() -> None:
    """Without noise the interval is a point."""
    speed = estimate(_repeated(0.003, 0.002))
    assert (1.5, 1.5, 1.5) == pytest.approx((speed.ratio_low, speed.ratio, speed.ratio_high))
    assert (3.0, 2.0, 60) == (pytest.approx(speed.baseline_ms), pytest.approx(speed.variant_ms), speed.rounds)


def test_luck_of_a_repetition_widens_the_interval() -> None:
    """A model that lay well in memory half of the time is not called faster for it."""
    lucky = tuple(1.1 if number % 2 else 0.9 for number in range(15))
    speed = estimate(Times(tuple((0.002 * luck,) * 100 for luck in lucky), ((0.002,) * 100,) * 15))
    assert speed.ratio_low < 1 < speed.ratio_high


def test_two_equal_models_are_seldom_called_different() -> None:
    """A/A: of 400 noisy comparisons at most about 2.5 % put the lower bound above one."""
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        luck = random.normal(1, 0.01, (2, 15, 1))
        a, b = random.gamma(20, 1e-4, (2, 15, 8)) * luck
        alarms += estimate(Times(tuple(map(tuple, a)), tuple(map(tuple, b)))).ratio_low > 1
    assert alarms / 400 <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)


@given(st.lists(st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)), min_size=6, max_size=30))
def test_the_interval_holds_the_estimate_and_repeats(pairs: list[tuple[float, float]]) -> None:
    """Deterministic, and low <= ratio <= high for any times."""
    times = Times(tuple((a,) for a, _ in pairs), tuple((b,) for _, b in pairs))
    speed = estimate(times)
    assert speed.ratio_low <= speed.ratio <= speed.ratio_high
    assert speed == estimate(times)


def test_a_clock_that_stood_still_does_not_divide_by_zero() -> None:
    """Times of zero give a ratio of one."""
    assert 1.0 == estimate(_repeated(0.0, 0.0)).ratio


@pytest.mark.parametrize("times", [_repeated(1.0, 1.0, 5), Times(((),) * 6, ((),) * 6)])
def test_too_few_repetitions_are_refused(times: Times) -> None:
    """An interval from a handful would say nothing."""
    with pytest.raises(ValueError, match="expected at least 6 repetitions"):
        estimate(times)


def test_screening_has_enough_repetitions_for_an_interval() -> None:
    """It is short, and still says how sure it is."""
    assert 1 < estimate(_Bench(_constant).measure(SCREENING)).ratio_low


class _Model:
    def __init__(self, name: str) -> None:
        self._name = name

    def call_on(self, feeds: dict[str, np.ndarray]) -> Run:
        """Say who runs on what."""
        return lambda: (self._name, feeds)


def test_models_are_loaded_in_an_order_that_has_no_short_period() -> None:
    """Freed memory is taken again in turns of two: an order that only alternated would keep each model's place."""
    order: list[str] = []

    def opener(name: str) -> Callable[[], _Model]:
        def open_model() -> _Model:
            order.append(name)
            return _Model(name)

        return open_model

    feeds = [{"x": np.zeros(1)}, {"x": np.ones(1)}]
    load = loader([opener("a"), opener("b")], feeds)
    for repetition in range(4):
        runs = load(repetition)
        assert [[("a", one), ("b", one)] for one in feeds] == [[run() for run in pair] for pair in runs]
    assert "baababba" == "".join(order)

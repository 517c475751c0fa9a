"""What ships of all that was tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.results import SpeedResult, TrialResult
from edgeopt.search.choice import Demand, front, ranked
from tests.optimizer.search.conftest import made_up_trial, speed_of

Trial = Callable[..., TrialResult]
DEMAND = Demand(baseline=0.9, size_bytes=1000, max_drop=0.02)
INT8 = Recipe(precision=Precision.INT8)
WEIGHTS = Recipe(precision=Precision.INT8_WEIGHTS)


def test_the_fastest_of_those_that_keep_accuracy_comes_first(trial: Trial) -> None:
    """A faster one that lost too much is no choice, however fast."""
    quick, slower, wrong = trial(ratio=2.0), trial(ratio=1.5), trial(ratio=3.0, score=0.88)
    assert [quick, slower] == ranked([slower, wrong, quick], DEMAND)


def test_of_about_equally_fast_ones_the_nearest_to_fp32_wins(trial: Trial) -> None:
    """Within 3 % the stopwatch knows no better, the outputs do."""
    first, near, slow = trial(ratio=2.0, error=0.09), trial(ratio=1.96, error=0.02), trial(ratio=1.9, error=0.01)
    assert [near, first, slow] == ranked([first, near, slow], DEMAND)


@given(st.lists(st.floats(-0.04, 0.04), min_size=3, max_size=3))
def test_noise_of_the_stopwatch_does_not_change_the_choice(noise: list[float]) -> None:
    """Three that are equally fast, measured a little off in each run: the nearest to fp32, every time."""
    trials = [
        made_up_trial(ratio=1.5 * (1 + off), error=error) for off, error in zip(noise, (0.05, 0.04, 0.03), strict=True)
    ]
    wide = [dataclasses.replace(trial, speed=speed_of(trial.speed.ratio, 0.09)) for trial in trials if trial.speed]
    assert 0.03 == ranked(wide, DEMAND)[0].error


def test_what_is_surely_slower_is_not_alike(trial: Trial) -> None:
    """Seven hundredths with narrow intervals are a difference; with wide ones they may be none."""
    best, near = trial(ratio=1.5, error=0.09), trial(ratio=1.4, error=0.01)
    assert [best, near] == ranked([near, best], DEMAND)
    wide = dataclasses.replace(trial(error=0.01), speed=speed_of(1.3, 0.25))
    assert [best, wide] == ranked([wide, best], DEMAND)


@pytest.mark.parametrize(
    ("ratio", "size", "ships"),
    [(1.0, 700, True), (0.99, 250, True), (0.9, 250, False), (1.0, 800, False), (1.2, 1000, True)],
)
def test_smaller_ones_ship_only_if_not_slower(ratio: float, size: int, ships: bool, trial: Trial) -> None:  # noqa: FBT001
    """A quarter smaller at the same speed is worth it; slower than fp32 never is."""
    assert ships is bool(ranked([trial(WEIGHTS, ratio=ratio, size_bytes=size)], DEMAND))


def test_a_busy_machine_does_not_hide_what_is_smaller(trial: Trial) -> None:
    """A wide interval that reaches one is no proof of slowness; one below it is, however near."""
    noisy = dataclasses.replace(trial(WEIGHTS), speed=speed_of(0.98, 0.16))
    slow = dataclasses.replace(trial(WEIGHTS), speed=speed_of(0.98, 0.01))
    assert [noisy] == ranked([noisy, slow], DEMAND)


def test_speed_goes_before_size(trial: Trial) -> None:
    """A smaller one at fp32's speed waits behind every faster one."""
    small, quick = trial(WEIGHTS, ratio=1.0, size_bytes=100), trial(ratio=1.1, size_bytes=990)
    assert [quick, small] == ranked([small, quick], DEMAND)


def test_fp32_is_a_choice_only_by_another_runtime_planar_or_pruned(trial: Trial) -> None:
    """fp32 by ONNX Runtime is what everything is held against."""
    plain = trial(Recipe(precision=Precision.FP32), ratio=1.5, size_bytes=1000)
    other = trial(Recipe(precision=Precision.FP32, runtime=RuntimeName.OPENVINO), ratio=1.5, size_bytes=1000)
    pruned = trial(Recipe(precision=Precision.FP32, pruned=True), ratio=1.3, size_bytes=500)
    planar = trial(Recipe(precision=Precision.FP32, planar=True), ratio=1.2, size_bytes=1000)
    assert [other, pruned, planar] == ranked([plain, planar, pruned, other], DEMAND)


def test_without_times_static_int8_with_the_fewest_nodes_in_float_comes_first(trial: Trial) -> None:
    """What cannot be timed is ordered by what usually is faster, then by the error."""
    floating = trial(Recipe(precision=Precision.INT8, float_nodes=("a",)), error=0.01)
    coarse, fine, weights = trial(error=0.06), trial(error=0.05), trial(WEIGHTS, error=0.001)
    assert [fine, coarse, floating, weights] == ranked([weights, floating, coarse, fine], DEMAND)


def test_agreement_is_part_of_the_demand(trial: Trial) -> None:
    """Half of what --min-agreement allows may be used up."""
    demand = Demand(baseline=0.9, size_bytes=1000, max_drop=0.02, min_agreement=0.96)
    assert not demand.keeps(trial(agreement=0.975))
    assert demand.keeps(trial(agreement=0.985))
    assert not demand.keeps(trial(score=None))


@given(st.lists(st.tuples(st.sampled_from([1.0, 1.2, 1.5]), st.sampled_from([0.01, 0.02, 0.05]))))
def test_nothing_on_the_front_is_beaten_and_everything_else_is(points: list[tuple[float, float]]) -> None:
    """The definition of a Pareto front, point by point."""
    trials = [
        TrialResult(
            rung="",
            title="",
            recipe=INT8,
            error=error,
            speed=SpeedResult(baseline_ms=1, variant_ms=1, ratio=ratio, ratio_low=1, ratio_high=2, ratios=(), rounds=1),
        )
        for ratio, error in points
    ]
    best = front(trials)
    for index, (ratio, error) in enumerate(points):
        beaten = any(r >= ratio and e <= error and (r, e) != (ratio, error) for r, e in points)
        assert beaten is (index not in best)

"""What each rung gave, on top of those before it."""

from __future__ import annotations

from dataclasses import replace

from edgeopt.recipe import RuntimeName
from edgeopt.rungs import rung_gains
from tests.optimizer.runs import speed, target

FP32, FIRST, _, FAILED = target().trials


def test_gains_are_on_the_best_of_all_rungs_before() -> None:
    """Not on the rung before only; a loss is negative; fp32 is no rung."""
    better = replace(FIRST, rung="bias", agreement=0.99, speed=speed(1.25))
    worse = replace(FIRST, rung="rounding", agreement=0.95, speed=speed(2.0))
    first, second, third = rung_gains((FP32, FIRST, better, worse))
    assert (None, None) == (first.agreement_gain, first.ratio_gain)
    assert (0.005, -0.25) == (round(second.agreement_gain or 0, 6), second.ratio_gain)
    assert (-0.04, 0.5) == (round(third.agreement_gain or 0, 6), third.ratio_gain)


def test_a_rung_stands_for_its_best() -> None:
    """The nearest and the fastest may be two recipes."""
    quick = replace(FIRST, title="quick", agreement=0.9, speed=speed(3.0))
    (gain,) = rung_gains((FIRST, quick))
    assert (2, 0.985, 3.0, FIRST.title) == (gain.tried, gain.agreement, gain.ratio, gain.best)


def test_what_was_not_measured_is_not_made_up() -> None:
    """Why it failed stands in place of the recipe."""
    (gain,) = rung_gains((FAILED,))
    assert (1, None, None, None, None) == (
        gain.tried, gain.agreement, gain.agreement_gain, gain.ratio, gain.ratio_gain
    )  # fmt: skip
    assert "it took too long" == gain.best
    assert () == rung_gains((FP32,))


def test_another_layout_is_a_rung_and_another_runtime_is_none() -> None:
    """Planar convolutions in float are work of edgeopt; fp32 by OpenVINO is what anybody has."""
    planar = replace(FP32, recipe=replace(FP32.recipe, planar=True), rung="planar convolutions", speed=speed(2.5))
    other = replace(FP32, recipe=replace(FP32.recipe, planar=True, runtime=RuntimeName.OPENVINO), rung="by openvino")
    gain, _ = rung_gains((planar, other, FIRST))
    assert ("planar convolutions", 2.5) == (gain.rung, gain.ratio)

"""The pictures of the report: each number where it belongs, and every picture well-formed."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from edgeopt.reporting.plots import Timed, bar, drop_chart, mark, pareto_plot, timing_plot
from edgeopt.results import TrialResult
from edgeopt.wording import Wording
from tests.optimizer.runs import metric, speed, target

SHARE = Wording(is_share=True)
BASE = target().trials[1]
FINITE = st.floats(1e-6, 1e6)


def _trial(ratio: float, error: float, *, front: bool = False, chosen: bool = False) -> TrialResult:
    return replace(BASE, speed=speed(ratio), error=error, on_front=front, chosen=chosen)


def _parse(picture: Markup | None) -> ET.Element:
    assert picture is not None
    return ET.fromstring(str(picture))


def _pareto(*trials: TrialResult) -> ET.Element:
    plot = pareto_plot(trials, 4000)
    assert plot is not None
    return _parse(plot.picture)


def _places(picture: ET.Element) -> list[tuple[float, float]]:
    """Where the marks are."""
    moved = [one.get("transform", "") for one in picture.iter("g") if one.get("transform")]
    pairs = [one.removeprefix("translate(").removesuffix(")").split() for one in moved]
    return [(float(x), float(y)) for x, y in pairs]


def test_faster_is_further_right_and_nearer_to_fp32_is_higher() -> None:
    """Against fp32, which stands at one and without error."""
    picture = _pareto(_trial(2.0, 0.1), _trial(0.5, 0.01))
    (quick, slow) = _places(picture)
    (fp32,) = (one for one in picture.iter("circle") if one.get("class") == "fp32")
    x, y = float(fp32.get("cx", "")), float(fp32.get("cy", ""))
    assert slow[0] < x < quick[0]
    assert y < slow[1] < quick[1]


def test_the_front_begins_at_fp32_and_leaves_out_what_fp32_beats() -> None:
    """What is slower than fp32 and less exact is on no front, whatever the trials among themselves say."""
    picture = _pareto(
        _trial(1.5, 0.1, front=True), _trial(0.9, 0.01, front=True), _trial(2.0, 0.2, front=True), _trial(1.2, 0.3)
    )
    (line,) = picture.iter("polyline")
    places = {f"{x},{y}" for x, y in _places(picture)}
    first, *others = line.get("points", "").split()
    assert (2, 2) == (len(others), len(set(others) & places))
    (fp32,) = (one for one in picture.iter("circle") if one.get("class") == "fp32")
    assert f"{fp32.get('cx')},{fp32.get('cy')}" == first


def test_the_chosen_one_is_ringed_named_and_on_top() -> None:
    """Drawn last, so that no other covers it."""
    picture = _pareto(_trial(1.5, 0.1, chosen=True), _trial(1.2, 0.3))
    *_, last = (one for one in picture if one.get("class") == "point")
    assert {"chosen"} == {one.get("class") for one in last.iter("circle")}
    assert ["chosen"] == [one.text for one in last.iter("text")]
    assert 1 == sum(one.get("class") == "chosen" for one in picture.iter("circle"))


def test_rungs_are_told_apart() -> None:
    """By shape and shade together, for as many rungs as any search has."""
    assert 42 == len({str(mark(rung)) for rung in range(42)})


def test_without_times_the_size_stands_in() -> None:
    """Four times as small is right of half as small; without either there is no picture."""
    small = replace(BASE, speed=None, size_bytes=1000)
    plot = pareto_plot([small, replace(small, size_bytes=8000)], 4000)
    assert plot is not None
    assert plot.by_size
    assert "1.0 kB, 4.00 times as small" in str(plot.picture)
    places = dict(zip(("left", "right"), sorted(_places(_parse(plot.picture))), strict=True))
    assert places["left"][0] < places["right"][0]
    assert pareto_plot([replace(small, size_bytes=None)], 4000) is None
    assert pareto_plot([replace(small, problem="it crashed", error=None)], 4000) is None
    assert pareto_plot([], 4000) is None


def test_a_dot_for_each_repetition_and_a_hollow_one_beyond_the_scale() -> None:
    """A hiccup of the machine is shown, and does not press the others together."""
    ratios = (0.2, *(1.5 + place / 100 for place in range(14)))
    picture = _parse(timing_plot([Timed("int8", replace(speed(1.5), ratios=ratios, ratio_low=1.5, ratio_high=1.6))]))
    dots = [one for one in picture.iter("circle") if (one.get("class") or "").startswith("dot")]
    assert 15 == len(dots)
    beyond = [one.findtext("title") for one in dots if "beyond" in (one.get("class") or "")]
    assert ["0.200: beyond the scale"] == beyond
    assert timing_plot([]) is None


@pytest.mark.parametrize(("ratio", "kind"), [(1.5, "good"), (0.5, "bad"), (1.0, "wait")])
def test_the_interval_has_the_colour_of_what_it_says(ratio: float, kind: str) -> None:
    """Faster, slower, or neither."""
    picture = _parse(timing_plot([Timed("int8", speed(ratio))]))
    assert [f"span {kind}"] == [one.get("class") for one in picture.iter("line") if "span" in (one.get("class") or "")]


def test_long_names_are_cut_and_kept_to_hover_over() -> None:
    """They would run into the figures."""
    name = "int8, " * 40
    picture = _parse(timing_plot([Timed(name, speed(1.5))]))
    texts = [one.text or "" for one in picture.iter("text")]
    assert 64 == max(map(len, texts))
    assert name in [one.text for one in picture.iter("title")]


@pytest.mark.parametrize(("drop", "kind"), [(0.001, "good"), (0.009, "wait"), (0.02, "bad")])
def test_the_drop_is_drawn_where_it_lies(drop: float, kind: str) -> None:
    """The interval's ends stand in order, inside the picture, in the colour of its verdict."""
    picture = _parse(drop_chart(metric(drop), 0.01, SHARE))
    (line,) = (item for item in picture.iter("line") if item.get("class") == f"interval {kind}")
    (dot,) = picture.iter("circle")
    assert 0 < float(line.get("x1", "")) < float(dot.get("cx", "")) < float(line.get("x2", "")) < 600


def test_a_picture_of_nothing_is_still_one() -> None:
    """No drop, no margin, no error, no interval: nothing is divided by zero."""
    nothing = replace(metric(0.0), drop_lower=0.0, drop_upper=0.0)
    still = replace(speed(1.0), ratio_low=1.0, ratio_high=1.0, ratios=())
    for picture in (drop_chart(nothing, 0.0, SHARE), timing_plot([Timed("x", still)]), bar(0.0), mark(0)):
        assert "svg" == _parse(picture).tag
    assert 1 == len(_places(_pareto(replace(BASE, speed=still, error=0.0))))


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8))
def test_any_figures_make_a_picture_with_everything_inside(figures: list[tuple[float, float]]) -> None:
    """However far apart speeds and errors are."""
    trials = [_trial(ratio, error, front=True) for ratio, error in figures]
    for x, y in _places(_pareto(*trials)):
        assert 0 <= x <= 600
        assert 0 <= y <= 330
    _parse(timing_plot([Timed("x", one.speed) for one in trials if one.speed is not None]))

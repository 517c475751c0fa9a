"""What the ladder tries next, told made-up results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from edgeopt.recipe import Calibrator, Precision, Recipe, RuntimeName
from edgeopt.results import TrialResult
from edgeopt.search.choice import Demand
from edgeopt.search.ladder import Course, climb
from edgeopt.search.requests import Answer, Kind, Request

Trial = Callable[..., TrialResult]
DEMAND = Demand(baseline=0.9, size_bytes=1000, max_drop=0.02)
INT8 = Recipe(precision=Precision.INT8)
COURSE = Course(demand=DEMAND, first=(INT8,), timed=True, calibrators=(Calibrator.MINMAX, Calibrator.MSE))


def climbed(course: Course, judge: Callable[[Recipe], TrialResult], answers: dict[Kind, Answer]) -> list[Request]:
    """Climb, with ``judge`` as the laboratory; return everything that was asked."""
    ladder = climb(course)
    asked: list[Request] = []
    request = next(ladder, None)
    while request is not None:
        asked.append(request)
        trial = request.kind is Kind.TRY
        answer = Answer(trial=judge(request.recipe)) if trial else answers.get(request.kind, Answer())
        try:
            request = ladder.send(answer)
        except StopIteration:
            break
    return asked


def rungs(asked: list[Request]) -> list[str]:
    """Return the rungs in the order in which they were first asked for."""
    return list(dict.fromkeys(request.rung for request in asked))


def test_a_friendly_model_needs_no_recovery(trial: Trial) -> None:
    """Fast and accurate at once: nothing else is tried."""
    asked = climbed(COURSE, lambda recipe: trial(recipe, ratio=2.0), {})
    assert ["first recipes"] == rungs(asked)


def test_an_inaccurate_model_climbs_until_it_keeps_accuracy(trial: Trial) -> None:
    """Each rung that brings the outputs nearer stays; layers go to float until it is enough, and no further."""

    def judge(recipe: Recipe) -> TrialResult:
        error = 0.4 - 0.05 * recipe.equalized - 0.1 * recipe.bias_corrected + 0.1 * recipe.rounding_learned
        return trial(recipe, ratio=2.0, error=error, score=0.9 if len(recipe.float_nodes) >= 2 else 0.5)

    sets = (("a",), ("a", "b"), ("a", "b", "c"))
    asked = climbed(COURSE, judge, {Kind.RANK: Answer(node_sets=sets)})
    assert [
        "first recipes",
        "calibrator",
        "equalization",
        "bias correction",
        "learned rounding",
        "weights only",
        "layers in float",
    ] == rungs(asked)[:7]
    last = asked[-1].recipe
    assert ("a", "b") == last.float_nodes
    assert (True, True, False) == (last.equalized, last.bias_corrected, last.rounding_learned)


def test_a_thorough_search_climbs_on(trial: Trial) -> None:
    """With a budget, every rung is tried although the first was good enough."""
    course = dataclasses.replace(COURSE, thorough=True, runtimes=(RuntimeName.ONNXRUNTIME, RuntimeName.OPENVINO))
    answers = {Kind.RANK: Answer(node_sets=(("a",),)), Kind.ISLANDS: Answer(node_sets=(("b",), ("c",)))}
    asked = climbed(course, lambda recipe: trial(recipe, ratio=2.0), answers)
    expected = ["equalization", "bias correction", "learned rounding", "by openvino", "islands", "layers in float"]
    assert expected == rungs(asked)[2:]
    assert len(asked) == len({(request.kind, request.recipe) for request in asked})
    assert any(("b", "c") == request.recipe.float_nodes for request in asked)


def test_layers_go_to_float_where_the_model_is_quickest(trial: Trial) -> None:
    """A second runtime that is surely faster gets the layers in float; what is best there ONNX Runtime gets as well."""
    both = (RuntimeName.ONNXRUNTIME, RuntimeName.OPENVINO)
    course = dataclasses.replace(COURSE, runtimes=both)

    def judge(recipe: Recipe) -> TrialResult:
        enough = "a" in recipe.float_nodes
        quick = recipe.runtime is RuntimeName.OPENVINO
        return trial(recipe, ratio=2.0 if quick else 1.5, score=0.9 if enough else 0.5)

    asked = climbed(course, judge, {Kind.RANK: Answer(node_sets=(("a",), ("a", "b")))})
    floating = [request.recipe.runtime for request in asked if request.recipe.float_nodes]
    assert [RuntimeName.OPENVINO, RuntimeName.ONNXRUNTIME] == floating


def test_islands_and_weights_only_are_for_models_that_int8_makes_slower(trial: Trial) -> None:
    """Accurate but slow: no recovery of accuracy, but what is slow goes to float, and then the size alone counts."""
    asked = climbed(COURSE, lambda recipe: trial(recipe, ratio=0.5), {Kind.ISLANDS: Answer(node_sets=(("b",),))})
    assert ["first recipes", "weights only", "islands"] == rungs(asked)


def test_only_the_weights_that_saturate_are_reduced(trial: Trial) -> None:
    """Where 16-bit sums may overflow, the ladder asks which do, beginning from the full range."""
    course = dataclasses.replace(COURSE, reducible=("w1", "w2"), thorough=True)
    judge = lambda recipe: trial(recipe, ratio=2.0)  # noqa: E731  (a name would only repeat it)
    asked = climbed(course, judge, {Kind.SATURATION: Answer(weights=("w2",))})
    assert any(("w2",) == request.recipe.reduced_weights for request in asked)
    asked = climbed(course, judge, {Kind.SATURATION: Answer(problem="no emulator")})
    assert all(not request.recipe.reduced_weights for request in asked)


def test_what_fails_is_passed_by(trial: Trial) -> None:
    """A recipe with a problem is a result, and nothing is built on it."""
    broken = trial(INT8, problem="cannot", score=None, agreement=None, error=None)
    asked = climbed(COURSE, lambda recipe: broken if recipe == INT8 else trial(recipe, ratio=1.0), {})
    assert ["first recipes", "weights only"] == rungs(asked)


def test_the_pruned_network_gets_the_best_recipes(trial: Trial) -> None:
    """fp32 and int8 of the pruned network come after those of the original."""
    course = dataclasses.replace(COURSE, pruned=True)
    asked = climbed(course, lambda recipe: trial(recipe, ratio=2.0), {})
    pruned = [request.recipe.precision for request in asked if request.recipe.pruned]
    assert Precision.FP32 == pruned[0]
    assert Precision.INT8 in pruned


def test_pruning_alone_quantizes_nothing(trial: Trial) -> None:
    """--no-quantize leaves fp32, pruned or not."""
    course = dataclasses.replace(COURSE, pruned=True, quantizes=False)
    asked = climbed(course, lambda recipe: trial(recipe, ratio=2.0), {})
    assert [Recipe(precision=Precision.FP32, pruned=True)] == [request.recipe for request in asked]


PLANAR = tuple(Recipe(precision=kind, planar=True) for kind in (Precision.FP32, Precision.INT8))


def test_all_builds_on_planar_convolutions_where_those_are_faster(trial: Trial) -> None:
    """They are asked for first; LiteRT, which starts from the module, has none, and others get fp32 in both forms."""
    course = dataclasses.replace(COURSE, planar=PLANAR, thorough=True, pruned=True, runtimes=tuple(RuntimeName))
    asked = climbed(course, lambda recipe: trial(recipe, ratio=2.0), {})
    assert PLANAR == tuple(request.recipe for request in asked[:2])
    assert {RuntimeName.LITERT: False, RuntimeName.ONNXRUNTIME: True} == {
        request.recipe.runtime: request.recipe.planar
        for request in asked
        if request.recipe.runtime is not RuntimeName.OPENVINO
    }
    openvino = [one.recipe for one in asked if one.recipe.runtime is RuntimeName.OPENVINO]
    assert {True, False} == {one.planar for one in openvino if one.precision is Precision.FP32}
    assert {True} == {one.planar for one in openvino if one.precision is not Precision.FP32}


@pytest.mark.parametrize(("timed", "ratio", "asked_for_it"), [(True, 1.0, 1), (True, None, 1), (False, 2.0, 0)])
def test_planar_convolutions_are_left_where_they_gain_nothing(
    trial: Trial, ratio: float | None, asked_for_it: int, *, timed: bool
) -> None:
    """As fast as the others, failed, or on a CPU whose times cannot be had: then nothing else is planar."""
    course = dataclasses.replace(COURSE, planar=PLANAR, thorough=True, timed=timed)

    def judge(recipe: Recipe) -> TrialResult:
        if not recipe.planar:
            return trial(recipe, ratio=1.5)
        return trial(recipe, ratio=ratio) if ratio else trial(recipe, problem="cannot", score=None, agreement=None)

    asked = climbed(course, judge, {})
    assert asked_for_it == sum(request.recipe.planar for request in asked)
    assert INT8 in [request.recipe for request in asked]


def test_a_network_without_such_convolutions_is_never_asked_for_them(trial: Trial) -> None:
    """Most networks have none."""
    asked = climbed(dataclasses.replace(COURSE, thorough=True), lambda recipe: trial(recipe, ratio=2.0), {})
    assert not any(request.recipe.planar for request in asked)

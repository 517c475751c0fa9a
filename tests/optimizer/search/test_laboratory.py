"""The laboratory answers every kind of question about a real network, and what cannot be had is an answer too."""

from __future__ import annotations

import dataclasses

import pytest
from edgeopt_zoo import digits, pictures

from edgeopt.graph import prepare
from edgeopt.models import TorchModel
from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.results import SpeedResult, TrialResult
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Sample
from edgeopt.scoring import load_metric
from edgeopt.search.laboratory import Bench, Laboratory
from edgeopt.search.requests import Kind, Request
from edgeopt.search.workshop import Float, Workshop

INT8 = Recipe(precision=Precision.INT8)
SPEED = SpeedResult(baseline_ms=2.0, variant_ms=1.0, ratio=2.0, ratio_low=1.9, ratio_high=2.1, ratios=(2.0,), rounds=1)


@pytest.fixture(scope="module")
def network() -> tuple[bytes, list[Sample], list[Sample]]:
    """A trained CNN, prepared; calibration and selection samples with labels."""
    samples = [Sample({"input": picture}, int(label)) for picture, label in zip(*pictures(), strict=True)]
    return prepare(TorchModel(digits()).to_onnx(samples[0])).model, samples[:60], samples[60:260]


@pytest.fixture(scope="module")
def laboratory(network: tuple[bytes, list[Sample], list[Sample]]) -> Laboratory:
    """A bench whose stopwatch always says 2.0, and whose target computes exactly."""
    model, calibration, selection = network
    bench = Bench(
        selection=selection,
        calibration=calibration,
        baseline=open_session(model, RuntimeName.ONNXRUNTIME, threads=1).predict(selection),
        metric=load_metric("accuracy"),
        threads=1,
        simulated=True,
        timer=lambda _model, _recipe: SPEED,
        on_target=lambda variant, recipe, samples: open_session(
            variant, recipe.runtime, threads=1, simulated=True
        ).predict(samples),
    )
    return Laboratory(Workshop({False: Float(model)}, calibration, seed=0, threads=1), bench)


def _tried(laboratory: Laboratory, recipe: Recipe) -> TrialResult:
    trial = laboratory.answer(Request(kind=Kind.TRY, rung="test", recipe=recipe)).trial
    assert trial is not None
    return trial


def test_a_trial_says_everything_about_a_variant(laboratory: Laboratory) -> None:
    """Agreement, score, error, size and speed; fp32 itself has no error and agrees in full."""
    plain = _tried(laboratory, Recipe(precision=Precision.FP32))
    assert (1.0, SPEED) == (plain.agreement, plain.speed)
    assert plain.error == pytest.approx(0, abs=1e-6)
    int8 = _tried(laboratory, INT8)
    assert 0.95 <= (int8.agreement or 0) <= 1.0
    assert 1e-4 < (int8.error or 0) < 0.1
    assert (int8.size_bytes or 0) < (plain.size_bytes or 0)
    assert ("test", INT8.title, None) == (int8.rung, int8.title, int8.problem)


def test_what_cannot_be_had_is_an_answer(
    laboratory: Laboratory, network: tuple[bytes, list[Sample], list[Sample]]
) -> None:
    """A network that is not there; and int8 with everything in float, which would be fp32 by another name."""
    assert "there is none" in str(_tried(laboratory, dataclasses.replace(INT8, pruned=True)).problem)
    ranking = laboratory.answer(Request(kind=Kind.RANK, rung="test", recipe=INT8)).ranking
    everything = dataclasses.replace(INT8, float_nodes=tuple(sorted(layer.node for layer in ranking)))
    assert "nothing is left in int8" in str(_tried(laboratory, everything).problem)
    asked = laboratory.answer(Request(kind=Kind.RANK, rung="test", recipe=dataclasses.replace(INT8, pruned=True)))
    assert "there is none" in str(asked.problem)


def test_ranking_orders_the_layers_and_nests_the_sets(laboratory: Laboratory) -> None:
    """The worst layer first; each set of nodes contains the one before; leaving them in float brings int8 nearer."""
    answer = laboratory.answer(Request(kind=Kind.RANK, rung="test", recipe=INT8))
    errors = [layer.error for layer in answer.ranking]
    assert sorted(errors, reverse=True) == errors
    assert all(set(small) <= set(large) for small, large in zip(answer.node_sets, answer.node_sets[1:], strict=False))
    nearer = _tried(laboratory, dataclasses.replace(INT8, float_nodes=answer.node_sets[-1]))
    assert (nearer.error or 1) < (_tried(laboratory, INT8).error or 0)


def test_islands_are_groups_of_the_graphs_own_nodes(laboratory: Laboratory) -> None:
    """Whatever the stopwatch says of this network, what comes out can be left in float."""
    answer = laboratory.answer(Request(kind=Kind.ISLANDS, rung="test", recipe=INT8))
    assert answer.problem is None
    nodes = tuple(sorted(node for nodes in answer.node_sets for node in nodes))
    problem = _tried(laboratory, dataclasses.replace(INT8, float_nodes=nodes)).problem
    assert problem in (None, "with these nodes in float, nothing is left in int8")


def test_a_target_that_computes_exactly_needs_no_reduced_weight(laboratory: Laboratory) -> None:
    """Where integers do not saturate, selective reduction reduces nothing."""
    assert () == laboratory.answer(Request(kind=Kind.SATURATION, rung="test", recipe=INT8)).weights

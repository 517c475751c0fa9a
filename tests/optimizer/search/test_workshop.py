"""Recipes become variants: the same bytes in any order, or a reason."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from edgeopt_zoo import digits, pictures

from edgeopt.graph import op_types, prepare
from edgeopt.models import TorchModel
from edgeopt.preprocess import fold
from edgeopt.preprocess_steps import Preprocessing, Scale
from edgeopt.recipe import Calibrator, Precision, Recipe, RuntimeName
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Sample
from edgeopt.search.workshop import Float, Workshop
from edgeopt_contract.errors import ModelError
from tests.optimizer.quantization.rung_models import he, network

INT8 = Recipe(precision=Precision.INT8)
RECIPES = (
    Recipe(precision=Precision.FP32),
    INT8,
    Recipe(precision=Precision.INT8, calibrator=Calibrator.MSE),
    Recipe(precision=Precision.INT8, equalized=True),
    Recipe(precision=Precision.INT8, bias_corrected=True),
    Recipe(precision=Precision.INT8, equalized=True, rounding_learned=True),
    Recipe(precision=Precision.INT8, signed_activations=True),
    Recipe(precision=Precision.INT8_WEIGHTS),
    Recipe(precision=Precision.INT8_DYNAMIC),
    Recipe(precision=Precision.FP16),
)
SOUND = network(
    "a = Conv<pads = [1, 1]>(x, w, b) r = Relu(a) c = Conv(r, v, b) s = Relu(c) m = ReduceMean<axes = [2]>(s) "
    "f = Flatten(m) y = Gemm(f, classes, zeros)",
    {
        "w": he(16, 8, 3),
        "b": np.linspace(-0.1, 0.1, 16),
        "v": he(16, 16, 1),
        "classes": he(16, 5).reshape(16, 5),
        "zeros": np.zeros(5),
    },
    "float[n,8,24] x",
)
SOUNDS = [Sample({"x": row}, None) for row in np.random.default_rng(2).normal(size=(40, 8, 24)).astype(np.float32)]


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Forty digits."""
    return [Sample({"input": picture}, None) for picture in pictures()[0][:40]]


@pytest.fixture(scope="module")
def original(samples: Sequence[Sample]) -> Float:
    """A trained CNN, prepared."""
    model = TorchModel(digits())
    return Float(prepare(model.to_onnx(samples[0])).model, model.module)


def _workshop(original: Float, samples: Sequence[Sample]) -> Workshop:
    return Workshop({False: original}, samples, seed=0, threads=1)


def test_every_recipe_makes_a_variant_that_still_answers(original: Float, samples: Sequence[Sample]) -> None:
    """All of them run, differ from each other, and agree with fp32 on these easy pictures."""
    workshop = _workshop(original, samples)
    models = [workshop.build(recipe) for recipe in RECIPES]
    assert len(models) == len(set(models))
    answers = [
        next(iter(open_session(model, RuntimeName.ONNXRUNTIME, threads=1, simulated=True).predict(samples).values()))
        for model in models
    ]
    for recipe, answer in zip(RECIPES, answers, strict=True):
        assert (answer.argmax(1) == answers[0].argmax(1)).mean() >= 0.95, recipe.title


def test_the_order_of_building_changes_nothing(original: Float, samples: Sequence[Sample]) -> None:
    """What several recipes share is made once, and is nobody's own."""
    chosen = (RECIPES[1], RECIPES[4], RECIPES[5])
    first = {recipe: _workshop(original, samples).build(recipe) for recipe in chosen}
    for order in itertools.permutations(chosen):
        workshop = _workshop(original, samples)
        assert first == {recipe: workshop.build(recipe) for recipe in order}


def test_folded_steps_stay_in_float(original: Float, samples: Sequence[Sample]) -> None:
    """No recipe has to name them."""
    folded = Float(fold(original.model, Preprocessing(inputs=(Scale(factor=1.0),))), original.module)
    graph = onnx.load_model_from_string(_workshop(folded, samples).build(INT8)).graph
    (step,) = [node for node in graph.node if node.name.startswith("preprocess/")]
    producers = {output: node.op_type for node in graph.node for output in node.output}
    assert "DequantizeLinear" not in {producers.get(name) for name in step.input}
    assert "QuantizeLinear" in op_types(_workshop(folded, samples).build(INT8))


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (dataclasses.replace(INT8, pruned=True), "there is none"),
        (dataclasses.replace(INT8, float_nodes=("no such node",)), "no such node"),
        (dataclasses.replace(RECIPES[-1], runtime=RuntimeName.LITERT), "not fp16"),
    ],
)
def test_what_cannot_be_made_has_a_reason(
    recipe: Recipe, reason: str, original: Float, samples: Sequence[Sample]
) -> None:
    """A pruned network that is not there, a node that is not there, a precision that the runtime does not get."""
    with pytest.raises(ModelError, match=reason):
        _workshop(original, samples).build(recipe)


def test_litert_needs_the_module_and_no_steps(original: Float, samples: Sequence[Sample]) -> None:
    """It is converted from PyTorch: an ONNX file has nothing to convert, and folded steps would be lost."""
    recipe = dataclasses.replace(INT8, runtime=RuntimeName.LITERT)
    with pytest.raises(ModelError, match=r"package\.module:function"):
        _workshop(Float(original.model), samples).build(recipe)
    folded = Float(fold(original.model, Preprocessing(inputs=(Scale(factor=1.0),))), original.module)
    with pytest.raises(ModelError, match="--preprocess"):
        _workshop(folded, samples).build(recipe)


def test_a_variant_is_the_int8_form_of_its_source(original: Float, samples: Sequence[Sample]) -> None:
    """An equalized variant is held against the equalized graph, which computes what the original does."""
    workshop = _workshop(original, samples)
    assert original.model == workshop.source_of(INT8)
    source = workshop.source_of(dataclasses.replace(INT8, equalized=True))
    before, after = (
        next(iter(open_session(model, RuntimeName.ONNXRUNTIME, threads=1).predict(samples).values()))
        for model in (original.model, source)
    )
    assert np.allclose(before, after, rtol=1e-4, atol=1e-4)


def test_planar_convolutions_go_through_every_recipe() -> None:
    """A network for sound in all number types: what is built on planar convolutions answers as the original does."""
    workshop = Workshop({False: Float(SOUND)}, SOUNDS, seed=0, threads=1)
    expected = open_session(SOUND, RuntimeName.ONNXRUNTIME, threads=1).predict(SOUNDS)["y"]
    for recipe in RECIPES:
        flat, model = (workshop.build(dataclasses.replace(recipe, planar=planar)) for planar in (False, True))
        answers = open_session(model, RuntimeName.ONNXRUNTIME, threads=1, simulated=True).predict(SOUNDS)["y"]
        assert np.abs(answers - expected).mean() < 0.1 * expected.std(), recipe.title
        assert flat != model


def test_planar_convolutions_are_not_for_litert() -> None:
    """It starts from the module, where nothing was rewritten: another model would be called planar."""
    recipe = Recipe(precision=Precision.FP32, runtime=RuntimeName.LITERT, planar=True)
    with pytest.raises(ModelError, match="as they are"):
        Workshop({False: Float(SOUND, object())}, SOUNDS, seed=0, threads=1).build(recipe)

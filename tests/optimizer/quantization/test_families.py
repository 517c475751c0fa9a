"""Families of networks and their recipes; and on trained networks, what they cost and save (marker ladder)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeopt.gate import Verdict
from edgeopt.graph import op_types
from edgeopt.quantization.dynamic import dynamic_weights, quantize_dynamic
from edgeopt.quantization.families import Family, family_of, family_recipes, half_precisions
from edgeopt.quantization.weights import compress_weights
from edgeopt.recipe import Precision, Recipe
from edgeopt.targets import Target, host_target, read_target
from tests.optimizer.sequence_models import NAMES, Trained, trained

DEVICES = Path(__file__).parents[3] / "devices"


def target(name: str) -> Target:
    """Return the profile of a device."""
    return read_target(DEVICES / f"{name}.toml")


@pytest.mark.parametrize(
    ("expected", "operators"),
    [
        (Family.CNN, "Conv BatchNormalization Relu GlobalAveragePool Gemm Softmax"),
        (Family.CNN, "Conv LayerNormalization Gelu MatMul"),  # ConvNeXt
        (Family.CNN, "Conv ReduceMean Sigmoid Mul Softmax Gemm Div"),  # squeeze-and-excite
        (Family.MLP, "Gemm Relu Softmax"),
        (Family.TRANSFORMER, "Gather MatMul Softmax LayerNormalization Erf"),
        (Family.TRANSFORMER, "Conv MatMul Softmax LayerNormalization"),  # ViT
        (Family.TRANSFORMER, "MatMul Softmax ReduceMean Pow Sub Sqrt Div Add"),  # before opset 17
        (Family.TRANSFORMER, "MultiHeadAttention SkipLayerNormalization"),
        (Family.RECURRENT, "LSTM Gemm"),
        (Family.RECURRENT, "Conv GRU Softmax LayerNormalization"),
        (Family.OTHER, "TreeEnsembleClassifier"),
    ],
)
def test_a_family_shows_in_the_operators(expected: Family, operators: str) -> None:
    """Softmax or layer normalization alone makes no transformer."""
    assert expected == family_of(frozenset(operators.split()))


@pytest.mark.parametrize("family", list(Family))
def test_every_family_has_a_way_to_a_smaller_file(family: Family) -> None:
    """Weights alone are always among the recipes; no recipe comes twice."""
    recipes = family_recipes(family, target("x86-vnni"))
    assert Precision.INT8_WEIGHTS in {recipe.precision for recipe in recipes}
    assert len(recipes) == len(set(recipes))


@pytest.mark.parametrize("family", [Family.TRANSFORMER, Family.RECURRENT])
def test_delicate_families_are_never_quantized_statically_as_a_whole(family: Family) -> None:
    """Static int8 names its operators: softmax, normalization and recurrence are not among them."""
    for recipe in family_recipes(family, target("x86-vnni")):
        if recipe.precision is Precision.INT8:
            assert recipe.operators
            assert {"Conv", "Gather", "Gemm", "MatMul"} >= set(recipe.operators)


@pytest.mark.parametrize(("device", "expected"), [("x86-avx2", ("w",)), ("x86-vnni", ()), ("raspberry-pi-4", ())])
def test_weights_give_up_a_bit_only_where_products_saturate(device: str, expected: tuple[str, ...]) -> None:
    """That is on x86 without VNNI, and for recipes that multiply in int8."""
    recipes = family_recipes(Family.TRANSFORMER, target(device), ("w",))
    reduced = {recipe.precision: recipe.reduced_weights for recipe in recipes}
    assert expected == reduced[Precision.INT8] == reduced[Precision.INT8_DYNAMIC]
    assert () == reduced[Precision.INT8_WEIGHTS]


@pytest.mark.parametrize("device", ["x86-avx2", "x86-vnni", "raspberry-pi-4"])
def test_dynamic_weights_that_give_up_range_do_so_in_pairs(device: str) -> None:
    """Static ones give up a whole bit, until the ladder asks which of them really saturate."""
    for recipe in family_recipes(Family.RECURRENT, target(device), ("w",)):
        assert recipe.pair_safe is (recipe.precision is Precision.INT8_DYNAMIC and bool(recipe.reduced_weights))


def test_an_lstm_alone_comes_before_an_lstm_with_the_products_behind_it() -> None:
    """With learned rounding and without; one with nothing behind it has these two, a GRU none of them."""
    learned, alone, whole, *_ = family_recipes(Family.RECURRENT, target("x86-avx2"), ("w", "r", "classes"), ("w", "r"))
    assert (("LSTM", "Gather"), ("w", "r"), False) == (alone.operators, alone.reduced_weights, alone.rounding_learned)
    assert replace(alone, rounding_learned=True) == learned
    assert ((), ("w", "r", "classes")) == (whole.operators, whole.reduced_weights)
    for recurrent in ((), ("w",)):
        recipes = family_recipes(Family.RECURRENT, target("x86-avx2"), ("w",), recurrent)
        dynamic = [one for one in recipes if one.precision is Precision.INT8_DYNAMIC]
        assert 1 + bool(recurrent) == len(dynamic)
        assert not any(one.operators for one in dynamic)


@pytest.mark.parametrize(
    ("device", "expected"), [("raspberry-pi-5", (Precision.FP16,)), ("raspberry-pi-4", ()), ("x86-vnni", ())]
)
def test_fp16_is_tried_where_the_cpu_computes_in_it(device: str, expected: tuple[Precision, ...]) -> None:
    """Elsewhere ONNX Runtime casts back and forth, and is slower than float."""
    assert expected == half_precisions(target(device))
    offered = {recipe.precision for recipe in family_recipes(Family.CNN, target(device))}
    assert set(expected) == offered & {Precision.FP16}


def sound_variants(one: Trained) -> dict[str, bytes]:
    """Return what the family's recipes without calibration make of a trained network for this machine."""
    first = Recipe(precision=Precision.INT8_DYNAMIC)
    recipes = family_recipes(family_of(op_types(one.model)), host_target(), dynamic_weights(one.model, first))
    makers = {Precision.INT8_DYNAMIC: quantize_dynamic, Precision.INT8_WEIGHTS: compress_weights}
    return {
        str(recipe.precision): makers[recipe.precision](one.model, recipe)
        for recipe in recipes
        if recipe.precision in makers
    }


@pytest.mark.ladder
@pytest.mark.parametrize("name", NAMES)
def test_trained_sequence_models_shrink_to_two_fifths_within_a_point(name: str) -> None:
    """A transformer, an LSTM and a GRU lose at most one point, at 95 % confidence, at 40 % of the size."""
    one = trained(name)
    sizes = {}
    for title, variant in sound_variants(one).items():
        judgement, size = one.judged(variant), len(variant) / len(one.model)
        print(
            f"{name:12} {title:13} {size:6.1%} of {len(one.model):,} bytes; accuracy {judgement.baseline:.2%} -> "
            f"{judgement.value:.2%} (drop at most {judgement.drop_upper:.2%} on {judgement.n:,} samples), "
            f"agreement {one.agreement(variant):.2%}: {judgement.verdict}"
        )
        if judgement.verdict is Verdict.PASS:
            sizes[title] = size
    assert sizes, f"no recipe keeps the {name} within one point"
    assert min(sizes.values()) <= 0.4

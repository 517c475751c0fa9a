"""What a recipe is called, by programs and by people."""

from __future__ import annotations

import pytest

from edgeopt.recipe import Calibrator, Precision, Recipe, RuntimeName


@pytest.mark.parametrize(
    ("expected", "recipe"),
    [
        ("fp32", Recipe(precision=Precision.FP32)),
        ("int8, minmax", Recipe(precision=Precision.INT8)),
        ("int8, minmax, 1 weight in 7 bits", Recipe(precision=Precision.INT8, reduced_weights=("w",))),
        ("int8, minmax, 1 node in float", Recipe(precision=Precision.INT8, float_nodes=("n",))),
        (
            "pruned int8, mse, signed activations, 2 weights in 7 bits, bias corrected, 3 nodes in float, by openvino",
            Recipe(
                precision=Precision.INT8,
                runtime=RuntimeName.OPENVINO,
                pruned=True,
                calibrator=Calibrator.MSE,
                signed_activations=True,
                float_nodes=("a", "b", "c"),
                reduced_weights=("v", "w"),
                bias_corrected=True,
            ),
        ),
        (
            "int8, minmax, equalized, rounding learned",
            Recipe(precision=Precision.INT8, equalized=True, rounding_learned=True),
        ),
        (
            "planar int8-dynamic, 2 weights safe in pairs",
            Recipe(precision=Precision.INT8_DYNAMIC, planar=True, reduced_weights=("v", "w"), pair_safe=True),
        ),
        ("int8-dynamic, only MatMul Gemm", Recipe(precision=Precision.INT8_DYNAMIC, operators=("MatMul", "Gemm"))),
    ],
)
def test_titles_are_for_people(expected: str, recipe: Recipe) -> None:
    """One of a thing is not many, and what is left at its default goes without saying."""
    assert expected == recipe.title


def test_variants_are_named_by_what_runs_them() -> None:
    """These are the stems of files in a bundle."""
    assert "int8" == Recipe(precision=Precision.INT8).variant
    assert "pruned-int8-openvino" == Recipe(precision=Precision.INT8, pruned=True, runtime=RuntimeName.OPENVINO).variant
    assert "planar-fp32" == Recipe(precision=Precision.FP32, planar=True).variant

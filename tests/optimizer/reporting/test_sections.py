"""What stands in the sections of the page, before it is markup."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeopt.recipe import Calibrator, Precision, Recipe, RuntimeName
from edgeopt.reporting import sections
from edgeopt.results import StageResult
from edgeopt.wording import Wording
from tests.optimizer.runs import FP32, INT8, a_run, target, variant

SHARE = Wording(is_share=True)


def _stage(name: str, error: float, score: float = 0.9) -> StageResult:
    return StageResult(stage=name, score=score, agreement=1.0, error=error, n=100)


def test_the_step_that_added_most_error_is_named_and_each_says_what_it_lost() -> None:
    """The first has lost nothing yet; a step that gains says so with a minus sign."""
    found = sections.stages(
        (_stage("torch", 0.0), _stage("int8 simulated", 0.3, 0.88), _stage("on the CPU", 0.4, 0.885)), SHARE
    )
    assert ["", "2.00 points", "\N{MINUS SIGN}0.50 points"] == [one.lost for one in found]
    assert [False, True, False] == [one.is_worst for one in found]
    assert [0.0, 0.75, 1.0] == [round(one.share, 6) for one in found]


def test_no_step_is_to_blame_when_nothing_was_lost() -> None:
    """Nor is nothing divided by zero."""
    assert not any(one.is_worst for one in sections.stages((_stage("torch", 0.0), _stage("onnx", 0.0)), SHARE))
    rounded = sections.stages((_stage("torch", 0.0), _stage("onnx", 1e-7)), SHARE)
    assert not any(one.is_worst or one.share > 0.01 for one in rounded)
    assert () == sections.stages((), SHARE)


def test_the_figures_are_of_the_chosen_variant_else_of_the_judged_one() -> None:
    """The judged one stands first in the record."""
    both = (variant(INT8, 1.5), variant(FP32, None))
    leading = [sections.leading(replace(target(), variants=both, chosen=chosen)) for chosen in ("fp32", "int8", None)]
    assert ["fp32", "int8", "int8"] == [one.name for one in leading if one is not None]
    assert sections.leading(replace(target(), variants=())) is None


def test_chosen_by_the_search_is_not_yet_chosen_for_the_target() -> None:
    """What the certification refused is said to have been chosen for it only."""
    trial = target().trials[1]
    assert ("chosen",) == sections.remarks(trial, target())
    assert ("chosen to be certified",) == sections.remarks(trial, replace(target(), chosen=None))
    assert ("on the front",) == sections.remarks(replace(trial, chosen=False), target())
    assert () == sections.remarks(target().trials[2], target())


def test_a_run_for_several_targets_says_how_many_are_served() -> None:
    """One target speaks for itself."""
    refused = replace(target("other"), chosen=None)
    assert "int8 ships" == sections.run_headline(a_run())
    assert "all 2 targets get a variant" == sections.run_headline(a_run(targets=(target(), target("b"))))
    assert "1 of 2 targets get a variant" == sections.run_headline(a_run(targets=(target(), refused)))


def test_a_recipe_says_what_is_not_the_rule() -> None:
    """A calibrator means something for int8 only."""
    recipe = Recipe(
        precision=Precision.INT8, runtime=RuntimeName.OPENVINO, calibrator=Calibrator.MSE,
        float_nodes=("a", "b"), equalized=True,
    )  # fmt: skip
    assert [
        ("precision", "int8"),
        ("runtime", "openvino"),
        ("calibrator", "mse"),
        ("float nodes", "a, b"),
        ("equalized", "yes"),
    ] == sections.recipe_rows(recipe)
    assert [("precision", "fp32"), ("runtime", "onnxruntime")] == sections.recipe_rows(FP32)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "not given"),
        (True, "yes"),
        (False, "no"),
        (0.05, "0.05"),
        ([], "none"),
        ({}, "none"),
        (["scale", "crop"], "scale, crop"),
        ({"data": "net:data", "label_column": None}, "data: net:data, label column: not given"),
        ([{"name": "a", "features": ["neon"]}, {"name": "b"}], "name: a, features: neon; name: b"),
    ],
)
def test_settings_are_words_not_dicts(value: Any, words: str) -> None:
    """Nothing of Python shows."""
    assert words == sections.plain(value)


def test_times_and_versions_for_people() -> None:
    """To the minute; what people look for first, the rest by name."""
    assert "2026-01-02 03:04 UTC" == sections.when("2026-01-02T03:04:05+00:00")
    assert "yesterday" == sections.when("yesterday")
    first, others = sections.versions({"zlib": "1", "torch": "2", "anyio": "4", "edgeopt": "0.1"})
    assert ["edgeopt", "torch"] == [name for name, _ in first]
    assert [("anyio", "4"), ("zlib", "1")] == others


def test_latency_of_fp32_comes_from_the_target_alone() -> None:
    """Beside a variant, else beside a trial, else from nowhere."""
    assert 4.0 == sections.fp32_ms(target())
    assert 4.0 == sections.fp32_ms(replace(target(), variants=()))
    assert sections.fp32_ms(replace(target(), variants=(), trials=())) is None

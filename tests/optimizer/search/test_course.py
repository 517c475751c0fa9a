"""Which runtimes a target may have: asked for, installed, and timed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.search.course import _first, _first_planar, without_effect
from edgeopt.stages import Effort
from edgeopt.targets import host_target
from tests.optimizer.quantization.rung_models import he, network

ALL = tuple(RuntimeName)


@pytest.mark.parametrize(
    ("asked", "timed", "named"),
    [(ALL, True, ""), ((), False, ""), ((RuntimeName.ONNXRUNTIME,), False, ""), (ALL, False, "openvino litert")],
)
def test_a_runtime_that_cannot_be_chosen_is_named(asked: tuple[RuntimeName, ...], named: str, *, timed: bool) -> None:
    """Where times cannot be measured no runtime is chosen, and the run says so."""
    said = without_effect(host_target(), Effort(runtimes=asked), timed=timed)
    assert said.startswith(f"--runtime {named} had no effect for {host_target().name}: ") if named else "" == said


@pytest.mark.parametrize(("nodes", "shape", "there"), [("y = Conv(x, w)", (8, 3, 3), True), ("y = Relu(x)", (), False)])
def test_planar_recipes_are_the_first_ones_again(nodes: str, shape: tuple[int, ...], *, there: bool) -> None:
    """For a network with convolutions along one dimension: fp32 before them, all planar; for another none."""
    sound = network(nodes, {"w": he(*shape)} if shape else {}, "float[n,3,24] x")
    planar = _first_planar(sound, host_target())
    if not there:
        assert () == planar
        return
    fp32, *rest = planar
    assert Recipe(precision=Precision.FP32, planar=True) == fp32
    assert list(_first(sound, host_target())) == [replace(recipe, planar=False) for recipe in rest]

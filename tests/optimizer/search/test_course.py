"""Which runtimes a target may have: asked for, installed, and timed."""

from __future__ import annotations

import pytest

from edgeopt.recipe import RuntimeName
from edgeopt.search.course import without_effect
from edgeopt.stages import Effort
from edgeopt.targets import host_target

ALL = tuple(RuntimeName)


@pytest.mark.parametrize(
    ("asked", "timed", "named"),
    [(ALL, True, ""), ((), False, ""), ((RuntimeName.ONNXRUNTIME,), False, ""), (ALL, False, "openvino litert")],
)
def test_a_runtime_that_cannot_be_chosen_is_named(asked: tuple[RuntimeName, ...], named: str, *, timed: bool) -> None:
    """Where times cannot be measured no runtime is chosen, and the run says so."""
    said = without_effect(host_target(), Effort(runtimes=asked), timed=timed)
    assert said.startswith(f"--runtime {named} had no effect for {host_target().name}: ") if named else "" == said

"""Trials made up for the pure parts of the search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edgeopt.recipe import Precision, Recipe
from edgeopt.results import SpeedResult, TrialResult

Trial = Callable[..., TrialResult]


def speed_of(ratio: float, half_width: float = 0.01) -> SpeedResult:
    """Return a speed whose interval is ``ratio`` plus and minus ``half_width``."""
    return SpeedResult(
        baseline_ms=1.0,
        variant_ms=1 / ratio,
        ratio=ratio,
        ratio_low=ratio - half_width,
        ratio_high=ratio + half_width,
        ratios=(ratio,) * 7,
        rounds=70,
    )


def made_up_trial(recipe: Recipe | None = None, *, ratio: float | None = None, **found: Any) -> TrialResult:
    """Return a trial of ``recipe`` that keeps accuracy in a quarter of fp32's 1,000 bytes, or as ``found`` says."""
    recipe = recipe or Recipe(precision=Precision.INT8)
    defaults: dict[str, Any] = {"agreement": 0.999, "score": 0.9, "error": 0.05, "size_bytes": 250}
    speed = None if ratio is None else speed_of(ratio)
    return TrialResult(rung="made up", title=recipe.title, recipe=recipe, speed=speed, **(defaults | found))


@pytest.fixture
def trial() -> Trial:
    """Return the maker of trials."""
    return made_up_trial

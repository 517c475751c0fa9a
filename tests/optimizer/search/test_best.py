"""The best so far lies on disk, whole, whenever one looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.results import TrialResult
from edgeopt.search import best as module
from edgeopt.search.best import BEST, Best, BestSoFar
from edgeopt.search.choice import Demand

Trial = Callable[..., TrialResult]
DEMAND = Demand(baseline=0.9, size_bytes=1000, max_drop=0.02)
FP32 = Recipe(precision=Precision.FP32)
INT8 = Recipe(precision=Precision.INT8)
LITERT = Recipe(precision=Precision.FP32, runtime=RuntimeName.LITERT)


def _build(recipe: Recipe) -> bytes:
    return recipe.title.encode()


def _on_disk(directory: Path) -> tuple[Best, bytes]:
    best = msgspec.json.decode((directory / BEST).read_bytes(), type=Best)
    return best, (directory / best.file).read_bytes()


def test_it_begins_with_fp32_and_follows_the_search(tmp_path: Path, trial: Trial) -> None:
    """What is worse changes nothing; the files of what was beaten go."""
    best = BestSoFar(tmp_path, DEMAND, _build)
    best.hear(None)
    assert (FP32, b"fp32") == (_on_disk(tmp_path)[0].recipe, _on_disk(tmp_path)[1])
    best.hear(trial(INT8, ratio=1.5))
    best.hear(trial(LITERT, ratio=1.2))
    assert _build(INT8) == _on_disk(tmp_path)[1]
    best.hear(trial(LITERT, ratio=3.0))
    found, model = _on_disk(tmp_path)
    assert (_build(LITERT), ".tflite") == (model, Path(found.file).suffix)
    assert {BEST, found.file} == {path.name for path in tmp_path.iterdir()}


def test_a_cut_at_any_write_leaves_a_whole_one(tmp_path: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of the two writes the power goes: what best.json names is there, the old or the new."""
    BestSoFar(tmp_path, DEMAND, _build).hear(None)
    write, left = module.write_atomically, 0

    def cut(path: Path, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        write(path, data)

    monkeypatch.setattr(module, "write_atomically", cut)
    for left in (0, 1):  # noqa: B007  (cut reads it)
        with pytest.raises(KeyboardInterrupt):
            BestSoFar(tmp_path, DEMAND, _build).hear(trial(INT8, ratio=1.5))
        assert b"fp32" == _on_disk(tmp_path)[1]


def test_a_resumed_search_builds_nothing_that_is_there(tmp_path: Path, trial: Trial) -> None:
    """Replayed trials are only looked at, and the last one finds its model on disk."""
    trials = [trial(INT8, ratio=1.5), trial(LITERT, ratio=3.0)]
    first = BestSoFar(tmp_path, DEMAND, _build)
    for one in trials:
        first.hear(one)
    again = BestSoFar(tmp_path, DEMAND, lambda recipe: pytest.fail(f"built {recipe.title}"))
    again.hear(trials[0], more=True)
    again.hear(trials[1])
    assert _build(LITERT) == _on_disk(tmp_path)[1]

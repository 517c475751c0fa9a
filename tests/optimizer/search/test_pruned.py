"""A pruned network in a search: made once, within its time, and kept for what it was made for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgeopt.pipeline import read_original, settle
from edgeopt.pruning.plan import PruningPlan
from edgeopt.pruning.search import NotFaster
from edgeopt.search import pruned as module
from edgeopt.search.deadline import OutOfTime
from edgeopt.search.pruned import Limit, kept_for, with_pruned, would_overrun
from edgeopt.sources import DataSources, SplitData
from edgeopt.stages import Original, Pruning, Request, Setting

Ready = tuple[Setting, Original, SplitData]
FOREVER = Limit(float("inf"), lambda _words: None)


@pytest.fixture(scope="module")
def ready() -> Ready:
    """The linear classifier of the zoo, to be pruned."""
    request = Request(
        model="edgeopt_zoo:tiny",
        data=DataSources(single="edgeopt_zoo:table"),
        output=Path("unused"),
        max_drop=0.02,
        name="net",
        pruning=Pruning(plan=PruningPlan()),
    )
    return read_original(settle(request), lambda _words: None)


def _with(ready: Ready, kept: Path, limit: Limit = FOREVER) -> tuple[Original, tuple[str, ...]]:
    setting, original, splits = ready
    return with_pruned(original, splits, setting, kept, limit)


def test_what_is_kept_belongs_to_one_plan(ready: Ready, tmp_path: Path) -> None:
    """Another speed, other epochs or other data to train with: another network."""
    setting, original, _ = ready
    places = {kept_for(tmp_path, original, setting)}
    for pruning in (
        Pruning(plan=PruningPlan(speedup=2.0)),
        Pruning(plan=PruningPlan(epochs=1)),
        Pruning(plan=PruningPlan(), train_data="a:b"),
    ):
        other = dataclasses.replace(setting, request=dataclasses.replace(setting.request, pruning=pruning))
        places.add(kept_for(tmp_path, original, other))
    assert 4 == len(places)
    assert kept_for(tmp_path, original, setting) in places


def test_a_network_that_does_not_get_faster_is_not_pruned_again(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is a note, and is remembered for a search that resumes."""
    monkeypatch.setattr(module, "prune", lambda *_, **__: NotFaster("it is too small", (), ()))
    original, notes = _with(ready, tmp_path / "pruned")
    assert (None, ("not pruned: it is too small",)) == (original.pruned, notes)
    monkeypatch.setattr(module, "prune", lambda *_, **__: pytest.fail("pruned again"))
    assert notes == _with(ready, tmp_path / "pruned")[1]


def test_training_that_would_take_too_long_is_given_up(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own progress, long before the time is over; a longer budget may try again."""

    def prune(*_: Any, on_progress: Any, **__: Any) -> None:
        for done in range(1, 100):
            on_progress("training the pruned model", done, 10**12)
        pytest.fail("went on")

    monkeypatch.setattr(module, "prune", prune)
    original, notes = _with(ready, tmp_path / "pruned", Limit(100.0, lambda _words: None))
    assert original.pruned is None
    assert "not pruned: it would have taken longer than the 100 s that it may take of the budget" in notes[0]
    assert [] == list(tmp_path.iterdir())


def test_the_length_of_training_is_guessed_from_its_beginning() -> None:
    """Twenty steps say enough; the time from the first on is that of nineteen."""
    assert not would_overrun(1000.0, 19, 10**9, 10.0)
    assert not would_overrun(19.0, 20, 100, 100.5)
    assert would_overrun(19.0, 20, 100, 99.5)
    assert issubclass(OutOfTime, BaseException)
    assert not issubclass(OutOfTime, Exception)

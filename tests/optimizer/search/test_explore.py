"""A search remembers, resumes and ends in time."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeopt.recipe import Calibrator, Precision, Recipe
from edgeopt.results import TrialResult
from edgeopt.search.budget import Budget
from edgeopt.search.choice import Demand
from edgeopt.search.explore import explore
from edgeopt.search.journal import Entry, Journal
from edgeopt.search.ladder import Course, climb
from edgeopt.search.requests import NO_TIME, Answer, Request
from edgeopt_contract.errors import StorageError

Trial = Callable[..., TrialResult]
COURSE = Course(
    demand=Demand(baseline=0.9, size_bytes=1000, max_drop=0.02),
    first=tuple(
        Recipe(precision=Precision.INT8, calibrator=calibrator)
        for calibrator in (Calibrator.MINMAX, Calibrator.MSE, Calibrator.ENTROPY)
    ),
    timed=True,
)


class Killed(Exception):  # noqa: N818  (it is no error: it is the end)
    """Stands for kill -9."""


@dataclass
class Clock:
    """Time that passes only when work is done."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@dataclass
class Laboratory:
    """Answers after ten seconds each, and dies at the request with number ``dies_at``."""

    clock: Clock
    make: Trial
    dies_at: int = -1
    asked: int = 0

    def answer(self, request: Request) -> Answer:
        """Return a made-up trial."""
        if self.asked == self.dies_at:
            raise Killed
        self.asked += 1
        self.clock.now += 10
        return Answer(trial=self.make(request.recipe, ratio=1 + 0.1 * self.asked))


def _search(path: Path, trial: Trial, dies_at: int = -1, seconds: float | None = None) -> tuple[list[Entry], int]:
    clock = Clock()
    laboratory = Laboratory(clock, trial, dies_at)
    journal = Journal.open(path, "this search")
    found = explore(climb(COURSE), laboratory.answer, journal, Budget(clock, seconds), _deaf)
    return found, laboratory.asked


def _deaf(_entry: Entry, *, replayed: bool) -> None:
    """Hear nothing."""


def _answered(found: list[Entry]) -> int:
    return sum(entry.answer != NO_TIME for entry in found)


def test_a_killed_search_resumes_without_doing_anything_twice(tmp_path: Path, trial: Trial) -> None:
    """Killed at each point in turn, it asks only for what is missing."""
    whole, count = _search(tmp_path / "whole.jsonl", trial)
    assert 3 == count
    for point in range(count):
        path = tmp_path / f"killed-{point}.jsonl"
        with pytest.raises(Killed):
            _search(path, trial, dies_at=point)
        found, asked = _search(path, trial)
        assert count - point == asked
        assert [entry.request for entry in whole] == [entry.request for entry in found]
        assert found == list(Journal.open(path, "this search").recorded)


def test_a_torn_line_is_dropped(tmp_path: Path, trial: Trial) -> None:
    """Cut at any byte, the journal gives the whole lines before the cut."""
    path = tmp_path / "journal.jsonl"
    _search(path, trial)
    data = path.read_bytes()
    ends = [index for index, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(ends[0] + 1, len(data), 37):
        path.write_bytes(data[:cut])
        lines = sum(end < cut for end in ends) - 1
        assert lines == len(Journal.open(path, "this search").recorded)
        found, asked = _search(path, trial)
        assert (3, 3 - lines) == (len(found), asked)


def test_the_journal_of_another_search_is_begun_anew(tmp_path: Path, trial: Trial) -> None:
    """Other data or another limit: nothing of the old results may be believed."""
    path = tmp_path / "journal.jsonl"
    _search(path, trial)
    assert 3 == len(Journal.open(path, "this search").recorded)
    assert () == Journal.open(path, "another search").recorded


def test_a_journal_written_on_another_way_is_cut_where_the_ways_part(tmp_path: Path, trial: Trial) -> None:
    """Requests that no longer match are asked again, and the journal holds what this search found."""
    path = tmp_path / "journal.jsonl"
    found, _ = _search(path, trial)
    odd = Entry(
        request=Request(kind=found[1].request.kind, rung="old", recipe=found[1].request.recipe),
        answer=Answer(),
        spent=5,
    )
    Journal.open(path, "this search").keep([found[0], odd, odd])
    again, asked = _search(path, trial)
    assert (3, 2) == (len(again), asked)
    assert again == list(Journal.open(path, "this search").recorded)


@pytest.mark.parametrize(("seconds", "expected"), [(5.0, 1), (20.0, 1), (25.0, 2), (None, 3)])
def test_nothing_is_begun_that_would_not_end_in_time(
    seconds: float | None, expected: int, tmp_path: Path, trial: Trial
) -> None:
    """Once a request of a kind was timed, another is begun only if as long a one fits into what is left."""
    found, asked = _search(tmp_path / "journal.jsonl", trial, seconds=seconds)
    assert (expected, expected) == (_answered(found), asked)


def test_an_earlier_run_counts_against_the_budget(tmp_path: Path, trial: Trial) -> None:
    """Killing and resuming buys no time."""
    path = tmp_path / "journal.jsonl"
    with pytest.raises(Killed):
        _search(path, trial, dies_at=2)
    found, asked = _search(path, trial, seconds=25.0)
    assert (2, 0) == (_answered(found), asked)


def test_a_journal_that_cannot_be_written_is_the_worlds_fault(tmp_path: Path) -> None:
    """A directory that is a file: a StorageError that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        Journal.open(tmp_path / "file" / "journal.jsonl", "this search")


def test_a_step_that_would_never_end_is_interrupted(tmp_path: Path, trial: Trial) -> None:
    """A guess may be wrong: the step has no answer then, and the journal says so to a search that resumes."""
    asked: list[Request] = []

    def answer(request: Request) -> Answer:
        asked.append(request)
        if len(asked) > 1:  # its time is over once it has begun: before that, a busy machine may not have asked at all
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        while len(asked) > 1:
            pass
        return Answer(trial=trial(request.recipe, ratio=2.0))

    path = tmp_path / "journal.jsonl"
    found = explore(climb(COURSE), answer, Journal.open(path, "this search"), Budget(Clock(), 50.0), _deaf)
    assert (3, 1) == (len(asked), _answered(found))
    assert found == list(Journal.open(path, "this search").recorded)

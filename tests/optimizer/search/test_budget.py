"""The arithmetic of the budget, by a clock that the test moves."""

from __future__ import annotations

import dataclasses

import pytest

from edgeopt.recipe import Precision, Recipe, RuntimeName
from edgeopt.search.budget import Budget
from edgeopt.search.costs import Costs, shortened, timing_seconds
from edgeopt.search.journal import Entry
from edgeopt.search.requests import NO_TIME, Answer, Kind, Request
from edgeopt.timing import SCREENING, Plan

INT8 = Recipe(precision=Precision.INT8)
TRY = Request(kind=Kind.TRY, rung="first recipes", recipe=INT8)
RANK = Request(kind=Kind.RANK, rung="layers in float", recipe=INT8)
COSTS = Costs(answer=0.01, load=0.06, layers=50, timing=5.0)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        """It begins at some moment."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def test_the_end_is_kept_back_and_targets_share_the_rest(clock: Clock) -> None:
    """Of 100 s 5 are spare; reading took 10, writing takes 5, certification 15 for each of two targets."""
    budget = Budget(clock, 100)
    clock.now += 10
    budget.share(parts=2, ends=15, writing=5, costs=COSTS)
    assert (95 - 5 - 10) / 2 - 15 == pytest.approx(budget.left)
    clock.now += 25 + 15
    budget.share(parts=1, ends=15, writing=5, costs=COSTS)
    assert 95 - 5 - 50 - 15 == pytest.approx(budget.left)


def test_the_clock_may_have_started_earlier(clock: Clock) -> None:
    """Loading the libraries is part of what the user waits for."""
    clock.now += 7
    assert (7, 93) == (Budget(clock, 100, 1000.0).spent, Budget(clock, 100, 1000.0).left)


def test_what_a_target_leaves_the_next_one_gets(clock: Clock) -> None:
    """A search that ended early, with a certification that was quick, gives its time away."""
    budget = Budget(clock, 100)
    budget.share(parts=2, ends=10, writing=5, costs=COSTS)
    clock.now += 4
    budget.share(parts=1, ends=10, writing=5, costs=COSTS)
    assert 95 - 5 - 4 - 10 == pytest.approx(budget.left)


def test_the_first_of_its_kind_is_guessed_the_next_known(clock: Clock) -> None:
    """A ranking of fifty layers is not begun with half a minute left, until one was seen to take less."""
    budget = Budget(clock, 60)
    budget.share(parts=1, ends=10, writing=5, costs=COSTS)
    assert 42 == pytest.approx(budget.left)
    assert (True, False) == (budget.allows(TRY), budget.allows(RANK))
    budget.did(RANK, 41)
    budget.did(TRY, 43)
    assert (False, True) == (budget.allows(TRY), budget.allows(RANK))
    clock.now += 42
    budget.did(TRY, 0)
    assert not budget.allows(TRY)


def test_an_earlier_run_spent_of_the_same_budget(clock: Clock) -> None:
    """Replayed entries count; one that had no time teaches nothing of what such a request takes."""
    budget = Budget(clock, 100)
    budget.share(parts=1, ends=0, writing=0, costs=COSTS)
    clock.now += 5
    budget.replayed(Entry(request=TRY, answer=Answer(), spent=30))
    budget.replayed(Entry(request=RANK, answer=NO_TIME, spent=31))
    assert 36 == budget.spent
    assert 95 - 36 == budget.left
    assert budget.allows(TRY)
    assert not budget.allows(RANK)


def test_without_a_limit_everything_is_allowed(clock: Clock) -> None:
    """``quantize`` takes what it takes."""
    budget = Budget(clock)
    budget.share(parts=3, ends=1e6, writing=1e6, costs=COSTS)
    clock.now += 1e9
    assert budget.allows(RANK)


def test_guesses_are_near_what_was_measured_on_efficientnet_lite0() -> None:
    """One search of 64 layers on a busy machine took 9 s for a try, 53 with rounding, 43 and 210 for the questions."""
    costs = Costs(answer=0.015, load=0.1, layers=50, timing=timing_seconds(SCREENING, 0.015, 0.1))
    learned = dataclasses.replace(TRY, recipe=dataclasses.replace(INT8, rounding_learned=True))
    saturation = dataclasses.replace(RANK, kind=Kind.SATURATION)
    for request, measured in ((TRY, 9), (learned, 53), (saturation, 43), (RANK, 210)):
        assert measured / 2 <= costs.of(request) <= measured * 2, request.kind
    litert = dataclasses.replace(TRY, recipe=dataclasses.replace(INT8, runtime=RuntimeName.LITERT))
    assert costs.of(litert) > costs.of(TRY) + 20


def test_a_short_budget_shortens_the_timing_not_its_repetitions() -> None:
    """The interval is made of repetitions, so these stay."""
    assert Plan(seconds=2, repetitions=16) == shortened(Plan(), 2)
    assert Plan() == shortened(Plan(), 60)

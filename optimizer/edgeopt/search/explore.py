"""Driving a search: ask the ladder, answer from the journal or the laboratory, remember, until done or out of time.

The ladder is a generator of requests that depends on nothing but the answers, so replaying the journal brings a
killed search back to where it was. A request that would not end in time gets that as its answer, and the ladder goes
on to cheaper ones, or to its end. Example::

    explore(climb(course), laboratory.answer, journal, budget, on_answer)
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol

from edgeopt.search.budget import Budget
from edgeopt.search.deadline import OutOfTime, deadline
from edgeopt.search.journal import Entry, Journal
from edgeopt.search.requests import NO_TIME, Answer, Request

__all__ = ["OnAnswer", "Strategy", "explore"]

Strategy = Generator[Request, Answer, None]


class OnAnswer(Protocol):
    """Hears of each entry; ``replayed``: more that an earlier run found will follow at once."""

    def __call__(self, entry: Entry, *, replayed: bool) -> None:
        """Take it into account."""


def explore(
    strategy: Strategy,
    answer: Callable[[Request], Answer],
    journal: Journal | None,
    budget: Budget,
    on_answer: OnAnswer,
) -> list[Entry]:
    """Return everything that was asked and found. ``on_answer`` hears each, replayed ones too.

    Without a ``journal`` nothing is remembered on disk.
    """
    found: list[Entry] = []
    recorded = list(journal.recorded) if journal is not None else []
    request = next(strategy, None)
    while request is not None:
        if recorded and recorded[0].request == request:
            entry = recorded.pop(0)
            budget.replayed(entry)
        else:
            if recorded and journal is not None:  # written on another way: what follows answers nothing here
                journal.keep(found)
                recorded = []
            entry = _asked(request, answer, budget, first=not found)
            if journal is not None:
                journal.append(entry)
        found.append(entry)
        on_answer(entry, replayed=bool(recorded))
        try:
            request = strategy.send(entry.answer)
        except StopIteration:
            break
    return found


def _asked(request: Request, answer: Callable[[Request], Answer], budget: Budget, *, first: bool) -> Entry:
    """Return what came of ``request``; the first is always answered, or the search would be for nothing."""
    if not first and not budget.allows(request):
        return Entry(request=request, answer=NO_TIME, spent=budget.spent)
    begun = budget.spent
    try:
        with deadline(float("inf") if first else budget.left):
            given = answer(request)
    except OutOfTime:
        given = NO_TIME
    budget.did(request, budget.spent - begun)
    return Entry(request=request, answer=given, spent=budget.spent)

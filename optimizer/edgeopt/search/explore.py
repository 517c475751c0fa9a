"""Driving a search: ask the ladder, answer from the journal or the laboratory, remember, until done or out of time.

The ladder is a generator of requests that depends on nothing but the answers, so replaying the journal brings a
killed search back to where it was. Example::

    explore(climb(course), laboratory.answer, journal, Budget(seconds=600, clock=time.monotonic))
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from edgeopt.search.journal import Entry, Journal
from edgeopt.search.requests import Answer, Kind, Request

__all__ = ["Budget", "Strategy", "explore"]

Strategy = Generator[Request, Answer, None]


@dataclass(slots=True)
class Budget:
    """Seconds that a search may take, those of an earlier, killed run included; ``None`` is without end.

    ``reserve`` is kept for what comes after the search: the final timing, certification, writing.
    """

    clock: Callable[[], float]
    seconds: float | None = None
    reserve: float = 0.0
    _earlier: float = 0.0
    _started: float = field(init=False)
    _longest: dict[Kind, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def replayed(self, entry: Entry) -> None:
        """Count what an earlier run spent."""
        self._note(entry.request.kind, entry.spent - self._earlier)
        self._earlier = entry.spent

    def did(self, kind: Kind, seconds: float) -> None:
        """Learn how long a request of ``kind`` takes."""
        self._note(kind, seconds)

    @property
    def spent(self) -> float:
        """Seconds used so far, over all runs."""
        return self._earlier + self.clock() - self._started

    @property
    def left(self) -> float:
        """Seconds that remain for searching."""
        return float("inf") if self.seconds is None else self.seconds - self.reserve - self.spent

    def allows(self, kind: Kind) -> bool:
        """Tell whether a request as long as the longest of its kind so far would end in time."""
        return self.left > self._longest.get(kind, 0.0)

    def _note(self, kind: Kind, seconds: float) -> None:
        self._longest[kind] = max(self._longest.get(kind, 0.0), seconds)


def explore(
    strategy: Strategy,
    answer: Callable[[Request], Answer],
    journal: Journal | None,
    budget: Budget,
    on_answer: Callable[[Request, Answer], None],
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
            if not budget.allows(request.kind):
                strategy.close()
                break
            begun = budget.spent
            given = answer(request)
            budget.did(request.kind, budget.spent - begun)
            entry = Entry(request=request, answer=given, spent=budget.spent)
            if journal is not None:
                journal.append(entry)
        found.append(entry)
        on_answer(request, entry.answer)
        try:
            request = strategy.send(entry.answer)
        except StopIteration:
            break
    return found

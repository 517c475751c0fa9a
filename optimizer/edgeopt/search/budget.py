"""How much time a search has, and whether a step of it would still end in time.

The budget is for everything: reading, exporting, searching, the final timing, certification, writing. What comes after
the searches is kept back, the rest is shared by the targets. Deterministic: the clock is given. Example::

    budget = Budget(time.monotonic, seconds=600)
    budget.share(parts=2, ends=25.0, writing=3.0, costs=costs)       # the first of two targets
    budget.allows(request)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from edgeopt.search.costs import Costs, kind_of
from edgeopt.search.journal import Entry
from edgeopt.search.requests import NO_TIME, Request

__all__ = ["Budget"]

_SPARE = 0.95  # of the budget is planned with: guesses are a little wrong


@dataclass(slots=True)
class Budget:
    """Seconds that a run may take, those of an earlier, killed run included; ``None`` is without end.

    ``begun`` is when it began by the ``clock``; ``None``: now.
    """

    clock: Callable[[], float]
    seconds: float | None = None
    begun: float | None = None
    _earlier: float = 0.0
    _until: float = field(init=False)
    _costs: Costs | None = None
    _started: float = field(init=False)
    _took: dict[Hashable, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._started = self.clock() if self.begun is None else self.begun
        self._until = float("inf") if self.seconds is None else self.seconds

    def share(self, *, parts: int, ends: float, writing: float, costs: Costs) -> None:
        """Begin the next of ``parts`` searches that are left, each with its part of the time.

        ``ends``: seconds that follow each search, ``writing``: those after all of them. ``costs`` guesses what a
        request takes that is the first of its kind.
        """
        self._costs = costs
        if self.seconds is not None:
            self._until = self.spent + (_SPARE * self.seconds - writing - self.spent) / parts - ends

    def replayed(self, entry: Entry) -> None:
        """Count what an earlier run spent."""
        if entry.answer != NO_TIME:
            self.did(entry.request, entry.spent - self._earlier)
        self._earlier = max(self._earlier, entry.spent)

    def did(self, request: Request, seconds: float) -> None:
        """Learn how long a request like this takes."""
        self._took[kind_of(request)] = seconds

    @property
    def spent(self) -> float:
        """Seconds used so far, over all runs."""
        return self._earlier + self.clock() - self._started

    @property
    def left(self) -> float:
        """Seconds that remain for this search."""
        return self._until - self.spent

    def allows(self, request: Request) -> bool:
        """Tell whether ``request`` would end in time, going by the last one like it."""
        guessed = 0.0 if self._costs is None else self._costs.of(request)
        return self.left > self._took.get(kind_of(request), guessed)

"""Which numbers of a spool session are stored: everything up to one number, and ranges beyond gaps.

Pure, and small however many numbers there are. Example::

    >>> numbers = NumberSet().add(1).add(2).add(5)
    >>> numbers.upto, numbers.beyond, numbers.add(3).add(4).upto
    (2, ((5, 5),), 5)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["NumberSet"]

_MOST_EXTRA = 1000  # numbers beyond a gap in one acknowledgement, besides those that just came


@dataclass(frozen=True, slots=True)
class NumberSet:
    """A set of numbers from 1 on: all up to ``upto``, and the inclusive, separate, ascending ranges ``beyond``."""

    upto: int = 0
    beyond: tuple[tuple[int, int], ...] = ()

    def __contains__(self, number: int) -> bool:
        return number <= self.upto or any(first <= number <= last for first, last in self.beyond)

    def __len__(self) -> int:
        return self.upto + sum(last - first + 1 for first, last in self.beyond)

    def add(self, number: int) -> NumberSet:
        """Return the set with ``number`` in it."""
        if number == self.upto + 1 and not self.beyond:  # nearly always
            return NumberSet(number)
        if number in self:
            return self
        first = last = number
        apart = []
        for low, high in self.beyond:
            if high + 1 == number:
                first = low
            elif low - 1 == number:
                last = high
            else:
                apart.append((low, high))
        if first == self.upto + 1:
            return NumberSet(last, tuple(apart))
        return NumberSet(self.upto, tuple(sorted([*apart, (first, last)])))

    def acknowledgeable(self, fresh: Collection[int]) -> tuple[int, ...]:
        """Return numbers beyond ``upto`` to acknowledge one by one: those of ``fresh``, and the lowest others."""
        if not self.beyond:
            return ()
        chosen = {number for number in fresh if number > self.upto and number in self}
        room = len(chosen) + _MOST_EXTRA
        for first, last in self.beyond:
            for number in range(first, last + 1):
                if len(chosen) >= room:
                    return tuple(sorted(chosen))
                chosen.add(number)
        return tuple(sorted(chosen))

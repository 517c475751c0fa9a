"""How many members of a rollout count as what: moved by what changed, never counted anew.

Pure. Example::

    tally = Tally().moved([(None, member)])
    tally = tally.moved([(member, offer(member, seen))])
    tally.of(0, Count.NOTIFIED), tally.total(Count.CONFIRMED, "A")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeopt_fleet.rollout.arms import ARMS
from edgeopt_fleet.rollout.members import Count, Member, counts_of
from edgeopt_fleet.rollout.thresholds import Failure

__all__ = ["Tally"]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many members of each wave count as what. Keys are like ``0:confirmed``, of an arm ``0A:confirmed``: JSON.

    Where an arm is asked for, only its members are counted.
    """

    counts: Mapping[str, int] = field(default_factory=dict)

    def of(self, wave: int, count: Count, arm: str = "") -> int:
        """Return how many members of ``wave`` count as ``count``."""
        groups = (arm,) if arm else ("", *ARMS)
        return sum(self.counts.get(f"{wave}{group}:{count}", 0) for group in groups)

    def total(self, count: Count, arm: str = "") -> int:
        """Return how many members count as ``count``."""
        return sum(number for key, number in self.counts.items() if key.endswith(f"{arm}:{count}"))

    def failed(self, wave: int | None = None, arm: str = "") -> dict[Failure, int]:
        """Return how many failed in which way, in one wave or over all."""
        kinds = [kind for kind in Failure if kind is not Failure.ANY]
        return {
            kind: self.total(Count(kind), arm) if wave is None else self.of(wave, Count(kind), arm) for kind in kinds
        }

    def moved(self, changes: list[tuple[Member | None, Member]]) -> Tally:
        """Return the tally after each (before, after) of ``changes``; before is None for a new member."""
        counts = dict(self.counts)
        for before, after in changes:
            if before is not None:
                _add(counts, before, -1)
            _add(counts, after, 1)
        return Tally({key: number for key, number in counts.items() if number})


def _add(counts: dict[str, int], member: Member, by: int) -> None:
    for count in counts_of(member):
        key = f"{member.wave}{member.arm}:{count}"
        counts[key] = counts.get(key, 0) + by

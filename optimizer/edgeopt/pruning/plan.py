"""What pruning is asked for, which channels go in which order, and how many are the least that is fast enough.

Pure: no model, no clock. Kernels of CPUs work on blocks of channels, so channels go by blocks: a width between two
multiples of ``round_to`` gains nothing. Each group of channels loses about the same share of its importance, which is
relative, so that groups of different size and place can be compared. Speed is a question put to the caller, because it
is measured and not computed. Example::

    steps = removal_steps(groups, round_to=8, most=40)       # from the least to the most pruned
    least_pruned(steps, fast_enough)                         # the first that is, by bisection
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from edgeopt.timing import Plan
from edgeopt_contract.errors import UsageError

__all__ = ["ChannelGroup", "Importance", "PruningPlan", "Removals", "least_pruned", "removal_steps"]

Removals = Mapping[str, tuple[int, ...]]  # layer: the output channels that go, ascending
_SCREEN = Plan(seconds=2.0, repetitions=9)
T = TypeVar("T")


class Importance(StrEnum):
    """How much a channel matters."""

    MAGNITUDE = "magnitude"  # the norm of its weights
    BN_SCALE = "bn-scale"  # the scale of its BatchNorm (Liu et al., arXiv:1708.06519)
    TAYLOR = "taylor"  # what the loss would lose without it, to first order (Molchanov et al., arXiv:1906.10771)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """What is asked for: ``speedup`` is the least ratio of times, original / pruned, of the lower confidence bound.

    ``round_to``: widths are multiples of it. ``epochs``, ``batch``, ``rate`` (the greatest learning rate) and
    ``temperature`` belong to the fine-tuning. ``threads``: of the runtime that is timed. ``screen`` times the ratios
    that are tried, ``timing`` the one that is taken.
    """

    speedup: float = 1.6
    importance: Importance = Importance.MAGNITUDE
    round_to: int = 8
    epochs: int = 5
    batch: int = 128
    rate: float = 3e-3
    temperature: float = 4.0
    seed: int = 0
    threads: int = 1
    screen: Plan = _SCREEN
    timing: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        limits = (
            ("speedup", self.speedup > 1, "above 1, such as 1.6"),
            ("round_to", self.round_to >= 1, "at least 1; 8 or 16 suit the kernels of CPUs"),
            ("epochs", self.epochs >= 0, "0 or more"),
            ("batch", self.batch >= 2, "at least 2, because BatchNorm needs two samples"),
            ("rate", self.rate > 0, "above 0"),
            ("temperature", self.temperature > 0, "above 0"),
            ("threads", self.threads >= 1, "at least 1"),
        )
        for name, holds, expected in limits:
            if not holds:
                raise UsageError(f"{name} is {getattr(self, name)}: expected {expected}")


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels of several layers that go together, named by the ``layer`` that makes them.

    ``width`` channels in ``parts`` equal parts (grouped convolutions) that must stay equal; ``importance`` has a number
    for each position in a part, shape (width / parts,).
    """

    layer: str
    width: int
    parts: int
    importance: tuple[float, ...]


def removal_steps(groups: Sequence[ChannelGroup], round_to: int, most: int) -> list[Removals]:
    """Return what to remove, from one block of channels to all but one block of every group; at most ``most`` steps.

    Each step takes the block whose loss leaves its group with the least share of importance gone; ties go to the first
    group. Widths of at most a block stay as they are.
    """
    rows = [_Row.of(group, round_to) for group in groups]
    steps: list[Removals] = []
    while any(row.open for row in rows):
        min((row for row in rows if row.open), key=_Row.next_share).taken += 1
        steps.append({row.group.layer: row.removed() for row in rows if row.taken})
    if len(steps) <= most:
        return steps
    return [steps[round((at + 1) * len(steps) / most) - 1] for at in range(most)]


@dataclass(slots=True)
class _Row:
    """A group, its positions from the least to the most important, and how many blocks of them are gone.

    The first block is the rest above a whole number of blocks, if there is any; ``block`` counts positions in a part.
    """

    group: ChannelGroup
    order: tuple[int, ...]
    block: int
    taken: int = 0

    @classmethod
    def of(cls, group: ChannelGroup, round_to: int) -> _Row:
        size = group.width // group.parts
        order = sorted(range(size), key=lambda at: (group.importance[at], at))
        return cls(group, tuple(order), math.lcm(round_to, group.parts) // group.parts)

    @property
    def open(self) -> bool:
        """Whether a block can go and one is left."""
        return self._kept(self.taken) > self.block

    def next_share(self) -> float:
        """Return the share of the group's importance that would be gone after the next block."""
        gone = self.order[: len(self.order) - self._kept(self.taken + 1)]
        total = sum(self.group.importance)
        return sum(self.group.importance[at] for at in gone) / total if total else len(gone) / len(self.order)

    def removed(self) -> tuple[int, ...]:
        """Return the channels that are gone, ascending; each part has lost the same positions."""
        size = len(self.order)
        gone = self.order[: size - self._kept(self.taken)]
        return tuple(sorted(part * size + at for part in range(self.group.parts) for at in gone))

    def _kept(self, taken: int) -> int:
        """Return how many positions of a part are left after ``taken`` blocks."""
        size = len(self.order)
        if not taken or size <= self.block:
            return size
        rest = size % self.block or self.block
        return max(self.block, size - rest - (taken - 1) * self.block)


def least_pruned(candidates: Sequence[T], fast_enough: Callable[[T], bool]) -> T | None:
    """Return the first candidate that is fast enough, or ``None``; they come from the least to the most pruned.

    The last is asked first, so a goal out of reach costs one measurement; the others by bisection.
    """
    if not candidates or not fast_enough(candidates[-1]):
        return None
    low, high = 0, len(candidates) - 1  # ``high`` is known to be fast enough
    while low < high:
        middle = (low + high) // 2
        if fast_enough(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return candidates[high]

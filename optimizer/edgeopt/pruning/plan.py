"""What pruning is asked for, how wide a pruned layer is, and which ratio is the least that is fast enough.

Pure: no model, no clock. Kernels of CPUs work on blocks of channels, so widths are multiples of ``round_to``; a width
that is none gains nothing. Speed is a question put to the caller, because it is measured and not computed. Example::

    kept_width(64, ratio=0.3, step=8)                        # 48
    least_pruned([(0.1, ...), (0.2, ...)], fast_enough)      # the first that is, by bisection
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from edgeopt.timing import Plan
from edgeopt_contract.errors import UsageError

__all__ = ["RATIOS", "ChannelGroup", "Importance", "PruningPlan", "kept_width", "least_important", "least_pruned"]

RATIOS = tuple(round(0.05 * step, 2) for step in range(1, 20))
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
    importance: Importance = Importance.TAYLOR
    round_to: int = 8
    epochs: int = 5
    batch: int = 128
    rate: float = 2e-3
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


def kept_width(width: int, ratio: float, step: int) -> int:
    """Return the multiple of ``step`` nearest to ``width * (1 - ratio)``, at least ``step``.

    A width of at most ``step`` stays as it is. Halves round up: rather a channel too many.
    """
    if width <= step:
        return width
    nearest = math.floor(width * (1 - ratio) / step + 0.5) * step
    return width if nearest >= width else max(step, nearest)


def least_important(group: ChannelGroup, ratio: float, round_to: int) -> tuple[int, ...]:
    """Return the channels of ``group`` to remove, ascending; each part loses the same positions."""
    step = math.lcm(round_to, group.parts)
    kept = kept_width(group.width, ratio, step)
    size = group.width // group.parts
    positions = sorted(range(size), key=lambda at: (group.importance[at], at))[: size - kept // group.parts]
    return tuple(sorted(part * size + at for part in range(group.parts) for at in positions))


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

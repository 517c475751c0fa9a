"""Where a number lies in a picture, and which numbers are written at its axes.

Positions are in the picture's units, rounded to a tenth. Pure. Example::

    scale = Scale(low=0.0, high=2.0, start=60.0, end=560.0)
    scale(1.0)                            # 310.0
    round_ticks(0.0, 2.0, 4)              # (0.0, 0.5, 1.0, 1.5, 2.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "round_ticks", "spaced_ticks", "trimmed_range"]

_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Numbers from ``low`` to ``high``, which differ, to positions from ``start`` to ``end``.

    Numbers beyond are put at the edge. ``stretched``: by square roots from ``low`` on, so that small differences near
    it stay visible beside large ones.
    """

    low: float
    high: float
    start: float
    end: float
    stretched: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of ``value``."""
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return round(self.start + (math.sqrt(share) if self.stretched else share) * (self.end - self.start), 1)

    def holds(self, value: float) -> bool:
        """Tell whether ``value`` lies on the scale, not beyond it."""
        return self.low <= value <= self.high


def round_ticks(low: float, high: float, count: int) -> tuple[float, ...]:
    """Return about ``count`` round numbers between ``low`` and ``high``, which differ, in equal steps."""
    rough = (high - low) / count
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(float(f"{index * step:.12g}") for index in range(first, last + 1))


def spaced_ticks(scale: Scale, gap: float) -> tuple[float, ...]:
    """Return zero and round numbers at least ``gap`` apart on ``scale``, which begins at zero."""
    least, most = math.floor(math.log10(scale.high)) - 4, math.ceil(math.log10(scale.high))
    ticks = [0.0]
    for exponent in range(least, most + 1):
        for factor in (1, 2, 5):
            value = float(f"{factor}e{exponent}")
            if value <= scale.high and abs(scale(value) - scale(ticks[-1])) >= gap:
                ticks.append(value)
    return tuple(ticks)


def trimmed_range(groups: Sequence[Sequence[float]], always: float) -> tuple[float, float]:
    """Return the range of all ``groups`` and of ``always``, a little widened.

    Of a group of five or more the smallest and the greatest are left out: one hiccup of the machine should not press
    everything else together.
    """
    kept = [always]
    for group in groups:
        ordered = sorted(group)
        kept += ordered[1:-1] if len(ordered) >= 5 else ordered
    low, high = min(kept), max(kept)
    margin = max((high - low) * 0.08, 0.02)
    return low - margin, high + margin

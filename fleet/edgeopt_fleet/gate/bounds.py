"""How far the mean of numbers between 0 and 1 may be from what was seen, whatever their distribution is.

Pure. Hoeffding's inequality in its Chernoff form (Hoeffding 1963, doi 10.1080/01621459.1963.10500830, theorem 1): with
``n`` independent values in [0, 1] and mean ``m``, a sample mean of ``x`` or more has a chance of at most
exp(-n kl(x, m)). Theorem 4 of the same paper: so it is for values drawn without replacement. Nothing is assumed of the
values, so a few devices on which everything is different are covered; a normal interval does not cover them.
Example::

    lower_bound(0.99, 200.0, 0.05)                        # 0.958
    values_needed(0.99, 0.95, 0.05)                       # 122: from so many on the lower bound is 0.95

A median has bounds of the same kind: values among those drawn (order statistics: Thompson 1936, "On confidence ranges
for the median", Annals of Mathematical Statistics 7), chosen by the inequality above, so also without replacement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "devices_needed",
    "divergence",
    "effective",
    "lower_bound",
    "median_lower",
    "median_upper",
    "upper_bound",
    "values_needed",
]

_STEPS = 60  # halvings: further than float64 can tell apart


def divergence(seen: float, true: float) -> float:
    """Return the Kullback-Leibler divergence of two coins, in nats; ``inf`` where ``true`` excludes what was seen."""
    total = 0.0
    for one, other in ((seen, true), (1 - seen, 1 - true)):
        if one > 0:
            if other <= 0:
                return math.inf
            total += one * math.log(one / other)
    return max(total, 0.0)


def lower_bound(seen: float, n: float, alpha: float) -> float:
    """Return what the true mean is not below, with an error of ``alpha``; 0 without values."""
    if n <= 0:
        return 0.0
    limit, low, high = math.log(1 / alpha) / n, 0.0, seen
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if divergence(seen, middle) <= limit else (middle, high)
    return low


def upper_bound(seen: float, n: float, alpha: float) -> float:
    """Return what the true mean is not above, with an error of ``alpha``; 1 without values."""
    return 1 - lower_bound(1 - seen, n, alpha)


def values_needed(seen: float, limit: float, alpha: float) -> float:
    """Return from how many values on a mean of ``seen`` is surely not below ``limit``; ``inf`` when it never is."""
    if seen <= limit:
        return math.inf
    return math.ceil(math.log(1 / alpha) / divergence(seen, limit))


def effective(sizes: list[float]) -> float:
    """Return how many values are behind an evenly weighted mean of means of ``sizes`` values each (Kish 1965)."""
    if not sizes or min(sizes) <= 0:
        return 0.0
    return len(sizes) ** 2 / sum(1 / size for size in sizes)


def median_upper(values: Sequence[float], members: int, alpha: float) -> float:
    """Return what at least half of all ``members`` are surely not above, from the ``values`` of those drawn.

    Surely: with an error of ``alpha``, or without any where the values are those of half of the members. ``inf`` when
    there are too few values.
    """
    return _surely_reached(values, math.ceil(members / 2), alpha)


def median_lower(values: Sequence[float], members: int, alpha: float) -> float:
    """Return what more than half of all ``members`` are surely not below; ``-inf`` when there are too few values."""
    return -_surely_reached([-value for value in values], members // 2 + 1, alpha)


def _surely_reached(values: Sequence[float], enough: int, alpha: float) -> float:
    """Return the least value that so many are not above that half of all are: ``enough``, or improbably many."""
    limit, drawn = math.log(1 / alpha), len(values)
    for place, value in enumerate(sorted(values), 1):
        share = place / drawn
        if place >= enough or (share > 0.5 and drawn * divergence(share, 0.5) >= limit):
            return value
    return math.inf


def devices_needed(members: int, alpha: float) -> int:
    """Return from how many values on :func:`median_upper` of ``members`` is one of them."""
    return min(math.ceil(members / 2), math.ceil(math.log(1 / alpha) / math.log(2)))

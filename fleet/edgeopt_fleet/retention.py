"""What is kept for how long, and how windows become hours and days. Pure: no database, no clock.

A window belongs to the hour of its end, on the device's clock, but never later than it arrived nor long before: a clock
that was never set makes no hours of 1970. Counts add up exactly, so an hour's sum is what its windows were. Example::

    keep = Keep(window_days=14.0)
    start = bucket(end=1764000123, received_at=1764000200.0, seconds=HOUR)      # 1763999000-ish, a multiple of 3600
    total = add_up([Sums.of_window(60, 0, counts), Sums.of_window(40, 1, more)])
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["DAY", "HOUR", "Keep", "Sums", "add_up", "bucket", "may_go", "unneeded"]

HOUR = 3600
DAY = 86400
_OLDEST_SECONDS = 400 * DAY  # a device that was offline for longer counts for the day it came back

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Days that things are kept: windows as they came, hours, days; reports; verdicts with evidence; unused bundles."""

    window_days: float = 14.0
    hour_days: float = 90.0
    day_days: float = 1100.0
    report_days: float = 90.0
    verdict_days: float = 400.0
    bundle_days: float = 90.0


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a device served on a bundle in an hour or a day; ``counts`` in the order of the bundle's layout."""

    windows: int
    rows: int
    errors: int
    counts: Counts

    @classmethod
    def of_window(cls, rows: int, errors: int, counts: Counts) -> Sums:
        """Return the sums of one window."""
        return cls(1, rows, errors, counts)

    def __add__(self, other: Sums) -> Sums:
        """Add two sums of one layout."""
        return Sums(
            self.windows + other.windows,
            self.rows + other.rows,
            self.errors + other.errors,
            self.counts + other.counts,
        )


def add_up(sums: Iterable[Sums]) -> Sums:
    """Return the sum of at least one."""
    return functools.reduce(Sums.__add__, sums)


def bucket(end: int, received_at: float, seconds: int) -> int:
    """Return the beginning (a multiple of ``seconds``) of the hour or day that a window belongs to."""
    at = min(max(end, int(received_at) - _OLDEST_SECONDS), int(received_at))
    return at - at % seconds


def may_go(window: int, bundle: str, looked_until: Mapping[str, int]) -> bool:
    """Say whether drift needs a window no more; ``looked_until`` names watched bundles, and how far all looks came."""
    return bundle not in looked_until or window <= looked_until[bundle]


def unneeded(created: Mapping[str, float], needed: Collection[str], now: float, keep: Keep) -> list[str]:
    """Return the bundles, by digest, that nobody needs and that were published long enough ago."""
    limit = now - keep.bundle_days * DAY
    return sorted(digest for digest, at in created.items() if digest not in needed and at < limit)

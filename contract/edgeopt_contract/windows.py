"""Maintenance windows: on which days and between which hours a device may be disturbed, by its own local time.

Pure arithmetic on seconds since 1970 and an offset from UTC; it has no clock and knows no zone names: whoever asks
hands in both. The device's offset at the moment of asking is used for the days ahead, so across a change to summer
time an answer may be off by that hour until it is asked again. Example::

    >>> Window(days=("sat", "sun"), start="22:00", end="04:00").wait_seconds(0.0, utc_offset_seconds=3600)
    248400.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["DAYS", "Window"]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_DAY_SECONDS = 86400
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From ``start`` to ``end`` (``HH:MM``, local time) on each of ``days``; no days means every day.

    A window that ends before it starts runs past midnight and belongs to the day on which it starts; one that ends
    when it starts lasts 24 hours. Raises ``ValueError`` for what is not a day or a time.
    """

    start: str
    end: str
    days: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if not _TIME.fullmatch(value):
                raise ValueError(f"expected a window's {name} as HH:MM, got {value[:20]!r}")
        if len(set(self.days)) != len(self.days) or not set(self.days) <= set(DAYS):
            raise ValueError(f"expected a window's days among {', '.join(DAYS)}, each once, got {self.days!r:.80}")

    def __str__(self) -> str:
        return f"{' '.join(self.days) or 'daily'} {self.start}-{self.end}"

    @property
    def longest_wait_seconds(self) -> float:
        """For how long it is closed at the most; 0 when it never is."""
        length = (_seconds(self.end) - _seconds(self.start)) % _DAY_SECONDS or _DAY_SECONDS
        ends = (day * _DAY_SECONDS + _seconds(self.start) + length for day in range(len(DAYS)))
        return max(self.wait_seconds(end, 0) for end in ends)

    def wait_seconds(self, now: float, utc_offset_seconds: int) -> float:
        """Return how long it is from ``now`` (seconds since 1970) until the window is open; 0 while it is."""
        local = now + utc_offset_seconds
        today = int(local // _DAY_SECONDS)
        start, end = _seconds(self.start), _seconds(self.end)
        length = (end - start) % _DAY_SECONDS or _DAY_SECONDS
        for day in range(today - 1, today + len(DAYS) + 1):  # yesterday's may run past midnight
            if self.days and DAYS[(day + _EPOCH_WEEKDAY) % len(DAYS)] not in self.days:
                continue
            opens = day * _DAY_SECONDS + start
            if local < opens + length:
                return max(0.0, opens - local)
        raise AssertionError("every window opens within eight days")


def _seconds(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60

"""How often a line may be repeated in a log. Pure: the time comes in.

Lines that differ only in digits count as the same. Ten come through at once, then one every half hour; of all lines
together 300 at once, then one every ten seconds, whatever somebody outside makes the device say. Example::

    repetition = Repetition()
    repetition.suppressed("link lost, attempt 17", now=3.5)     # 0: say it; None: do not; 12: say so, 12 were not
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Repetition"]

_DIGITS = re.compile(r"\d+")
_SAME = (10, 1800.0)  # lines at once, and seconds until there is one more
_ALL = (300, 10.0)
_KEPT = 200  # different lines remembered


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float
    suppressed: int = 0

    def take(self, burst: int, seconds: float, now: float) -> bool:
        self.left = min(float(burst), self.left + (now - self.at) / seconds)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Repetition:
    """Token buckets, one for each line and one for all."""

    def __init__(self) -> None:
        self._same: dict[str, _Bucket] = {}
        self._all = _Bucket(_ALL[0], 0.0)

    def suppressed(self, line: str, now: float) -> int | None:
        """Return how many like ``line`` were left out since the last one that came through; None: leave it out too."""
        key = _DIGITS.sub("#", line)
        bucket = self._same.pop(key, None) or _Bucket(_SAME[0], now)
        self._same[key] = bucket  # the newest last
        if len(self._same) > _KEPT:
            del self._same[next(iter(self._same))]
        if not bucket.take(*_SAME, now) or not self._all.take(*_ALL, now):
            bucket.suppressed += 1
            return None
        left_out, bucket.suppressed = bucket.suppressed, 0
        return left_out

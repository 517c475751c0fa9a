"""How often somebody may ask: token buckets, by key and by address.

A bucket holds at most ``burst`` requests and fills by ``per_second``; an empty one says how long to wait. Buckets live
in the memory of one process: several API processes each allow their own share. Pure: the time is an argument. Example::

    limiter = Limiter(Rate(per_second=5, burst=20))
    limiter.take("203.0.113.7", now=100.0)     # 0.0: go on; or the seconds to wait
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Limiter", "Limits", "Rate"]

_MOST_BUCKETS = 20_000  # an attacker with many addresses must not fill the memory; the oldest are forgotten


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second in the long run, and how many at once after a pause; zero a second means no limit."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if self.per_second < 0 or (self.per_second > 0 and self.burst < 1):
            raise ValueError(f"expected a rate from 0 a second and a burst from 1, got {self.per_second}, {self.burst}")


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Limiter:
    """One bucket for each name that asked lately."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str, now: float) -> float:
        """Take one request out of the bucket of ``name`` and return 0, or the seconds until there is one to take.

        ``now`` is in seconds on a clock that never goes back.
        """
        rate = self.rate
        if rate.per_second == 0:
            return 0.0
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(rate.burst, now)
            if len(self._buckets) > _MOST_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        bucket.left = min(rate.burst, bucket.left + (now - bucket.at) * rate.per_second)
        bucket.at = now
        if bucket.left < 1:
            return (1 - bucket.left) / rate.per_second
        bucket.left -= 1
        return 0.0

    def give_back(self, name: str) -> None:
        """Undo a :meth:`take` that let somebody go on."""
        bucket = self._buckets.get(name)
        if bucket is not None:
            bucket.left = min(self.rate.burst, bucket.left + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often a key, an address, and a device that enrols may ask; ``clock`` (seconds) never goes back."""

    keys: Limiter
    addresses: Limiter
    enrolments: Limiter
    clock: Callable[[], float]

    @classmethod
    def of(cls, *, per_user: float, per_address: float, enrolments: float, clock: Callable[[], float]) -> Limits:
        """Return limits for requests a second, and enrolments a minute, with room for what comes at once."""
        return cls(
            keys=Limiter(Rate(per_user, max(1.0, 2 * per_user))),
            addresses=Limiter(Rate(per_address, max(1.0, 2 * per_address))),
            enrolments=Limiter(Rate(enrolments / 60, max(1.0, enrolments / 3))),
            clock=clock,
        )

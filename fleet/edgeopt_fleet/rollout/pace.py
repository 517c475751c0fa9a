"""How many devices a rollout may offer its bundle to, and when: constant and exponential rates.

Pure. The fields are those of AWS IoT Jobs (``maximumPerMinute``, ``exponentialRate``). Offers are spread over the
minute, and no 60 seconds ever see more than the rate, also after a pause or a server that stood still. Example::

    pace = Pace(maximum_per_minute=100, base_rate_per_minute=10, increment_factor=2.0, number_of_succeeded_things=20)
    allowed = allowance(pace, pacing, notified=30, succeeded=21, now=now)
    pacing = pacing.after(allowed, pace.rate(30, 21), now)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Pace", "Pacing", "allowance"]

_MINUTE = 60.0
_CATCH_UP_SECONDS = 10.0  # what was not offered for longer than this is not made up for at once
_MOST_PER_MINUTE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Offers a minute. With ``base_rate_per_minute`` the rate begins there and grows up to the maximum.

    It is multiplied by ``increment_factor`` each time another ``number_of_notified_things`` devices were offered the
    bundle, or another ``number_of_succeeded_things`` confirmed it. Raises ``ValueError`` for what cannot be.
    """

    maximum_per_minute: int
    base_rate_per_minute: int | None = None
    increment_factor: float = 2.0
    number_of_notified_things: int | None = None
    number_of_succeeded_things: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.maximum_per_minute <= _MOST_PER_MINUTE:
            raise ValueError(f"expected maximumPerMinute from 1 to {_MOST_PER_MINUTE}, got {self.maximum_per_minute}")
        criteria = (self.number_of_notified_things, self.number_of_succeeded_things)
        given = [criterion for criterion in criteria if criterion is not None]
        if self.base_rate_per_minute is None:
            if given:
                raise ValueError("expected baseRatePerMinute with a criterion for raising it")
            return
        if not 1 <= self.base_rate_per_minute <= self.maximum_per_minute:
            raise ValueError(f"expected baseRatePerMinute from 1 to maximumPerMinute, got {self.base_rate_per_minute}")
        if not 1.1 <= self.increment_factor <= 5:
            raise ValueError(f"expected incrementFactor from 1.1 to 5, got {self.increment_factor}")
        if len(given) != 1 or given[0] < 1:
            raise ValueError("expected one criterion from 1 on: numberOfNotifiedThings or numberOfSucceededThings")

    def rate(self, notified: int, succeeded: int) -> int:
        """Return how many offers a minute may see after so many offers and confirmations."""
        if self.base_rate_per_minute is None:
            return self.maximum_per_minute
        if self.number_of_notified_things is not None:
            raised = notified // self.number_of_notified_things
        else:
            assert self.number_of_succeeded_things is not None  # one of the two, see above
            raised = succeeded // self.number_of_succeeded_things
        most = math.log(self.maximum_per_minute) / math.log(self.increment_factor) + 1  # no overflow beyond
        return min(self.maximum_per_minute, int(self.base_rate_per_minute * self.increment_factor ** min(raised, most)))

    def steady_for(self, done: int) -> int | None:
        """Return how many devices more leave the rate as it is, after ``done`` that all succeeded; None: all."""
        criterion = self.number_of_notified_things or self.number_of_succeeded_things
        if self.base_rate_per_minute is None or criterion is None or self.rate(done, done) == self.maximum_per_minute:
            return None
        return criterion - done % criterion


@dataclass(frozen=True, slots=True)
class Pacing:
    """What is remembered of past offers: when the next is due, and how many each second of the last minute saw."""

    due_at: float = 0.0
    recent: tuple[tuple[float, int], ...] = ()

    def within_a_minute(self, now: float) -> int:
        """Return how many offers the 60 seconds before ``now`` saw."""
        return sum(offers for at, offers in self.recent if at > now - _MINUTE)

    def since(self, now: float) -> float:
        """Return since when offers have been due at ``now``."""
        return max(self.due_at, now - _CATCH_UP_SECONDS) if self.recent else now

    def after(self, offers: int, rate: int, now: float) -> Pacing:
        """Return what is remembered after ``offers`` at ``now``."""
        if not offers:
            return self
        second = float(math.ceil(now))  # kept for too long rather than too short
        recent = [entry for entry in self.recent if entry[0] > now - _MINUTE]
        before = recent.pop()[1] if recent and recent[-1][0] == second else 0
        return Pacing(self.since(now) + offers * _MINUTE / rate, (*recent, (second, before + offers)))


def allowance(pace: Pace | None, pacing: Pacing, notified: int, succeeded: int, now: float) -> int | None:
    """Return how many devices may be offered the bundle at ``now``; ``None``: as many as there are.

    ``notified`` and ``succeeded`` count the offers and confirmations of this rollout so far.
    """
    if pace is None:
        return None
    rate = pace.rate(notified, succeeded)
    if now < pacing.due_at:
        return 0
    spread = 1 + int((now - pacing.since(now)) * rate / _MINUTE)
    return max(0, min(spread, rate - pacing.within_a_minute(now)))

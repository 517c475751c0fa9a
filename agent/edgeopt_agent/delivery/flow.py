"""How much a device asks for at once, how long it waits before it looks again, and how fast it may go. Pure.

What is asked for over MQTT comes in order, behind what was asked for before it. So one block at a time is enough where
the way is short: while a block is on its way there is nothing to wait for but that block. Only where a question takes
long to be answered must more questions be under way, as many as keep link and disk busy in the meantime::

    window = 1 + round(2 * round trip / (time on the link + time to the disk)), from 1 to 16

and 1 below a round trip of 5 ms, however fast disk and link are.
The factor 2 leaves room for jitter, as in BBR's window of twice the bandwidth-delay product (N. Cardwell et al., "BBR:
Congestion-Based Congestion Control", ACM Queue 14(5), 2016). A small window is what makes an interruption cheap: at
most what was under way is lost. It measures nothing itself and never waits. Example::

    >>> flow = Flow(longest_patience_seconds=10)
    >>> flow = flow.after(Passage(asked_at=0.0, answered_at=0.4, arrived_at=1.8, kept_at=1.81), size=65536)
    >>> flow.window                                 # 384 kbit/s and 400 ms: one block comes, one question is on its way
    2
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeopt_contract.blocks import MAX_BLOCK_BYTES, MIN_BLOCK_BYTES

__all__ = ["LARGEST_WINDOW", "Budget", "Flow", "Passage"]

LARGEST_WINDOW = 16  # below Mosquitto's max_inflight_messages of 20 and max_queued_messages of 100
_MEAN_BLOCK_BYTES = 64 * 1024
_SMOOTHING = 0.25  # weight of the newest block
_SHORT_WAY_SECONDS = 0.005  # a round trip for each block is no loss there, and a kill costs one block
_LEAST_PATIENCE_SECONDS = 1.0
_PATIENCE_FACTOR = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """When one block was asked for, the question answered (SUBACK), the block there, and safe on the disk.

    Seconds on a clock that never goes back.
    """

    asked_at: float
    answered_at: float
    arrived_at: float
    kept_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What is known of the way that blocks take."""

    longest_patience_seconds: float
    round_trip_seconds: float | None = None  # the least seen: later ones stood behind other blocks
    block_seconds: float | None = None  # smoothed, of a block of 64 KiB: on the link and to the disk
    last_arrival_at: float = 0.0

    def after(self, passage: Passage, size: int) -> Flow:
        """Return what is known after a block of ``size`` bytes has come."""
        round_trip = passage.answered_at - passage.asked_at
        known = replace(
            self,
            round_trip_seconds=round_trip
            if self.round_trip_seconds is None
            else min(round_trip, self.round_trip_seconds),
            last_arrival_at=max(passage.arrived_at, self.last_arrival_at),
        )
        if size < MIN_BLOCK_BYTES:
            return known  # too short to tell the link's speed from chance
        on_the_link = max(0.0, passage.arrived_at - max(passage.answered_at, self.last_arrival_at))
        seconds = on_the_link * _MEAN_BLOCK_BYTES / size + passage.kept_at - passage.arrived_at
        before = seconds if self.block_seconds is None else self.block_seconds
        return replace(known, block_seconds=before + _SMOOTHING * (seconds - before))

    @property
    def window(self) -> int:
        """How many blocks may be under way now; one until the first has come."""
        if self.round_trip_seconds is None or not self.block_seconds or self.round_trip_seconds < _SHORT_WAY_SECONDS:
            return 1
        return min(LARGEST_WINDOW, 1 + round(2 * self.round_trip_seconds / self.block_seconds))

    def patience_seconds(self, under_way: int) -> float:
        """How long to wait for one of ``under_way`` blocks before asking the broker whether it is coming at all.

        Asking costs a hundred bytes and never fetches a block twice, so an unlucky guess is cheap; see
        :meth:`edgeopt_agent.mqtt.link.Link.fetch`.
        """
        if self.round_trip_seconds is None or self.block_seconds is None:
            return self.longest_patience_seconds
        largest = self.block_seconds * MAX_BLOCK_BYTES / _MEAN_BLOCK_BYTES
        expected = self.round_trip_seconds + under_way * largest
        return min(self.longest_patience_seconds, max(_LEAST_PATIENCE_SECONDS, _PATIENCE_FACTOR * expected))


class Budget:
    """A token bucket: over any time, at most ``bytes_per_second`` and one largest block more.

    ``None`` is no limit. Example::

        >>> budget = Budget(1000.0)
        >>> [budget.take(131072, now=0.0), budget.take(500, now=0.0)]
        [0.0, 0.5]
    """

    def __init__(self, bytes_per_second: float | None) -> None:
        self._rate = bytes_per_second
        self._level = float(MAX_BLOCK_BYTES)
        self._at: float | None = None

    def take(self, size: int, now: float) -> float:
        """Take ``size`` bytes out of the bucket and return how many seconds to wait before using them."""
        if self._rate is None:
            return 0.0
        since = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._level = min(float(MAX_BLOCK_BYTES), self._level + since * self._rate) - size
        return max(0.0, -self._level / self._rate)

"""When a packet arrives at the other end of a bad link, or that it does not. One direction.

Time and randomness come in. Jitter does not change the order of packets: the links
that are meant (radio with retransmission below IP) deliver in order. Example::

    shaper = Shaper(random.Random(7).random)
    shaper.arrival(now=0.0, size=1400, conditions=PRESETS["3G"])      # 0.22…, or None when it is lost
"""

from __future__ import annotations

from collections.abc import Callable

from devices.emulator.conditions import Conditions

__all__ = ["Shaper"]


class Shaper:
    """A transmitter with a queue in front of it and a delay behind it. ``draw`` returns numbers in [0, 1)."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self._draw = draw
        self._free_at = 0.0  # when the transmitter has sent what waits
        self._last = 0.0  # when the packet before arrives

    def arrival(self, *, now: float, size: int, conditions: Conditions) -> float | None:
        """Return when a packet of ``size`` bytes that is sent at ``now`` arrives (seconds); ``None``: it is lost.

        A packet that the link loses has still taken the transmitter's time, as on the air; one that finds the queue
        full, or the link down, has not.
        """
        if conditions.down:
            return None
        waiting = max(0.0, self._free_at - now) * conditions.rate_bits / 8
        if conditions.rate_bits and waiting + size > conditions.queue_bytes:
            return None
        sent = now
        if conditions.rate_bits:
            sent = max(now, self._free_at) + size * 8 / conditions.rate_bits
            self._free_at = sent
        if self._draw() < conditions.loss:
            return None
        late = conditions.delay_ms + self._draw() * conditions.jitter_ms
        self._last = max(self._last, sent + late / 1000)
        return self._last

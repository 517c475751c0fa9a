"""How long to wait before trying again. Pure: the random source comes in.

The first reconnect of a device is drawn from a window that the fleet sets by its own size, so that a broker that
comes back is not met by everybody at once. Later ones use full jitter: uniform between zero and an exponentially
growing limit (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015). Example::

    >>> import random
    >>> 0 <= reconnect_delay(0, window_seconds=5.0, random=random.Random(1)) <= 5
    True
"""

from __future__ import annotations

from random import Random

__all__ = ["full_jitter", "reconnect_delay", "restart_delay"]


def full_jitter(attempt: int, *, base_seconds: float, cap_seconds: float, random: Random) -> float:
    """Return seconds to wait before ``attempt`` (0, 1, 2 …)."""
    return random.uniform(0, min(cap_seconds, base_seconds * 2 ** min(attempt, 30)))


def reconnect_delay(failures: int, *, window_seconds: float, random: Random) -> float:
    """Return seconds to wait before the next connect after ``failures`` in a row (0: the link was stable)."""
    if failures == 0:
        return random.uniform(0, window_seconds)
    return full_jitter(
        failures, base_seconds=max(window_seconds, 0.1), cap_seconds=max(10, 4 * window_seconds), random=random
    )


def restart_delay(crashes: int) -> float:
    """Return seconds to wait before a runner that crashed ``crashes`` times in a row is started again."""
    return min(30.0, 0.05 * 2**crashes) if crashes else 0.0

"""What a device costs when there are many of them: the same messages, from fleets of several sizes.

Each size gets a server, a broker and a database of its own, and all of them the same rate, so that a cost which grows
with the fleet shows as one that grows with the message. What a device costs is told at a message a minute. Example::

    figures = await scale(make_bench, sizes=(1000, 5000, 15000), per_second=5000, seconds=60)
    figures["cpu_growth"]                    # server CPU a message, at the largest size over that at the smallest
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from benchmarks.fleet.scenarios import Bench, Figures, connect, raw_broker, telemetry

__all__ = ["scale"]

_RAW_SECONDS = 10.0
_MESSAGES_AN_HOUR = 60
_CONNECTS_A_SECOND = 1000.0
_KEPT = ("per_second", "p50_ms", "p99_ms", "server_peak_bytes", "server_cpu_us_a_message", "database_bytes_a_message")


async def scale(
    make: Callable[[int], AbstractAsyncContextManager[Bench]], sizes: Sequence[int], per_second: float, seconds: float
) -> Figures:
    """Measure each size alone; figures of one size end in its number of devices."""
    figures: Figures = {}
    lost, peak, slowest = 0.0, 0.0, 0.0
    for size in sizes:
        async with make(size) as bench:
            connected = await connect(bench, _CONNECTS_A_SECOND)
            raw = await raw_broker(bench, per_second, min(seconds, _RAW_SECONDS))
            found = await telemetry(bench, per_second, seconds)
        lost += found["lost"] + found["unacknowledged"] + abs(found["miscounted"])
        peak, slowest = max(peak, found["server_peak_bytes"]), max(slowest, found["p99_ms"])
        own = {
            "connect_seconds": connected["connect_seconds"],
            "broker_bytes_a_device": connected["broker_bytes_a_device"],
            "cpu_seconds_a_device_hour": found["server_cpu_us_a_message"] / 1e6 * _MESSAGES_AN_HOUR,
            "p99_times_raw": found["p99_ms"] / raw["p99_ms"],
            **{name: found[name] for name in _KEPT},
        }
        print(size, json.dumps(own), file=sys.stderr, flush=True)
        figures |= {f"{name}_{size}": value for name, value in own.items()}
    small, large = min(sizes), max(sizes)
    return {
        "sizes": len(sizes),
        "largest": large,
        "lost": lost,
        "peak_bytes": peak,
        "p99_ms": slowest,
        "cpu_growth": _growth(figures, "server_cpu_us_a_message", small, large),
        "bytes_growth": _growth(figures, "database_bytes_a_message", small, large),
        **figures,
    }


def _growth(figures: Figures, name: str, small: int, large: int) -> float:
    """Return a cost at the largest size over that at the smallest."""
    return figures[f"{name}_{large}"] / max(figures[f"{name}_{small}"], 1e-9)

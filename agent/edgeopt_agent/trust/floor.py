"""What time it is at least: for devices whose clock begins in 1970, or anywhere.

The floor is the latest time that the fleet's own keys have stated (field ``x-edgeopt-signed-at`` of verified root and
timestamp metadata), and it goes on with the time since boot, which nobody sets. The device's clock can only say that
it is *later*. The floor is never raised by the device's clock or by file times, which come from it: a clock that once
ran ahead would otherwise lock the device out for good. A clock that is ahead makes metadata look expired, which is
refused with that reason until the clock is right.

The fleet's statement is bounded by the root's expiry, which offline keys sign, and is forgotten when the keys of the
timestamp change: so whoever stole that key and stated the year 2100 has no lasting effect. Pure. Example::

    now = time_at_least(floor, Reading(wall=3.0, boot="…", uptime=3.0))       # 1970: the floor, not the clock
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RELEASED", "Floor", "Reading", "advanced", "raised", "time_at_least"]

RELEASED = 1_793_491_200.0  # 2026-11-01: this code did not exist before; the floor of a device that knows nothing yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the device's clocks say: ``wall`` in seconds since 1970, ``uptime`` in seconds since the boot ``boot``."""

    wall: float
    boot: str
    uptime: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A time that had certainly passed when the device's clocks read (``boot``, ``uptime``).

    ``keys`` are the ids of the timestamp keys that stated it.
    """

    at: float = RELEASED
    boot: str = ""
    uptime: float = 0.0
    keys: tuple[str, ...] = ()


def advanced(floor: Floor, reading: Reading) -> Floor:
    """Return ``floor`` moved on by the time since boot; after another boot by nothing."""
    elapsed = max(0.0, reading.uptime - floor.uptime) if reading.boot and reading.boot == floor.boot else 0.0
    return Floor(at=floor.at + elapsed, boot=reading.boot, uptime=reading.uptime, keys=floor.keys)


def time_at_least(floor: Floor, reading: Reading) -> float:
    """Return the time to compare expiries with, in seconds since 1970."""
    return max(reading.wall, advanced(floor, reading).at)


def raised(floor: Floor, reading: Reading, stated: float, keys: tuple[str, ...]) -> Floor:
    """Return the floor after the timestamp keys ``keys`` stated the time ``stated``."""
    now = advanced(floor, reading)
    return Floor(at=max(now.at, stated), boot=now.boot, uptime=now.uptime, keys=keys)

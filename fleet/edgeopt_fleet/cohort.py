"""Which devices belong together: filters over tags, and the order in which a rollout reaches its devices.

Pure. It does not know which devices exist; they are arguments. Example::

    >>> matches({"site": "oslo"}, {"site": "oslo", "line": "2"})
    True
    >>> [len(wave) for wave in split_into_waves("v2", [f"cam-{i}" for i in range(10)], (20, 50, 100))]
    [2, 3, 5]
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Mapping, Sequence

__all__ = ["EVERYONE", "check_waves", "matches", "most_specific", "rank", "split_into_waves"]

EVERYONE = "all"  # the cohort that always exists


def matches(wanted: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Say whether a device with ``tags`` belongs to the cohort that wants ``wanted``; nothing wanted means all."""
    return all(tags.get(key) == value for key, value in wanted.items())


def rank(rollout: str, device: str) -> str:
    """Return where ``device`` stands in line: a hash, so that no device is always first and none changes place."""
    return hashlib.sha256(f"{rollout}\n{device}".encode()).hexdigest()


def check_waves(percents: Sequence[int]) -> tuple[int, ...]:
    """Return ``percents`` if they are cumulative percents: 1-100, each above the one before. Else ``ValueError``."""
    waves = tuple(percents)
    if not 1 <= len(waves) <= 20 or not all(1 <= percent <= 100 for percent in waves):
        raise ValueError(f"expected 1 to 20 waves of 1 to 100 percent, got {list(waves)}")
    if any(a >= b for a, b in itertools.pairwise(waves)):
        raise ValueError(f"waves are cumulative: expected each percent above the one before, got {list(waves)}")
    return waves


def split_into_waves(rollout: str, devices: Collection[str], percents: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """Return the devices of each wave, each device in at most one.

    ``percents`` are cumulative; shares round up. Every wave has a device as long as there are as many devices as
    waves; with fewer devices the last waves are empty. Which device comes when depends on the names only.
    """
    waves = check_waves(percents)
    line = sorted(devices, key=lambda device: rank(rollout, device))
    groups = []
    taken = 0
    for index, percent in enumerate(waves):
        later = len(waves) - 1 - index
        share = min(math.ceil(percent * len(line) / 100), len(line) - later)
        end = min(max(share, taken + 1), len(line))
        groups.append(tuple(line[taken:end]))
        taken = end
    return tuple(groups)


def most_specific(cohorts: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Return for each cohort the devices that no smaller cohort inside it covers.

    So a change at one site is told once, by that site, and not again by every cohort around it. Cohorts that
    overlap without one holding the other keep their common devices; of equal ones, :data:`EVERYONE` gives way.
    """
    own = {}
    for name, devices in cohorts.items():
        inner = [
            other
            for key, other in cohorts.items()
            if other < devices or (name == EVERYONE and key != name and other == devices)
        ]
        own[name] = devices.difference(*inner)
    return own

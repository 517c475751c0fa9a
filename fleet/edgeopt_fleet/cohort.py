"""Which devices belong together: filters over tags, and which of several cohorts a change is told of.

Pure. It does not know which devices exist; they are arguments. In which order a rollout reaches them is in
:mod:`edgeopt_fleet.rollout.waves`. Example::

    >>> matches({"site": "oslo"}, {"site": "oslo", "line": "2"})
    True
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["EVERYONE", "matches", "most_specific"]

EVERYONE = "all"  # the cohort that always exists


def matches(wanted: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    """Say whether a device with ``tags`` belongs to the cohort that wants ``wanted``; nothing wanted means all."""
    return all(tags.get(key) == value for key, value in wanted.items())


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

"""Which devices are meant: what a cohort saves, and what a list of devices is asked for.

Pure: a record that cannot be wrong; :mod:`edgeopt_fleet.store.filtering` turns it into SQL. All that is given
must hold. Example::

    DeviceFilter(tags={"site": "oslo"}, hardware=("aarch64-dotprod",), health=Health.OK)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "KEY_PATTERN",
    "MOST_TAGS",
    "RUNNING_PATTERN",
    "VALUE_PATTERN",
    "WORD_PATTERN",
    "DeviceFilter",
    "Health",
    "check_tags",
]


MOST_TAGS = 32
KEY_PATTERN = r'^[^\x00-\x1f\x7f-\x9f"\\=]{1,64}$'  # no control characters; quotes would end a path in JSON columns
VALUE_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]{0,128}$"
WORD_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]{1,128}$"
RUNNING_PATTERN = r"^(none|[0-9a-f]{4,64})$"


class Health(StrEnum):
    """How a device is, the worst that holds first."""

    REVOKED = "revoked"  # its identity was taken away
    OFFLINE = "offline"  # it is not connected
    FAILING = "failing"  # its newest update failed, was rejected or was rolled back
    OK = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFilter:
    """What must hold of a device; what is empty or None does not matter.

    ``hardware`` holds classes of which the device must have one, ``running`` the beginning of a bundle's digest, or
    ``none`` for devices that run nothing, ``state`` the state of its newest update.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    hardware: tuple[str, ...] = ()
    running: str | None = None
    agent_version: str | None = None
    state: str | None = None
    online: bool | None = None
    health: Health | None = None

    def __post_init__(self) -> None:
        check_tags(self.tags)
        if len(self.hardware) > MOST_TAGS:
            raise ValueError(f"hardware: expected at most {MOST_TAGS} classes, got {len(self.hardware)}")
        for name, words in (("hardware", self.hardware), ("agent_version", (self.agent_version,))):
            if not all(word is None or _fits(WORD_PATTERN, word) for word in words):
                raise ValueError(f"{name}: expected 1 to 128 characters, none of them a control character")
        if self.running is not None and not _fits(RUNNING_PATTERN, self.running):
            raise ValueError("running: expected 4 to 64 hex digits of a bundle's digest, or 'none'")


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Return ``tags`` when they may be a device's or a filter's. Raises ``ValueError``."""
    if len(tags) > MOST_TAGS:
        raise ValueError(f"expected at most {MOST_TAGS} tags, got {len(tags)}")
    if not all(_fits(KEY_PATTERN, key) for key in tags):
        raise ValueError("expected keys of 1-64 characters without control characters, quotes, backslashes and '='")
    if not all(_fits(VALUE_PATTERN, value) for value in tags.values()):
        raise ValueError("expected values of up to 128 characters, none of them a control character")
    return tags


def _fits(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None

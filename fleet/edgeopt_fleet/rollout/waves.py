"""Waves: which devices of a rollout come when.

Pure. The order within a wave is a hash of rollout and device: no device is always first, none changes its place when
others come or go. Percents and counts are cumulative: ``50%`` means *until half of all members have it*. Example::

    waves = (Wave.parse("tag:ring=canary"), Wave.parse("20%"), Wave.parse("100%"))
    assign("v2", {"cam-1": Candidate(tags={"ring": "canary"}, hardware="aarch64")}, waves)["cam-1"].wave    # 0
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["MAX_WAVES", "Candidate", "Place", "Wave", "WaveKind", "assign", "check_waves", "rank"]

MAX_WAVES = 20
_PERCENT = re.compile(r"(\d{1,3})%")
_COUNT = re.compile(r"\d{1,7}")


class WaveKind(StrEnum):
    """How a wave chooses its devices."""

    PERCENT = "percent"
    COUNT = "count"
    TAG = "tag"
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave: until ``value`` percent or devices have it, or all with the tag ``key=value``, or of a hardware class.

    Raises ``ValueError`` for what is none of these.
    """

    kind: WaveKind
    value: str

    def __post_init__(self) -> None:
        if self.kind is WaveKind.PERCENT and not (self.value.isdecimal() and 1 <= int(self.value) <= 100):
            raise ValueError(f"expected a wave of 1% to 100%, got {self.value[:20]!r}")
        if self.kind is WaveKind.COUNT and not (_COUNT.fullmatch(self.value) and int(self.value) >= 1):
            raise ValueError(f"expected a wave of 1 to 9999999 devices, got {self.value[:20]!r}")
        if self.kind is WaveKind.TAG and (not all(self.value.partition("=")) or len(self.value) > 300):
            raise ValueError(f"expected a wave as tag:key=value, got tag:{self.value[:40]!r}")
        if self.kind is WaveKind.HARDWARE and not 1 <= len(self.value) <= 200:
            raise ValueError("expected a wave as hardware:CLASS, like hardware:aarch64")

    @classmethod
    def parse(cls, text: str | int) -> Wave:
        """Read ``20%`` (or the number 20), ``5 devices``, ``tag:site=oslo`` or ``hardware:aarch64``."""
        if isinstance(text, int):
            return cls(WaveKind.PERCENT, str(text))
        text = text.strip()
        percent = _PERCENT.fullmatch(text)
        if percent:
            return cls(WaveKind.PERCENT, str(int(percent[1])))
        count, _, noun = text.partition(" ")
        if _COUNT.fullmatch(count) and noun in ("device", "devices"):
            return cls(WaveKind.COUNT, str(int(count)))
        kind, colon, value = text.partition(":")
        if colon and kind in (WaveKind.TAG, WaveKind.HARDWARE):
            return cls(WaveKind(kind), value)
        raise ValueError(f"expected a wave like 20%, '5 devices', tag:site=oslo or hardware:aarch64, got {text[:60]!r}")

    def __str__(self) -> str:
        if self.kind is WaveKind.PERCENT:
            return f"{self.value}%"
        if self.kind is WaveKind.COUNT:
            return f"{self.value} device{'' if self.value == '1' else 's'}"
        return f"{self.kind}:{self.value}"

    @property
    def percent(self) -> int | None:
        """The cumulative percent, if it is one."""
        return int(self.value) if self.kind is WaveKind.PERCENT else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What waves know of a device: its tags and its hardware class."""

    tags: Mapping[str, str] = field(default_factory=dict)
    hardware: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device stands: in which wave, and at which place in the line over all waves."""

    wave: int
    place: int


def rank(rollout: str, device: str) -> str:
    """Return where ``device`` stands in line: a hash, so that no device is always first and none changes place."""
    return hashlib.sha256(f"{rollout}\n{device}".encode()).hexdigest()


def check_waves(waves: Sequence[Wave]) -> tuple[Wave, ...]:
    """Return ``waves`` if there are 1 to 20 and percents and counts rise. Else ``ValueError``."""
    found = tuple(waves)
    if not 1 <= len(found) <= MAX_WAVES:
        raise ValueError(f"expected 1 to {MAX_WAVES} waves, got {len(found)}")
    if len(set(found)) != len(found):
        raise ValueError(f"expected each wave once, got {', '.join(map(str, found))}")
    for kind in (WaveKind.PERCENT, WaveKind.COUNT):
        values = [int(wave.value) for wave in found if wave.kind is kind]
        if any(a >= b for a, b in itertools.pairwise(values)):
            raise ValueError(f"waves are cumulative: expected each {kind} above the one before, got {values}")
    return found


def assign(rollout: str, candidates: Mapping[str, Candidate], waves: Sequence[Wave]) -> dict[str, Place]:
    """Return the place of each device that has one; a device is in at most one wave.

    Shares round up. A wave by percent or count has a device as long as enough are left for each later wave of these
    kinds. A tag or a hardware class takes whoever of it has no place yet; it may take nobody.
    """
    line = sorted(candidates, key=lambda device: rank(rollout, device))
    left = dict.fromkeys(line)
    places: dict[str, Place] = {}
    checked = check_waves(waves)
    for index, wave in enumerate(checked):
        later = sum(other.kind in (WaveKind.PERCENT, WaveKind.COUNT) for other in checked[index + 1 :])
        for device in _chosen(wave, candidates, list(left), later):
            del left[device]
            places[device] = Place(index, len(places))
    return places


def _chosen(wave: Wave, candidates: Mapping[str, Candidate], left: Sequence[str], later: int) -> Sequence[str]:
    """Return who of ``left`` (in line) belongs to ``wave``; ``later`` waves by number are still to come."""
    if wave.kind is WaveKind.TAG:
        key, _, value = wave.value.partition("=")
        return [device for device in left if candidates[device].tags.get(key) == value]
    if wave.kind is WaveKind.HARDWARE:
        return [device for device in left if candidates[device].hardware == wave.value]
    everyone = len(candidates)
    total = math.ceil(int(wave.value) * everyone / 100) if wave.kind is WaveKind.PERCENT else int(wave.value)
    wanted = min(total - (everyone - len(left)), len(left) - later)
    return left[: max(wanted, min(1, len(left)))]

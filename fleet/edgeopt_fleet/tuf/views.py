"""What the fleet's metadata look like to who asks for them. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Message", "RoleView", "Unsigned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """What people sign: the metadata in force, and the drafts that wait for signatures, as texts."""

    root: str
    targets: str
    root_draft: str | None
    targets_draft: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleView:
    """One role: its keys (id to whether the private half is on this server) and the metadata in force."""

    role: str
    keys: Mapping[str, bool]
    threshold: int
    version: int
    expires: float


@dataclass(frozen=True, slots=True)
class Message:
    """All metadata as one message, and the number of the change that it is up to."""

    change: int
    payload: bytes = field(repr=False)

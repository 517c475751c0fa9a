"""Tables: challengers that run beside champions, on which devices, and how they agreed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

__all__ = ["ShadowLookRow", "ShadowMemberRow", "ShadowRow", "ShadowServedRow"]


class ShadowRow(SQLModel, table=True):
    """A shadow without its members; ``policy`` is a record of :mod:`edgeopt_fleet.gate.shadow_evidence`."""

    __tablename__ = "shadow"

    name: str = Field(primary_key=True)
    bundle: str = Field(index=True)
    cohort: str
    share: float
    until: int
    at_once: int
    rows_each: int | None
    policy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    state: str = Field(index=True)
    reason: str = ""  # why it ended
    created_by: str
    created_at: float = Field(index=True)
    updated_at: float
    looked_rows: int = 0  # what had been compared at the last look, and how many devices had failed
    looked_failed: int = 0
    changed: int = Field(default=0, index=True)  # see edgeopt_fleet.store.changes


class ShadowMemberRow(SQLModel, table=True):
    """One device of one shadow: ``open`` while it is to run the challenger, ``pending`` while that is unpublished.

    ``offered`` stays once it was asked; ``state`` is what the device said last, ``news`` until the shadow was marked as
    changed by that. Its newest report stands at (``report_spool``, ``report_number``) among its reports.
    """

    __tablename__ = "shadow_member"
    __table_args__ = (
        Index("shadow_member_line", "shadow", "offered", "place"),
        Index("shadow_member_of_device", "device", "offered"),
    )

    shadow: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    place: int
    offered: bool = False
    open: bool = Field(default=False, index=True)
    pending: bool = Field(default=False, index=True)
    news: bool = Field(default=False, index=True)
    state: str | None = None
    detail: str = ""
    reported_at: int | None = None  # on the device's clock
    report_spool: int = 0
    report_number: int = 0


class ShadowServedRow(SQLModel, table=True):
    """All that one device compared for one shadow, as :mod:`edgeopt_fleet.shadowing` adds it up."""

    __tablename__ = "shadow_served"

    shadow: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    bundle: str
    windows: int = 0
    compared: int = 0
    agreed: int = 0
    incomparable: int = 0
    errors: int = 0
    squares: int = 0  # of the rows of each window, added up: how evenly they lie
    counts: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    classes: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class ShadowLookRow(SQLModel, table=True):
    """What one look at a shadow was told, and what was said: from it the verdict is computed again, byte for byte."""

    __tablename__ = "shadow_look"
    __table_args__ = (Index("shadow_look_of", "shadow", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    shadow: str
    number: int
    at: float
    code: str
    policy: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    evidence: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    verdict: bytes = Field(sa_column=Column(LargeBinary, nullable=False))

"""Tables: what devices sent, and what was added up from it."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from edgeopt_fleet.store.tables.room import WITH_ROOM

__all__ = ["AlertRow", "DriftRow", "ReportRow", "RollupRow", "ServedRow", "SpoolRow", "WindowRow"]


class SpoolRow(SQLModel, table=True):
    """One spool session of one device: which numbers are stored. The row's id orders sessions by arrival."""

    __tablename__ = "spool"
    __table_args__ = (UniqueConstraint("device", "session"), WITH_ROOM)

    id: int | None = Field(default=None, primary_key=True)
    device: str
    session: int
    upto: int = 0
    beyond: list[list[int]] = Field(default_factory=list, sa_column=Column(JSON, nullable=False))
    rows: int = 0
    errors: int = 0


class ReportRow(SQLModel, table=True):
    """One report of a device, as it came."""

    __tablename__ = "report"
    __table_args__ = (
        UniqueConstraint("device", "session", "number"),
        Index("report_of_device", "device", "id"),  # the newest first, a page at a time
    )

    id: int | None = Field(default=None, primary_key=True)
    device: str
    session: int
    number: int
    at: int  # on the device's clock
    job: str
    bundle: str
    state: str
    running: str | None
    result: str | None
    detail: str
    received_at: float


class WindowRow(SQLModel, table=True):
    """One profile window of a device, as it came; ``counts`` as :mod:`edgeopt_fleet.narrow` packs them.

    Rows are only ever put behind the others, whoever sent them, so that what a window costs does not grow with the
    table: numbers follow arrival (:class:`edgeopt_fleet.store.changes.Counter`), each row names its device's row before
    it, and there is no index besides (ADR 41). The spool's numbers keep duplicates out.
    """

    __tablename__ = "window"

    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    previous: int  # the device's window before this one, 0 for none; it may have become part of an hour
    device: str
    session: int
    number: int
    bundle: str
    variant: str
    start: int  # on the device's clock
    end: int  # on the device's clock
    rows: int
    errors: int
    counts: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    infrastructure: dict[str, float] = Field(sa_column=Column(JSON, nullable=False))
    received_at: float


class RollupRow(SQLModel, table=True):
    """What one device served on one bundle in an hour or a day: what is left of its windows."""

    __tablename__ = "rollup"
    __table_args__ = (Index("rollup_by_age", "seconds", "start"),)

    bundle: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    seconds: int = Field(primary_key=True)  # 3600 or 86400
    start: int = Field(primary_key=True)  # on the device's clock, see edgeopt_fleet.retention
    windows: int
    rows: int
    errors: int
    counts: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # as in window


class ServedRow(SQLModel, table=True):
    """All that one device served on one bundle, so that neither the gate nor a drift look scans windows."""

    __tablename__ = "served"
    __table_args__ = WITH_ROOM

    bundle: str = Field(primary_key=True)  # first: a drift look reads a bundle's devices
    device: str = Field(primary_key=True)
    windows: int = 0
    rows: int = 0
    errors: int = 0
    counts: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))  # see edgeopt_fleet.totals


class DriftRow(SQLModel, table=True):
    """How far one cohort has been looked at on one bundle, and how its features fared."""

    __tablename__ = "drift"

    cohort: str = Field(primary_key=True)
    bundle: str = Field(primary_key=True)
    last_window: int = 0
    members: str = ""  # SHA-256 of who belonged then
    base: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))  # what they had served by then
    features: dict[str, dict[str, int]] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


class AlertRow(SQLModel, table=True):
    """A drift alert."""

    __tablename__ = "alert"

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    cohort: str
    feature: str
    source: str
    bundle: str
    state: str = Field(index=True)
    changed: int = Field(default=0, index=True)
    opened_at: int
    last_seen: int
    psi: float
    p_value: float
    rows: int
    message: str

"""Tables: devices, their certificates, and cohorts of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, LargeBinary
from sqlmodel import Field, SQLModel

from edgeopt_fleet.store.tables.room import WITH_ROOM

__all__ = ["CertificateRow", "CohortRow", "DeviceRow"]


class DeviceRow(SQLModel, table=True):
    """A device: what it is, what it should run, and what it said last."""

    __tablename__ = "device"
    __table_args__ = WITH_ROOM

    id: str = Field(primary_key=True)
    tags: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    capabilities: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    machine: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))  # of its birth
    hardware: str = Field(default="", index=True)  # its class, see edgeopt_fleet.hardware
    malformed: int = 0  # messages that were no messages, and were not stored
    changed: int = Field(default=0, index=True)  # see edgeopt_fleet.store.changes; so below
    password_hash: str = ""  # where the broker takes passwords
    enrolled_at: int
    revoked_at: int | None = None
    online: bool = False
    boot: int = 0
    agent_version: str = ""
    running: str | None = None
    last_seen: int | None = None
    # What it should run; survives the rollout that said so.
    desired_job: str | None = None
    desired_bundle: str | None = None
    desired_bake_seconds: float = 0.0
    desired_not_before: int | None = None
    desired_window: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    desired_pending: bool = Field(default=False, index=True)  # to be published by whoever holds the connection
    # Its newest report, and where that stands among its reports: (spool's row, number).
    report_spool: int = 0
    report_number: int = 0
    job: str | None = None
    job_bundle: str | None = None
    state: str | None = None
    result: str | None = None
    detail: str = ""
    reported_at: int | None = None  # on the device's clock
    # The gauges of its newest window, and where that stands among its windows.
    gauges: dict[str, float] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    gauges_at: int | None = None  # on the device's clock
    gauges_spool: int = 0
    gauges_number: int = 0
    newest_window: int = 0  # the row of the window that came last
    windows: int = 0
    rows: int = 0
    errors: int = 0


class CertificateRow(SQLModel, table=True):
    """A certificate of a device; of its bearer only the SHA-256 is kept. Rows are never deleted.

    ``changed`` is the number of the last change of the device's identities, the same in all rows of a device.
    """

    __tablename__ = "certificate"

    id: int | None = Field(default=None, primary_key=True)
    serial: str = Field(unique=True)
    device: str = Field(index=True)
    public_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # DER
    public_key_sha256: str = Field(index=True)
    pem: str
    valid_from: int
    valid_until: int
    bearer_sha256: str = Field(index=True)
    token_sha256: str | None  # of the token that it was given for
    replaces: str | None = Field(index=True)  # the serial before it, when it was renewed
    revoked_at: int | None = None
    changed: int = Field(default=0, index=True)


class CohortRow(SQLModel, table=True):
    """A saved filter over devices."""

    __tablename__ = "cohort"

    name: str = Field(primary_key=True)
    tags: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    others: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))  # what is no tag

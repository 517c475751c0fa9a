"""The tables of the fleet's database.

Columns and indexes only; what may be in them is decided by the modules that write them. Times are seconds since
1970 on the server's clock unless a comment says otherwise.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

__all__ = [
    "AlertRow",
    "AnswerRow",
    "ApiKeyRow",
    "BaselineRow",
    "BundleRow",
    "CertificateRow",
    "ChangeRow",
    "CohortRow",
    "DeviceRow",
    "DraftRow",
    "DriftRow",
    "LeaseRow",
    "MemberRow",
    "MetadataRow",
    "ReportRow",
    "RolloutRow",
    "ServedRow",
    "SpoolRow",
    "TokenRow",
    "VerdictRow",
    "WindowRow",
]


class ApiKeyRow(SQLModel, table=True):
    """An operator's key; only its SHA-256 is kept."""

    __tablename__ = "api_key"

    sha256: str = Field(primary_key=True)
    name: str
    created_at: float


class TokenRow(SQLModel, table=True):
    """A token that enrols devices; only its SHA-256 is kept."""

    __tablename__ = "token"

    sha256: str = Field(primary_key=True)
    uses_left: int
    expires_at: int
    tags: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))


class DeviceRow(SQLModel, table=True):
    """A device: what it is, what it should run, and what it said last."""

    __tablename__ = "device"

    id: str = Field(primary_key=True)
    tags: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    capabilities: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    machine: dict[str, str] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))  # of its birth
    hardware: str = Field(default="", index=True)  # its class, see edgeopt_fleet.hardware
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
    windows: int = 0
    rows: int = 0
    errors: int = 0


class CertificateRow(SQLModel, table=True):
    """A certificate of a device; of its bearer only the SHA-256 is kept. Rows are never deleted."""

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


class CohortRow(SQLModel, table=True):
    """A saved filter over devices."""

    __tablename__ = "cohort"

    name: str = Field(primary_key=True)
    tags: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    others: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))  # what is no tag


class BundleRow(SQLModel, table=True):
    """A bundle; ``complete`` once all its blocks are here, ``counter`` once the targets keys have signed it."""

    __tablename__ = "bundle"

    digest: str = Field(primary_key=True)
    name: str
    version: str
    manifest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: float
    complete: bool = False
    counter: int | None = None
    profile: bytes | None = Field(default=None, sa_column=Column(LargeBinary))


class SpoolRow(SQLModel, table=True):
    """One spool session of one device: which numbers are stored. The row's id orders sessions by arrival."""

    __tablename__ = "spool"
    __table_args__ = (UniqueConstraint("device", "session"),)

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
    __table_args__ = (UniqueConstraint("device", "session", "number"),)

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
    """One profile window of a device, as it came."""

    __tablename__ = "window"
    __table_args__ = (UniqueConstraint("device", "session", "number"), Index("window_of_bundle", "bundle", "id"))

    id: int | None = Field(default=None, primary_key=True)
    device: str
    session: int
    number: int
    bundle: str
    variant: str
    start: int  # on the device's clock
    end: int  # on the device's clock
    rows: int
    errors: int
    cells: dict[str, list[int]] = Field(sa_column=Column(JSON, nullable=False))
    latency: list[int] = Field(sa_column=Column(JSON, nullable=False))
    infrastructure: dict[str, float] = Field(sa_column=Column(JSON, nullable=False))
    received_at: float


class ServedRow(SQLModel, table=True):
    """All that one device served on one bundle, so that the gate scans no windows."""

    __tablename__ = "served"

    device: str = Field(primary_key=True)
    bundle: str = Field(primary_key=True)
    windows: int = 0
    rows: int = 0
    errors: int = 0
    confidence_n: int = 0
    confidence_total: float = 0.0
    confidence_squares: float = 0.0


class BaselineRow(SQLModel, table=True):
    """A copy of ``served`` from the moment a rollout's current wave was exposed."""

    __tablename__ = "baseline"

    rollout: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    bundle: str = Field(primary_key=True)
    rows: int
    confidence_n: int
    confidence_total: float
    confidence_squares: float


class RolloutRow(SQLModel, table=True):
    """A rollout without its members; ``settled`` when nothing more can come of it."""

    __tablename__ = "rollout"

    name: str = Field(primary_key=True)
    bundle: str
    cohort: str
    waves: list[int] = Field(sa_column=Column(JSON, nullable=False))
    policy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    state: str
    wave: int
    wave_started_at: float
    step_started_at: float
    created_at: float
    updated_at: float
    settled: bool = Field(default=False, index=True)
    changed: int = Field(default=0, index=True)


class MemberRow(SQLModel, table=True):
    """One device of one rollout; ``active`` while the rollout is."""

    __tablename__ = "member"

    rollout: str = Field(primary_key=True)
    device: str = Field(primary_key=True, index=True)
    active: bool = True
    wave: int
    previous: str | None
    attempt: int
    state: str | None
    outcome: str | None
    returned: bool
    result: str | None
    detail: str
    failure: str
    running: str | None
    online: bool


class VerdictRow(SQLModel, table=True):
    """One verdict of the gate that was news."""

    __tablename__ = "verdict"

    id: int | None = Field(default=None, primary_key=True)
    rollout: str = Field(index=True)
    at: float
    wave: int
    verdict: str
    reasons: list[str] = Field(sa_column=Column(JSON, nullable=False))
    key: list[str] = Field(sa_column=Column(JSON, nullable=False))


class DriftRow(SQLModel, table=True):
    """How far one cohort's windows of one bundle have been looked at, and how its features fared."""

    __tablename__ = "drift"

    cohort: str = Field(primary_key=True)
    bundle: str = Field(primary_key=True)
    last_window: int = 0
    features: dict[str, dict[str, int]] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


class LeaseRow(SQLModel, table=True):
    """Which process does the work of a role; ``epoch`` rises with every change of hands, and the row stays."""

    __tablename__ = "lease"

    role: str = Field(primary_key=True)
    owner: str = ""  # nobody
    epoch: int = 0
    expires_at: float = 0.0  # on the database's clock
    note: str = ""  # what the owner says of itself, such as whether it hears the broker


class MetadataRow(SQLModel, table=True):
    """TUF metadata in force; of roots every version is kept, of the other roles the newest."""

    __tablename__ = "metadata"

    role: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class DraftRow(SQLModel, table=True):
    """Root or targets that wait for signatures."""

    __tablename__ = "draft"

    role: str = Field(primary_key=True)
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


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


class ChangeRow(SQLModel, table=True):
    """The number of the newest change; one row, see :mod:`edgeopt_fleet.store.changes`."""

    __tablename__ = "change"

    id: int = Field(default=1, primary_key=True)
    number: int = 0


class AnswerRow(SQLModel, table=True):
    """What was answered to one Idempotency-Key; see :mod:`edgeopt_fleet.store.idempotency`."""

    __tablename__ = "answer"

    key: str = Field(primary_key=True)  # a hash of who asked and the key
    request_sha256: str
    created_at: float = Field(index=True)
    status: int | None = None  # none while it is being worked on
    sealed: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))  # encrypted

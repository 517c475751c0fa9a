"""The tables of the fleet's database.

Columns and indexes only; what may be in them is decided by the modules that write them. Times are seconds since
1970 on the server's clock unless a comment says otherwise. A new column needs the revision made anew, or a new one:
``python -m tools.migration``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, LargeBinary, String, UniqueConstraint
from sqlmodel import AutoString, Field, SQLModel

__all__ = [
    "AlertRow",
    "AnswerRow",
    "ApiKeyRow",
    "AuditHeadRow",
    "AuditRow",
    "BaselineRow",
    "BundleRow",
    "CertificateRow",
    "ChangeRow",
    "CohortRow",
    "DeviceRow",
    "DraftRow",
    "DriftRow",
    "EvidenceRow",
    "LeaseRow",
    "MemberRow",
    "MetadataRow",
    "ReportRow",
    "RolloutRow",
    "RollupRow",
    "ServedRow",
    "SpoolRow",
    "TokenRow",
    "UserRow",
    "VerdictRow",
    "WindowRow",
]


class UserRow(SQLModel, table=True):
    """A person, or a program that acts for one, with a role. Rows are never deleted: the audit log names them."""

    __tablename__ = "person"  # "user" is a word of SQL

    name: str = Field(primary_key=True)
    role: str
    created_at: int
    revoked_at: int | None = None


class ApiKeyRow(SQLModel, table=True):
    """A key of a user; only its SHA-256 is kept, and the beginning by which people recognise it."""

    __tablename__ = "api_key"

    sha256: str = Field(primary_key=True)
    user: str = Field(index=True, sa_column_kwargs={"name": "person"})
    prefix: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None


class AuditRow(SQLModel, table=True):
    """One entry of the audit log; rows are never changed and never deleted."""

    __tablename__ = "audit"

    number: int = Field(primary_key=True)
    at: int  # milliseconds
    actor: str = Field(index=True)
    via: str
    operation: str = Field(index=True)
    subject: str = Field(index=True)
    before: str
    after: str
    detail: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    previous: str
    sha256: str


class AuditHeadRow(SQLModel, table=True):
    """The end of the audit log: one row, whose lock lets transactions append one after the other."""

    __tablename__ = "audit_head"

    id: int = Field(primary_key=True)
    number: int
    sha256: str


class TokenRow(SQLModel, table=True):
    """A token that enrols devices; only its SHA-256 is kept, and its beginning is the token's id."""

    __tablename__ = "token"

    sha256: str = Field(primary_key=True)
    uses: int
    uses_left: int
    created_at: int
    created_by: str
    expires_at: int
    revoked_at: int | None = None
    cohort: str = ""  # whose tags the devices get, besides ``tags``
    tags: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))


class DeviceRow(SQLModel, table=True):
    """A device: what it is, what it should run, and what it said last."""

    __tablename__ = "device"

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
    """One profile window of a device, as it came; ``counts`` as :mod:`edgeopt_fleet.narrow` packs them."""

    __tablename__ = "window"
    __table_args__ = (
        Index("window_of_bundle", "bundle", "id"),
        Index("window_of_device", "device", "id"),
    )  # the spool's numbers keep duplicates out

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
    """All that one device served on one bundle, so that the gate scans no windows."""

    __tablename__ = "served"

    device: str = Field(primary_key=True)
    bundle: str = Field(primary_key=True)
    windows: int = 0
    rows: int = 0
    errors: int = 0
    counts: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))  # see edgeopt_fleet.totals


class BaselineRow(SQLModel, table=True):
    """A copy of what is compared later from ``served``, of the moment a rollout's current wave was exposed."""

    __tablename__ = "baseline"

    rollout: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    bundle: str = Field(primary_key=True)
    rows: int
    errors: int
    counts: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # see edgeopt_fleet.totals


class RolloutRow(SQLModel, table=True):
    """A rollout without its members; ``settled`` when nothing more can come of it.

    ``execution``, ``pacing`` and ``tally`` are records of :mod:`edgeopt_fleet.rollout`. Reports with a change number up
    to ``seen`` have been looked at.
    """

    __tablename__ = "rollout"

    name: str = Field(primary_key=True)
    bundle: str
    cohort: str
    waves: list[str] = Field(sa_column=Column(JSON, nullable=False))
    policy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    execution: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    state: str = Field(index=True)
    wave: int
    started_at: float
    wave_started_at: float
    step_started_at: float
    pacing: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    tally: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    reason: str
    approval: bool
    created_by: str
    approved_by: str
    approval_reason: str
    created_at: float = Field(index=True)
    updated_at: float
    seen: int
    next_look_at: float
    settled: bool = Field(default=False, index=True)
    changed: int = Field(default=0, index=True)


class MemberRow(SQLModel, table=True):
    """One device of one rollout; ``active`` while the rollout is, ``open`` while something may still come of it.

    ``held`` says that it has everything and waits for the time at which it may switch; ``to_offer`` that it waits for
    its turn, at its ``place`` in the line.
    """

    __tablename__ = "member"
    __table_args__ = (
        Index("member_line", "rollout", "to_offer", "wave", "place"),
        Index("member_late", "rollout", "deadline"),
    )

    rollout: str = Field(primary_key=True)
    device: str = Field(primary_key=True, index=True)
    active: bool = True
    open: bool = False
    to_offer: bool = True
    held: bool = False
    wave: int
    place: int
    bundle: str
    previous: str | None
    distrusted: str | None
    attempt: int
    tries: int
    again: bool
    withdrawn: bool
    taken: bool
    state: str | None
    outcome: str | None
    kind: str | None
    returned: bool
    result: str | None
    detail: str
    failure: str
    running: str | None
    online: bool
    deadline: float | None


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


class EvidenceRow(SQLModel, table=True):
    """What one look of the gate was told, and what it said: from it the verdict is computed again, byte for byte.

    ``look`` is what it came to, if it compared anything; ``code`` names the rules that judged.
    """

    __tablename__ = "evidence"

    id: int | None = Field(default=None, primary_key=True)
    rollout: str = Field(index=True)
    wave: int
    at: float
    look: str | None
    code: str
    policy: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    evidence: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    verdict: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


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


def _make_portable() -> None:
    """Let all columns mean the same on SQLite and PostgreSQL.

    Integers of devices go up to 2**53, SQLite's always do, but it counts row ids in INTEGER columns only. Text is
    compared by its code points, as SQLite and Python do, not by the rules of the server's language.
    """
    integer = BigInteger().with_variant(Integer(), "sqlite")
    text = String().with_variant(String(collation="C"), "postgresql")
    for table in SQLModel.metadata.tables.values():
        for column in table.columns:
            if type(column.type) is Integer:
                column.type = integer
            elif isinstance(column.type, AutoString | String):
                column.type = text


_make_portable()

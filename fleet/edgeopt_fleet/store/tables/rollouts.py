"""Tables: bundles, rollouts, and what the gate saw and said."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

__all__ = ["ArmStartRow", "BaselineRow", "BundleRow", "EvidenceRow", "MemberRow", "RolloutRow", "VerdictRow"]


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


class RolloutRow(SQLModel, table=True):
    """A rollout without its members; ``settled`` when nothing more can come of it.

    ``execution``, ``trial``, ``pacing`` and ``tally`` are records of :mod:`edgeopt_fleet.rollout`. Reports with a
    change number up to ``seen`` have been looked at.
    """

    __tablename__ = "rollout"

    name: str = Field(primary_key=True)
    bundle: str
    cohort: str
    waves: list[str] = Field(sa_column=Column(JSON, nullable=False))
    policy: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    execution: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    trial: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    state: str = Field(index=True)
    wave: int
    started_at: float
    wave_started_at: float
    step_started_at: float
    pacing: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    tally: dict[str, int] = Field(sa_column=Column(JSON, nullable=False))
    reason: str
    fault: str
    kept: str
    approval: bool
    created_by: str
    approved_by: str
    approval_reason: str
    created_at: float = Field(index=True)
    updated_at: float
    seen: int
    next_look_at: float
    looked_early: bool  # the gate looked last while the wave only baked
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
    arm: str
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


class BaselineRow(SQLModel, table=True):
    """A copy of what is compared later from ``served``, of the moment a rollout's current wave was exposed."""

    __tablename__ = "baseline"

    rollout: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    bundle: str = Field(primary_key=True)
    rows: int
    errors: int
    counts: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # see edgeopt_fleet.totals


class ArmStartRow(SQLModel, table=True):
    """A copy of what a device of a rollout with two arms had served on its arm's bundle when its wave was exposed."""

    __tablename__ = "arm_start"

    rollout: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    rows: int
    errors: int
    counts: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # see edgeopt_fleet.totals


class VerdictRow(SQLModel, table=True):
    """One verdict of the gate that was news; on one ``arm``, if there are two."""

    __tablename__ = "verdict"

    id: int | None = Field(default=None, primary_key=True)
    rollout: str = Field(index=True)
    at: float
    wave: int
    arm: str
    verdict: str
    reasons: list[str] = Field(sa_column=Column(JSON, nullable=False))
    key: list[str] = Field(sa_column=Column(JSON, nullable=False))


class EvidenceRow(SQLModel, table=True):
    """What one look of the gate was told, and what it said: from it the verdict is computed again, byte for byte.

    ``look`` is what it came to, if it compared anything; ``code`` names the rules that judged. ``arm`` is the one that
    was looked at, or ``B-A`` when both arms were compared with each other.
    """

    __tablename__ = "evidence"

    id: int | None = Field(default=None, primary_key=True)
    rollout: str = Field(index=True)
    wave: int
    arm: str
    at: float
    look: str | None
    code: str
    policy: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    evidence: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    verdict: bytes = Field(sa_column=Column(LargeBinary, nullable=False))

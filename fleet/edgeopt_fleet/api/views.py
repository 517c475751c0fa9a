"""What the API takes and gives, as pydantic models with examples.

Shapes only: how they are filled from the stores stands beside each as ``of``. Example::

    RolloutView.of(rollouts.report("v2")).model_dump()
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edgeopt_fleet.cohort import check_waves
from edgeopt_fleet.gate import Outcome, Policy
from edgeopt_fleet.rollout import Member, Rollout, State
from edgeopt_fleet.store.bundles import PostedBundle
from edgeopt_fleet.store.registry import Cohort
from edgeopt_fleet.store.rollouts import RolloutReport
from edgeopt_fleet.store.tables import AlertRow, BundleRow, DeviceRow, SpoolRow, VerdictRow

__all__ = [
    "AlertList",
    "AlertView",
    "BundleDetail",
    "BundleList",
    "BundleView",
    "CohortList",
    "CohortRequest",
    "CohortView",
    "DeviceList",
    "DeviceView",
    "Health",
    "MessageList",
    "Name",
    "Problem",
    "RolloutList",
    "RolloutRequest",
    "RolloutView",
    "SpoolView",
    "TokenRequest",
    "TokenView",
]

_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("expected a name of 1-48 letters, digits, '.', '_' or '-', beginning with a letter or digit")
    return value


def _check_tags(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > 32 or any(not 0 < len(k) <= 64 or len(v) > 128 for k, v in tags.items()):
        raise ValueError("expected at most 32 tags, keys of 1-64 and values of up to 128 characters")
    return tags


Name = Annotated[str, AfterValidator(_check_name)]
Tags = Annotated[dict[str, str], AfterValidator(_check_tags)]


class _Request(BaseModel):
    """A body: unknown fields are refused, so that a misspelt option is not ignored."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An error (RFC 9457); ``detail`` says what was expected, what came and what to do."""

    type: str = "about:blank"
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["rollout v2 is succeeded: it cannot be 'paused' now"])


class Health(BaseModel):
    """Whether the server answers, and whether it hears its devices."""

    status: str = Field(examples=["ok"])
    broker: str = Field(examples=["connected"], description="connected or disconnected")


class TokenRequest(_Request):
    """What a token is to allow."""

    uses: int = Field(default=1, ge=1, le=100_000)
    expires_in_seconds: int = Field(default=86400, ge=1, le=366 * 86400)
    tags: Tags = Field(default_factory=dict, examples=[{"site": "oslo"}])


class TokenView(BaseModel):
    """A token, shown this once."""

    token: str = Field(examples=["kX3…"])
    expires_at: int = Field(examples=[1764086400])


class UpdateView(BaseModel):
    """Where a device's newest update is."""

    job: str = Field(examples=["v2.1.cam-7"])
    bundle: str | None = Field(examples=[_DIGEST])
    state: str | None = Field(examples=["confirmed"])
    result: str | None = Field(examples=["runs_new"])
    detail: str = ""
    at: int | None = Field(examples=[1764000000], description="on the device's clock")


class TelemetryTotals(BaseModel):
    """All that a device has sent."""

    windows: int
    rows: int
    errors: int


class DeviceView(BaseModel):
    """One device."""

    id: str = Field(examples=["cam-7"])
    tags: dict[str, str] = Field(examples=[{"site": "oslo"}])
    online: bool
    boot: int
    running: str | None = Field(examples=[_DIGEST])
    agent_version: str = Field(examples=["0.1.0"])
    capabilities: dict[str, Any]
    enrolled_at: int
    last_seen: int | None
    update: UpdateView | None
    telemetry: TelemetryTotals

    @classmethod
    def of(cls, row: DeviceRow) -> Self:
        """Show one device's row."""
        update = None
        if row.job is not None:
            update = UpdateView(
                job=row.job,
                bundle=row.job_bundle,
                state=row.state,
                result=row.result,
                detail=row.detail,
                at=row.reported_at,
            )
        return cls(
            id=row.id,
            tags=row.tags,
            online=row.online,
            boot=row.boot,
            running=row.running,
            agent_version=row.agent_version,
            capabilities=row.capabilities,
            enrolled_at=row.enrolled_at,
            last_seen=row.last_seen,
            update=update,
            telemetry=TelemetryTotals(windows=row.windows, rows=row.rows, errors=row.errors),
        )


class DeviceList(BaseModel):
    """A page of devices; ``next`` is the cursor of the next page."""

    items: list[DeviceView]
    next: str | None = None


class SpoolView(BaseModel):
    """What is stored of one spool session of a device."""

    session: int = Field(examples=[1764000000123])
    stored: int = Field(description="how many numbered messages are stored")
    upto: int = Field(description="all numbers up to this one are stored")
    rows: int
    errors: int

    @classmethod
    def of(cls, row: SpoolRow) -> Self:
        """Show one spool's row."""
        stored = row.upto + sum(last - first + 1 for first, last in row.beyond)
        return cls(session=row.session, stored=stored, upto=row.upto, rows=row.rows, errors=row.errors)


class MessageList(BaseModel):
    """All spool sessions of a device, oldest first."""

    items: list[SpoolView]


class CohortRequest(_Request):
    """The tags that a device must have to belong."""

    tags: Tags = Field(default_factory=dict, examples=[{"site": "oslo"}])


class CohortView(BaseModel):
    """A cohort and the devices that belong to it now."""

    name: str = Field(examples=["oslo"])
    tags: dict[str, str] = Field(examples=[{"site": "oslo"}])
    devices: list[str] = Field(examples=[["cam-1", "cam-7"]])

    @classmethod
    def of(cls, cohort: Cohort) -> Self:
        """Show one cohort."""
        return cls(name=cohort.name, tags=dict(cohort.tags), devices=list(cohort.devices))


class CohortList(BaseModel):
    """All cohorts."""

    items: list[CohortView]


class BundleView(BaseModel):
    """A bundle that was posted."""

    digest: str = Field(examples=[_DIGEST])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["2"])
    missing_blocks: list[str] = Field(description="upload these, then post the manifest again")

    @classmethod
    def of(cls, posted: PostedBundle) -> Self:
        """Show a posted bundle."""
        return cls(digest=posted.digest, name=posted.name, version=posted.version, missing_blocks=list(posted.missing))


class BundleDetail(BaseModel):
    """A bundle that is kept; ``complete`` when it is signed and can be rolled out."""

    digest: str = Field(examples=[_DIGEST])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["2"])
    created_at: int = Field(examples=[1764000000])
    complete: bool

    @classmethod
    def of(cls, row: BundleRow) -> Self:
        """Show one bundle's row."""
        return cls(
            digest=row.digest,
            name=row.name,
            version=row.version,
            created_at=int(row.created_at),
            complete=row.signature is not None,
        )


class BundleList(BaseModel):
    """All bundles, newest first."""

    items: list[BundleDetail]


class PolicyModel(_Request):
    """When a wave passes."""

    failure_threshold: float = Field(default=0.1, description="share of executed devices that may fail")
    bake_seconds: float = Field(default=60.0, description="how long a device must run without fault to confirm")
    minimum_executed: int = Field(default=1, description="devices of a wave that must have executed")
    minimum_rows: int = Field(default=50, description="rows that each executed device must have served")
    max_confidence_drop: float = Field(default=0.1, description="absolute fall of mean confidence that is allowed")
    step_timeout_seconds: float = Field(default=3600.0, description="a wave that holds longer pauses the rollout")


def _check_policy(model: PolicyModel) -> PolicyModel:
    Policy(**model.model_dump())
    return model


def _check_wave_list(waves: list[int]) -> list[int]:
    return list(check_waves(waves))


class RolloutRequest(_Request):
    """A rollout to create."""

    name: Name = Field(examples=["digits-2"])
    bundle: str = Field(examples=[_DIGEST[:12]], description="digest or unique prefix")
    cohort: str = Field(default="all", examples=["all"])
    waves: Annotated[list[int], AfterValidator(_check_wave_list)] = Field(
        default=[20, 50, 100], description="cumulative percents"
    )
    policy: Annotated[PolicyModel, AfterValidator(_check_policy)] = Field(default_factory=PolicyModel)
    start: bool = True


class WaveView(BaseModel):
    """One wave: its devices, and how many of them ended how."""

    percent: int = Field(examples=[20])
    devices: list[str] = Field(examples=[["cam-3"]])
    executed: int
    confirmed: int
    failed: int
    state: str = Field(examples=["running"], description="waiting, running, passed or failed")


class MemberView(BaseModel):
    """One device of a rollout; ``state`` is a device state, or waiting or offered."""

    device: str = Field(examples=["cam-3"])
    wave: int = Field(examples=[0])
    state: str = Field(examples=["baking"])
    result: str | None = None
    detail: str = ""
    running: str | None = None


class VerdictView(BaseModel):
    """What the gate said of a wave, and why."""

    at: int = Field(examples=[1764000000])
    wave: int
    verdict: str = Field(examples=["hold"])
    reasons: list[str] = Field(examples=[["1 online devices have not executed yet: cam-3"]])

    @classmethod
    def of(cls, row: VerdictRow) -> Self:
        """Show one verdict's row."""
        return cls(at=int(row.at), wave=row.wave, verdict=row.verdict, reasons=row.reasons)


class RolloutView(BaseModel):
    """A rollout as it stands."""

    name: str = Field(examples=["digits-2"])
    bundle: str = Field(examples=[_DIGEST])
    bundle_name: str = Field(examples=["digits 2"])
    cohort: str = Field(examples=["all"])
    state: str = Field(examples=["running"])
    wave: int = Field(description="index of the current wave, from 0")
    waves: list[WaveView]
    members: list[MemberView]
    verdicts: list[VerdictView]
    policy: PolicyModel
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, report: RolloutReport) -> Self:
        """Show one rollout."""
        record = report.rollout
        return cls(
            name=record.name,
            bundle=record.bundle,
            bundle_name=report.bundle_name,
            cohort=record.cohort,
            state=record.state,
            wave=record.wave,
            waves=[_wave(record, index) for index in range(len(record.waves))],
            members=[_member(member) for member in record.members.values()],
            verdicts=[VerdictView.of(row) for row in report.verdicts],
            policy=PolicyModel.model_validate(record.policy, from_attributes=True),
            created_at=int(record.created_at),
            updated_at=int(record.updated_at),
        )


def _wave(record: Rollout, index: int) -> WaveView:
    members = [member for member in record.members.values() if member.wave == index]
    return WaveView(
        percent=record.waves[index],
        devices=[member.device for member in members],
        executed=sum(member.outcome is not None for member in members),
        confirmed=sum(member.outcome is Outcome.CONFIRMED for member in members),
        failed=sum(member.outcome is Outcome.FAILED for member in members),
        state=_wave_state(record, index),
    )


def _wave_state(record: Rollout, index: int) -> str:
    if record.state is State.DRAFT or index > record.wave:
        return "waiting"
    if index < record.wave or record.state is State.SUCCEEDED:
        return "passed"
    return "running" if record.state in (State.RUNNING, State.PAUSED) else "failed"


def _member(member: Member) -> MemberView:
    state = "waiting" if not member.exposed else "offered" if member.state is None else str(member.state)
    if member.withdrawn and member.returned:
        state = "rolled_back"
    return MemberView(
        device=member.device,
        wave=member.wave,
        state=state,
        result=None if member.result is None else str(member.result),
        detail=member.detail,
        running=member.running,
    )


class RolloutList(BaseModel):
    """All rollouts, newest first."""

    items: list[RolloutView]


class AlertView(BaseModel):
    """A drift alert. ``psi`` is debiased: about 0 without drift, 0.2 and more when it matters."""

    id: int
    kind: str = Field(examples=["drift"])
    cohort: str = Field(examples=["oslo"])
    feature: str = Field(examples=["brightness"])
    source: str = Field(examples=["input"])
    bundle: str = Field(examples=[_DIGEST])
    state: str = Field(examples=["open"])
    opened_at: int
    last_seen: int
    psi: float = Field(examples=[1.4])
    p_value: float = Field(examples=[1e-30])
    rows: int = Field(examples=[412])
    message: str = Field(examples=["oslo: brightness: PSI 1.40, p 1.0e-30 on 412 rows; above 0.8 went from 6% to 71%"])

    @classmethod
    def of(cls, row: AlertRow) -> Self:
        """Show one alert's row."""
        return cls.model_validate(row, from_attributes=True)


class AlertList(BaseModel):
    """Drift alerts, newest first."""

    items: list[AlertView]

"""What the API takes and gives, as pydantic models with examples; rollouts have a module of their own.

Shapes only: how they are filled from the stores stands beside each as ``of``. Example::

    DeviceView.of(registry.device("cam-7")).model_dump()
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edgeopt_fleet.store.bundles import PostedBundle
from edgeopt_fleet.store.registry import Cohort
from edgeopt_fleet.store.tables import AlertRow, BundleRow, DeviceRow, ReportRow, SpoolRow

__all__ = [
    "DIGEST_EXAMPLE",
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
    "ReportView",
    "SpoolView",
    "StrictRequest",
    "TelemetryTotals",
    "TokenRequest",
    "TokenView",
    "UpdateView",
]

DIGEST_EXAMPLE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
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


class StrictRequest(BaseModel):
    """A body: unknown fields are refused, so that a misspelt option is not ignored."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An error (RFC 9457); ``detail`` says what was expected, what came and what to do."""

    type: str = Field(examples=["urn:edgeopt:problem:conflict"], description="which kind; docs/api.md lists them")
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["rollout v2 is succeeded: it cannot be 'paused' now"])


class Health(BaseModel):
    """Whether the server answers, and whether it hears its devices."""

    status: str = Field(examples=["ok"])
    broker: str = Field(examples=["connected"], description="connected or disconnected")


class TokenRequest(StrictRequest):
    """What a token is to allow."""

    uses: int = Field(default=1, ge=1, le=100_000)
    expires_in_seconds: int = Field(default=86400, ge=1, le=366 * 86400)
    tags: Tags = Field(default_factory=dict, examples=[{"site": "oslo"}])


class TokenView(BaseModel):
    """A token, shown this once."""

    token: str = Field(examples=["eo1.kX3….q1Z…"])
    expires_at: int = Field(examples=[1764086400])


class UpdateView(BaseModel):
    """Where a device's newest update is."""

    job: str = Field(examples=["v2.1.cam-7"])
    bundle: str | None = Field(examples=[DIGEST_EXAMPLE])
    state: str | None = Field(examples=["confirmed"])
    result: str | None = Field(examples=["runs_new"])
    detail: str = ""
    at: int | None = Field(examples=[1764000000], description="on the device's clock")


class TelemetryTotals(BaseModel):
    """All that a device has sent."""

    windows: int
    rows: int
    errors: int


class ReportView(BaseModel):
    """One report of a device, as it came."""

    at: int = Field(examples=[1764000000], description="on the device's clock")
    job: str = Field(examples=["v2.1.cam-7"])
    bundle: str = Field(examples=[DIGEST_EXAMPLE])
    state: str = Field(examples=["baking"])
    result: str | None = None
    detail: str = ""

    @classmethod
    def of(cls, row: ReportRow) -> Self:
        """Show one report's row."""
        return cls.model_validate(row, from_attributes=True)


class DeviceView(BaseModel):
    """One device."""

    id: str = Field(examples=["cam-7"])
    tags: dict[str, str] = Field(examples=[{"site": "oslo"}])
    online: bool
    boot: int
    running: str | None = Field(examples=[DIGEST_EXAMPLE])
    agent_version: str = Field(examples=["0.1.0"])
    capabilities: dict[str, Any]
    enrolled_at: int
    revoked_at: int | None = Field(description="when its identity was taken away")
    last_seen: int | None
    update: UpdateView | None
    telemetry: TelemetryTotals
    gauges: dict[str, float] = Field(
        examples=[{"temperature_celsius": 61.5, "disk_free_bytes": 2.1e9}], description="of the newest window"
    )
    gauges_at: int | None = Field(description="on the device's clock")
    reports: list[ReportView] = Field(description="the last ten, newest first; only where one device is asked for")

    @classmethod
    def of(cls, row: DeviceRow, reports: Sequence[ReportRow] = ()) -> Self:
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
            revoked_at=row.revoked_at,
            last_seen=row.last_seen,
            update=update,
            telemetry=TelemetryTotals(windows=row.windows, rows=row.rows, errors=row.errors),
            gauges=row.gauges,
            gauges_at=row.gauges_at,
            reports=[ReportView.of(report) for report in reports],
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


class CohortRequest(StrictRequest):
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

    digest: str = Field(examples=[DIGEST_EXAMPLE])
    name: str = Field(examples=["digits"])
    version: str = Field(examples=["2"])
    missing_blocks: list[str] = Field(description="upload these, then post the manifest again")

    @classmethod
    def of(cls, posted: PostedBundle) -> Self:
        """Show a posted bundle."""
        return cls(digest=posted.digest, name=posted.name, version=posted.version, missing_blocks=list(posted.missing))


class BundleDetail(BaseModel):
    """A bundle that is kept; ``complete`` when it is signed and can be rolled out."""

    digest: str = Field(examples=[DIGEST_EXAMPLE])
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
            complete=row.complete and row.counter is not None,
        )


class BundleList(BaseModel):
    """All bundles, newest first."""

    items: list[BundleDetail]


class AlertView(BaseModel):
    """A drift alert. ``psi`` is debiased: about 0 without drift, 0.2 and more when it matters."""

    id: int
    kind: str = Field(examples=["drift"])
    cohort: str = Field(examples=["oslo"])
    feature: str = Field(examples=["brightness"])
    source: str = Field(examples=["input"])
    bundle: str = Field(examples=[DIGEST_EXAMPLE])
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

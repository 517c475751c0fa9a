"""What the API gives about devices and takes about cohorts, as pydantic models with examples.

Shapes only. Example::

    DeviceView.of(registry.device("cam-7")).model_dump()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, FromText, Next, StrictRequest, Tags
from edgeopt_fleet.filters import MOST_TAGS, RUNNING_PATTERN, WORD_PATTERN, DeviceFilter, Health
from edgeopt_fleet.store.cohorts import SavedFilter
from edgeopt_fleet.store.filtering import health_of
from edgeopt_fleet.store.tables import DeviceRow, ReportRow, SpoolRow, WindowRow

__all__ = [
    "CohortList",
    "CohortRequest",
    "CohortView",
    "DeviceList",
    "DeviceView",
    "MessageList",
    "ReportList",
    "ReportView",
    "SpoolView",
    "TagsModel",
    "TelemetryTotals",
    "UpdateView",
    "WindowList",
    "WindowView",
    "Word",
]


Word = Annotated[str, Field(pattern=WORD_PATTERN)]


class UpdateView(BaseModel):
    """Where a device's newest update is."""

    job: str = Field(examples=["v2.1.cam-7"])
    bundle: str | None = Field(examples=[DIGEST_EXAMPLE])
    state: str | None = Field(examples=["confirmed"])
    result: str | None = Field(examples=["runs_new"])
    detail: str = Field(default="", examples=["waits 1800 s until it may switch"])
    at: int | None = Field(examples=[1764000000], description="on the device's clock")


class TelemetryTotals(BaseModel):
    """All that a device has sent."""

    windows: int = Field(examples=[120])
    rows: int = Field(examples=[48012], description="inferences that answered")
    errors: int = Field(examples=[0], description="inferences that did not")
    malformed: int = Field(examples=[0], description="messages that were no messages; they were not stored")


class ReportView(BaseModel):
    """One report of a device, as it came."""

    session: int = Field(examples=[1764000000123], description="of the device's spool")
    number: int = Field(examples=[7], description="in that session")
    at: int = Field(examples=[1764000000], description="on the device's clock")
    job: str = Field(examples=["v2.1.cam-7"])
    bundle: str = Field(examples=[DIGEST_EXAMPLE])
    state: str = Field(examples=["baking"])
    result: str | None = Field(default=None, examples=["runs_new"])
    detail: str = Field(default="", examples=["waits 1800 s until it may switch"])

    @classmethod
    def of(cls, row: ReportRow) -> Self:
        """Show one report's row."""
        return cls.model_validate(row, from_attributes=True)


class DeviceView(BaseModel):
    """One device."""

    id: str = Field(examples=["cam-7"])
    tags: dict[str, str] = Field(examples=[{"site": "oslo"}])
    hardware: str = Field(
        examples=["aarch64-dotprod"], description="its class: the tag `hardware`, or what it computes with"
    )
    health: Health = Field(examples=["ok"])
    online: bool = Field(examples=[True])
    boot: int = Field(examples=[12], description="how often its agent has started")
    running: str | None = Field(examples=[DIGEST_EXAMPLE])
    agent_version: str = Field(examples=["0.1.0"])
    capabilities: dict[str, Any] = Field(examples=[{"arch": "aarch64", "features": ["dotprod", "neon"], "cores": 4}])
    machine: dict[str, str] = Field(
        examples=[{"model": "Raspberry Pi 5", "kernel": "6.6.51"}], description="what it says of itself"
    )
    enrolled_at: int = Field(examples=[1763900000])
    revoked_at: int | None = Field(examples=[None], description="when its identity was taken away")
    last_seen: int | None = Field(examples=[1764000000])
    update: UpdateView | None
    telemetry: TelemetryTotals
    gauges: dict[str, float] = Field(
        examples=[{"temperature_celsius": 61.5, "disk_free_bytes": 2.1e9}], description="of the newest window"
    )
    gauges_at: int | None = Field(examples=[1764000000], description="on the device's clock")
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
            hardware=row.hardware,
            health=health_of(row),
            online=row.online,
            boot=row.boot,
            running=row.running,
            agent_version=row.agent_version,
            capabilities=row.capabilities,
            machine=row.machine,
            enrolled_at=row.enrolled_at,
            revoked_at=row.revoked_at,
            last_seen=row.last_seen,
            update=update,
            telemetry=TelemetryTotals.model_validate(row, from_attributes=True),
            gauges=row.gauges,
            gauges_at=row.gauges_at,
            reports=[ReportView.of(report) for report in reports],
        )


class DeviceList(BaseModel):
    """A page of devices, by id."""

    items: list[DeviceView]
    next: Next = None


class ReportList(BaseModel):
    """A page of a device's reports, newest first."""

    items: list[ReportView]
    next: Next = None


class WindowView(BaseModel):
    """One profile window of a device, without its counts."""

    session: int = Field(examples=[1764000000123])
    number: int = Field(examples=[8])
    bundle: str = Field(examples=[DIGEST_EXAMPLE])
    variant: str = Field(examples=["int8"])
    start: int = Field(examples=[1764000000], description="on the device's clock")
    end: int = Field(examples=[1764000060], description="on the device's clock")
    rows: int = Field(examples=[412])
    errors: int = Field(examples=[0])
    infrastructure: dict[str, float] = Field(examples=[{"temperature_celsius": 61.5}])
    received_at: float = Field(examples=[1764000061.25])

    @classmethod
    def of(cls, row: WindowRow) -> Self:
        """Show one window's row."""
        return cls.model_validate(row, from_attributes=True)


class WindowList(BaseModel):
    """A page of a device's profile windows, newest first; old ones may have been rolled up."""

    items: list[WindowView]
    next: Next = None


class TagsModel(StrictRequest):
    """The tags of a device."""

    tags: Tags = Field(examples=[{"site": "oslo", "line": "2"}])


class SpoolView(BaseModel):
    """What is stored of one spool session of a device."""

    session: int = Field(examples=[1764000000123])
    stored: int = Field(examples=[131], description="how many numbered messages are stored")
    upto: int = Field(examples=[128], description="all numbers up to this one are stored")
    rows: int = Field(examples=[48012], description="inferences that answered")
    errors: int = Field(examples=[3], description="inferences that did not")

    @classmethod
    def of(cls, row: SpoolRow) -> Self:
        """Show one spool's row."""
        stored = row.upto + sum(last - first + 1 for first, last in row.beyond)
        return cls(session=row.session, stored=stored, upto=row.upto, rows=row.rows, errors=row.errors)


class MessageList(BaseModel):
    """All spool sessions of a device, oldest first; it begins one when its disk was erased."""

    items: list[SpoolView]


class CohortRequest(StrictRequest):
    """What must hold of a device for it to belong; nothing given means all devices."""

    tags: Tags = Field(default_factory=dict, examples=[{"site": "oslo"}])
    hardware: list[Word] = Field(
        default_factory=list, max_length=MOST_TAGS, examples=[["aarch64-dotprod"]], description="one of these classes"
    )
    running: str | None = Field(
        default=None,
        pattern=RUNNING_PATTERN,
        examples=[DIGEST_EXAMPLE[:12]],
        description="beginning of the bundle's digest that it runs, or `none`",
    )
    agent_version: Word | None = Field(default=None, examples=["0.1.0"])
    state: Annotated[DeviceState | None, FromText] = Field(
        default=None, examples=["confirmed"], description="of its newest update"
    )
    online: bool | None = Field(default=None, examples=[True])
    health: Annotated[Health | None, FromText] = Field(default=None, examples=["ok"])

    def wanted(self) -> DeviceFilter:
        """Return the filter."""
        return DeviceFilter(**self.model_dump() | {"hardware": tuple(self.hardware)})


class CohortView(BaseModel):
    """A cohort as it was saved. Who belongs to it now: `GET /api/v1/devices?cohort=<name>`."""

    name: str = Field(examples=["oslo"])
    tags: dict[str, str] = Field(examples=[{"site": "oslo"}])
    hardware: list[str] = Field(examples=[["aarch64-dotprod"]])
    running: str | None = Field(examples=[DIGEST_EXAMPLE[:12]])
    agent_version: str | None = Field(examples=["0.1.0"])
    state: str | None = Field(examples=["confirmed"])
    online: bool | None = Field(examples=[True])
    health: Health | None

    @classmethod
    def of(cls, saved: SavedFilter) -> Self:
        """Show one cohort."""
        wanted = saved.wanted
        return cls(
            name=saved.name,
            tags=dict(wanted.tags),
            hardware=list(wanted.hardware),
            running=wanted.running,
            agent_version=wanted.agent_version,
            state=wanted.state,
            online=wanted.online,
            health=wanted.health,
        )


class CohortList(BaseModel):
    """A page of cohorts by name, the one of all devices first."""

    items: list[CohortView]
    next: Next = None

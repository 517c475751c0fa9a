"""What the API takes and gives about rollouts, as pydantic models with examples.

Shapes only. Example::

    RolloutView.of(rollouts.report("v2")).model_dump()
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edgeopt_contract.windows import Window
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, Name, StrictRequest
from edgeopt_fleet.cohort import check_waves
from edgeopt_fleet.gate import Outcome, Policy
from edgeopt_fleet.rollout import Member, Rollout, State
from edgeopt_fleet.store.rollouts import RolloutReport
from edgeopt_fleet.store.tables import VerdictRow

__all__ = [
    "MemberView",
    "PolicyModel",
    "RolloutList",
    "RolloutRequest",
    "RolloutView",
    "VerdictView",
    "WaveView",
    "WindowModel",
]


class WindowModel(StrictRequest):
    """When devices may switch: from ``start`` to ``end`` in their local time; no days means every day."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    start: str = Field(examples=["02:00"])
    end: str = Field(examples=["04:00"], description="an end before the start is on the next day")
    days: list[str] = Field(default=[], examples=[["sat", "sun"]])


class PolicyModel(StrictRequest):
    """When a wave passes."""

    failure_threshold: float = Field(default=0.1, description="share of executed devices that may fail")
    bake_seconds: float = Field(default=60.0, description="how long a device must run without fault to confirm")
    minimum_executed: int = Field(default=1, description="devices of a wave that must have executed")
    minimum_rows: int = Field(default=50, description="rows that each executed device must have served")
    max_confidence_drop: float = Field(default=0.1, description="absolute fall of mean confidence that is allowed")
    step_timeout_seconds: float = Field(default=3600.0, description="a wave that holds longer pauses the rollout")
    not_before: int | None = Field(default=None, examples=[1764000000], description="devices switch no sooner")
    window: WindowModel | None = Field(default=None, description="devices switch only inside")

    def policy(self) -> Policy:
        """Return what is asked for. Raises ``ValueError`` for what cannot be."""
        values = self.model_dump()
        if self.window is not None:
            values["window"] = Window(start=self.window.start, end=self.window.end, days=tuple(self.window.days))
        return Policy(**values)


def _check_policy(model: PolicyModel) -> PolicyModel:
    model.policy()
    return model


def _check_wave_list(waves: list[int]) -> list[int]:
    return list(check_waves(waves))


class RolloutRequest(StrictRequest):
    """A rollout to create."""

    name: Name = Field(examples=["digits-2"])
    bundle: str = Field(examples=[DIGEST_EXAMPLE[:12]], description="digest or unique prefix")
    cohort: str = Field(default="all", examples=["all"])
    waves: Annotated[list[int], AfterValidator(_check_wave_list)] = Field(
        default=[20, 50, 100], description="cumulative percents"
    )
    policy: Annotated[PolicyModel, AfterValidator(_check_policy)] = Field(default_factory=PolicyModel)
    start: bool = True
    no_recall: bool = Field(
        default=False, description="also when the bundle's signature does not permit devices to go back"
    )


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
    detail: str = Field(default="", description="of the newest report")
    failure: str = Field(default="", description="why the update failed here; stays when the device was sent back")
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
    bundle: str = Field(examples=[DIGEST_EXAMPLE])
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
        failure=member.failure,
        running=member.running,
    )


class RolloutList(BaseModel):
    """All rollouts, newest first."""

    items: list[RolloutView]

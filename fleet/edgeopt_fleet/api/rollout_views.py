"""What the API takes and gives about rollouts, as pydantic models with examples.

Shapes only. Example::

    RolloutView.of(rollouts.report("v2")).model_dump()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from edgeopt_fleet.api.arm_views import ArmModel, ArmView, ObservationModel
from edgeopt_fleet.api.rollout_rules import ExecutionModel, PolicyModel, check_execution, check_policy
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, Name, Next, StrictRequest
from edgeopt_fleet.rollout import (
    Count,
    Member,
    Rollout,
    State,
    Trial,
    Wave,
    check_waves,
    forecast_seconds,
)
from edgeopt_fleet.store.rollout_reports import RolloutReport
from edgeopt_fleet.store.rollouts import Planned
from edgeopt_fleet.store.tables import VerdictRow

__all__ = [
    "MemberView",
    "PlannedView",
    "RolloutList",
    "RolloutRequest",
    "RolloutView",
    "VerdictView",
    "WaveView",
    "check_wave_list",
]


_REASON = "3 of 25 executed devices failed in this wave (12%, at most 10% allowed)"


def check_wave_list(waves: list[int | str]) -> list[int | str]:
    """Return ``waves`` if they can be. Raises ``ValueError``."""
    check_waves([Wave.parse(wave) for wave in waves])
    return waves


class RolloutRequest(StrictRequest):
    """A rollout to create."""

    name: Name = Field(examples=["digits-2"])
    bundle: str | None = Field(
        default=None, examples=[DIGEST_EXAMPLE[:12]], description="digest or unique prefix; this, or two arms"
    )
    arms: list[ArmModel] = Field(
        default=[], max_length=2, description="two bundles side by side instead of one, A and B in this order"
    )
    observation: ObservationModel | None = Field(default=None, description="of two arms; all defaults without it")
    cohort: str = Field(default="all", examples=["all"])
    waves: Annotated[list[int | str], AfterValidator(check_wave_list)] = Field(
        default=[20, 50, 100],
        examples=[["tag:ring=canary", "20%", "100%"]],
        description="percents (20 or `20%`) and counts (`5 devices`) are cumulative; `tag:key=value` and "
        "`hardware:class` take all such devices",
    )
    policy: Annotated[PolicyModel, AfterValidator(check_policy)] = Field(default_factory=PolicyModel)
    execution: Annotated[ExecutionModel, AfterValidator(check_execution)] = Field(default_factory=ExecutionModel)
    start: bool = True
    approval: bool = Field(default=False, description="somebody else must approve it before it starts")
    no_recall: bool = Field(
        default=False, description="also when the bundle's signature does not permit devices to go back"
    )

    @model_validator(mode="after")
    def _bundle_or_arms(self) -> Self:
        """Hold that there is one bundle, or two arms that can be."""
        if (self.bundle is None) == (not self.arms):
            raise ValueError("expected a bundle, or two arms, and not both")
        if self.observation is not None and not self.arms:
            raise ValueError("expected arms with an observation")
        self.trial()
        return self

    def trial(self) -> Trial | None:
        """Return the two arms, if there are two. Raises ``ValueError`` for what cannot be."""
        return (self.observation or ObservationModel()).trial(self.arms) if self.arms else None

    def wave_values(self) -> tuple[Wave, ...]:
        """Return the waves."""
        return tuple(Wave.parse(wave) for wave in self.waves)


class WaveView(BaseModel):
    """One wave: how many devices it has, and how many of them ended how; in lists without their names."""

    wave: str = Field(examples=["20%"])
    percent: int | None = Field(examples=[20], description="if it is a share")
    members: int = Field(examples=[25])
    devices: list[str] = Field(examples=[["cam-3"]])
    notified: int = Field(examples=[25], description="were offered the bundle")
    executed: int = Field(examples=[21], description="came to an end, well or not")
    confirmed: int = Field(examples=[20])
    failed: int = Field(examples=[1])
    failures: dict[str, int] = Field(examples=[{"timed_out": 1}], description="by kind")
    returned: int = Field(examples=[0], description="went back to what they ran before")
    state: str = Field(examples=["running"], description="waiting, running, passed or failed")


class MemberView(BaseModel):
    """One device of a rollout; ``state`` is a device state, or waiting, offered or taken (by another rollout)."""

    device: str = Field(examples=["cam-3"])
    wave: int = Field(examples=[0])
    arm: str = Field(default="", examples=["A"], description="of two")
    state: str = Field(examples=["baking"])
    result: str | None = Field(default=None, examples=["runs_old_restored"])
    detail: str = Field(default="", examples=["waits 1800 s until it may switch"], description="of the newest report")
    failure: str = Field(
        default="",
        examples=["self-test after activation: too slow: expected a golden input within 20000 µs, got 31250 µs"],
        description="why the update failed here; stays when the device was sent back",
    )
    failure_type: str | None = Field(default=None, examples=["timed_out"])
    tries: int = Field(default=0, description="how often it was asked in the present direction")
    running: str | None = Field(default=None, examples=[DIGEST_EXAMPLE])


class VerdictView(BaseModel):
    """What the gate said of a wave, and why."""

    at: int = Field(examples=[1764000000])
    wave: int = Field(examples=[0])
    arm: str = Field(default="", examples=["A"], description="that it is about, of two")
    verdict: str = Field(examples=["hold"])
    reasons: list[str] = Field(examples=[["1 online devices have not executed yet: cam-3"]])

    @classmethod
    def of(cls, row: VerdictRow) -> Self:
        """Show one verdict's row."""
        return cls(at=int(row.at), wave=row.wave, arm=row.arm, verdict=row.verdict, reasons=row.reasons)


class RolloutView(BaseModel):
    """A rollout as it stands. In lists without members, and with the newest verdict only."""

    name: str = Field(examples=["digits-2"])
    bundle: str = Field(examples=[DIGEST_EXAMPLE], description="of two arms, the first one's")
    bundle_name: str = Field(examples=["digits 2"])
    arms: list[ArmView] = Field(default=[], description="two, or none")
    observation: ObservationModel | None = Field(default=None, description="of two arms")
    fault: str = Field(default="", examples=["B"], description="the arm or arms that were rolled back")
    kept: str = Field(default="", examples=["A"], description="what was decided after the end: A, B or both")
    cohort: str = Field(examples=["all"])
    state: str = Field(examples=["running"])
    wave: int = Field(examples=[0], description="index of the current wave, from 0")
    waves: list[WaveView]
    members: list[MemberView]
    verdicts: list[VerdictView]
    policy: PolicyModel
    execution: ExecutionModel
    reason: str = Field(default="", examples=[_REASON], description="of the last step that nobody ordered")
    approval: bool = Field(default=False, description="it needs, or needed, to be approved")
    created_by: str = Field(default="", examples=["alice"])
    approved_by: str = Field(default="", examples=["bob"], description="who approved or denied it")
    approval_reason: str = Field(default="", examples=["tested on the bench in Oslo"])
    created_at: int = Field(examples=[1764000000])
    updated_at: int = Field(examples=[1764000600])

    @classmethod
    def of(cls, report: RolloutReport) -> Self:
        """Show one rollout."""
        record = report.rollout
        return cls(
            name=record.name,
            bundle=record.bundle,
            bundle_name=report.bundle_name,
            arms=ArmView.all_of(report),
            observation=None if record.trial is None else ObservationModel.of(record.trial),
            fault=record.fault,
            kept=record.kept,
            cohort=record.cohort,
            state=record.state,
            wave=record.wave,
            waves=[_wave(record, index, report.members.values()) for index in range(len(record.waves))],
            members=[_member(member) for member in report.members.values()],
            verdicts=[VerdictView.of(row) for row in report.verdicts],
            policy=PolicyModel.model_validate(record.policy, from_attributes=True, strict=False),
            execution=ExecutionModel.of(record.execution),
            reason=record.reason,
            approval=record.approval,
            created_by=record.created_by,
            approved_by=record.approved_by,
            approval_reason=record.approval_reason,
            created_at=int(record.created_at),
            updated_at=int(record.updated_at),
        )


def _wave(record: Rollout, index: int, members: Iterable[Member]) -> WaveView:
    tally, wave = record.tally, record.waves[index]
    failed = {kind: number for kind, number in tally.failed(index).items() if number}
    confirmed = tally.of(index, Count.CONFIRMED)
    return WaveView(
        wave=str(wave),
        percent=wave.percent,
        members=tally.of(index, Count.MEMBERS),
        devices=[member.device for member in members if member.wave == index],
        notified=tally.of(index, Count.NOTIFIED),
        executed=confirmed + sum(failed.values()),
        confirmed=confirmed,
        failed=sum(failed.values()),
        failures={str(kind): number for kind, number in failed.items()},
        returned=tally.of(index, Count.RETURNED),
        state=_wave_state(record, index),
    )


def _wave_state(record: Rollout, index: int) -> str:
    if index > record.wave or not record.started_at:
        return "waiting"
    if index < record.wave or record.state in (State.OBSERVING, State.SUCCEEDED):
        return "passed"
    return "running" if record.state in (State.RUNNING, State.PAUSED) else "failed"


def _member(member: Member) -> MemberView:
    state = "waiting" if not member.exposed else "offered" if member.state is None else str(member.state)
    if member.withdrawn and member.returned:
        state = "rolled_back"
    if member.taken and member.outcome is None:
        state = "taken"
    return MemberView(
        device=member.device,
        wave=member.wave,
        arm=member.arm,
        state=state,
        result=None if member.result is None else str(member.result),
        detail=member.detail,
        failure=member.failure,
        failure_type=None if member.kind is None else str(member.kind),
        tries=member.tries,
        running=member.running,
    )


class RolloutList(BaseModel):
    """Rollouts, newest first."""

    items: list[RolloutView]
    next: Next = None


class PlannedView(BaseModel):
    """What a rollout would do; nothing was written, and no device hears of it."""

    rollout: RolloutView
    problems: list[str] = Field(
        examples=[["there is a rollout 'digits-2' already; names are never used twice"]],
        description="why it would be refused; empty when it would not",
    )
    superseded: dict[str, int] = Field(
        examples=[{"digits-1": 3}], description="rollouts of lower priority, and how many devices they would lose"
    )
    offline: list[str] = Field(examples=[["cam-9"]], description="would find the offer when they return")
    starts: str = Field(examples=["at once"], description="at once, after approval, or when its time has come")
    notified_after_seconds: list[float] = Field(
        examples=[[60.0, 300.0]],
        description="for each wave, how long after the start its last device is offered the bundle at the earliest, "
        "by the rate alone and without waiting for the gate",
    )

    @classmethod
    def of(cls, planned: Planned) -> Self:
        """Show one."""
        record = planned.rollout
        members = {member.device: member for member in planned.members}
        report = RolloutReport(rollout=record, bundle_names=planned.bundle_names, members=members, verdicts=())
        at = record.execution.start_at
        return cls(
            rollout=RolloutView.of(report),
            problems=[str(problem) for problem in planned.problems],
            superseded=dict(planned.superseded),
            offline=sorted(planned.offline),
            starts="after approval" if record.approval else "at once" if at is None else f"at {at}",
            notified_after_seconds=forecast_seconds(record),
        )

"""Routes: what the gate said of a rollout and why, and whether it would say so again."""

from __future__ import annotations

import math
from typing import Annotated, Self

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from edgeopt_fleet.api.arm_views import ComparedView
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.rollouts import RolloutName
from edgeopt_fleet.api.services import Services, services_of
from edgeopt_fleet.gate import Finding
from edgeopt_fleet.gate.replaying import Replayed
from edgeopt_fleet.problems import InvalidError, NotFoundError
from edgeopt_fleet.store.evidence import CODE

__all__ = ["ExplanationView", "FindingView", "LookView", "ReplayView", "router"]

router = APIRouter(tags=["rollouts"])

Most = Annotated[int, Query(ge=1, le=500, description="the newest so many looks")]
Change = Annotated[str, Field(pattern=r"^[a-z_]{1,40}=[A-Za-z0-9_.,+-]{0,80}$")]


class FindingView(BaseModel):
    """One metric of one group, which became worse by ``estimate``: surely by ``lower``, at most by ``upper``."""

    metric: str = Field(examples=["confidence"])
    group: str = Field(examples=[""], description="a hardware class; empty for the whole wave")
    standing: str = Field(examples=["fine"], description="worse, fine, unknown or unmeasured")
    estimate: float | None = Field(examples=[0.001], description="latency: the logarithm of the ratio")
    lower: float | None = Field(examples=[-0.002])
    upper: float | None = Field(examples=[0.004])
    allowed: float = Field(examples=[0.01])
    devices: int = Field(examples=[25])
    controls: int = Field(examples=[475])
    decides: bool = Field(examples=[True], description="false for what is only shown")

    @classmethod
    def of(cls, finding: Finding) -> Self:
        """Show one finding; what is not known is null."""
        bounds = {name: getattr(finding, name) for name in ("estimate", "lower", "upper")}
        return cls(
            metric=finding.metric,
            group=finding.group,
            standing=finding.standing,
            allowed=finding.allowed,
            devices=finding.devices,
            controls=finding.controls,
            decides=finding.decides,
            **{name: value if math.isfinite(value) else None for name, value in bounds.items()},
        )


class LookView(BaseModel):
    """One look of the gate. ``look`` is what it came to; null when there was nothing to compare."""

    at: float = Field(examples=[1764000000.0])
    wave: int = Field(examples=[0])
    arm: str = Field(default="", examples=["A"], description="that was looked at, of two")
    number: int = Field(examples=[1], description="of the looks of its wave that compared something")
    look: str | None = Field(examples=["successful"])
    decision: str = Field(examples=["promote"])
    reasons: list[str] = Field(examples=[["0 of 25 executed devices failed in this wave (0%, at most 10% allowed)"]])
    findings: list[FindingView]
    same: bool = Field(
        examples=[True],
        description="judged again from the stored evidence, the verdict is the stored one, byte for byte",
    )
    code: str = Field(examples=["gate-1"], description="the rules that judged")

    @classmethod
    def of(cls, replayed: Replayed) -> Self:
        """Show one look as it is judged now."""
        verdict, stored = replayed.verdict, replayed.stored
        return cls(
            at=stored.at,
            wave=stored.wave,
            arm=stored.arm,
            number=verdict.number,
            look=verdict.look,
            decision=verdict.decision,
            reasons=[reason.text for reason in verdict.reasons],
            findings=[FindingView.of(finding) for finding in verdict.findings],
            same=replayed.same,
            code=stored.code,
        )


class ExplanationView(BaseModel):
    """The newest looks of the gate at a rollout, oldest first; and how its two arms compared, if it has two."""

    items: list[LookView]
    comparisons: list[ComparedView]


class ReplayView(BaseModel):
    """The newest looks, judged again. ``same`` when every verdict is the stored one; ``code`` judges now."""

    same: bool = Field(examples=[True])
    code: str = Field(examples=["gate-1"])
    what_if: dict[str, str] = Field(examples=[{"max_latency_increase": "0.02"}], description="changes of the policy")
    items: list[LookView]
    comparisons: list[ComparedView] = Field(description="of two arms, made again as they were")


@router.get(
    "/rollouts/{name}/explanation",
    operation_id="explainRollout",
    summary="Explain a rollout's verdicts",
    responses=problems(NotFoundError),
)
async def explain_rollout(request: Request, name: RolloutName, most: Most = 50) -> ExplanationView:
    """Show what the gate found at each look, with reasons in words."""
    services = services_of(request)
    found = await services.serial.read(services.looks.explain, name, most)
    return ExplanationView(items=[LookView.of(one) for one in found], comparisons=await _compared(services, name))


@router.get(
    "/rollouts/{name}/replay",
    operation_id="replayRollout",
    summary="Judge a rollout's looks again",
    responses=problems(NotFoundError, InvalidError),
)
async def replay_rollout(
    request: Request,
    name: RolloutName,
    most: Most = 500,
    what_if: Annotated[list[Change] | None, Query(examples=[["max_latency_increase=0.02"]])] = None,
) -> ReplayView:
    """Compute every verdict again from the stored evidence; under another policy, if ``what_if`` changes one."""
    services = services_of(request)
    changes = {field: value for field, _, value in (change.partition("=") for change in what_if or ())}
    found = await services.serial.read(services.looks.replay, name, changes, most)
    items = [LookView.of(one) for one in found]
    compared = await _compared(services, name)
    same = all(item.same for item in items) and all(one.same for one in compared)
    return ReplayView(same=same, code=CODE, what_if=changes, items=items, comparisons=compared)


async def _compared(services: Services, name: str) -> list[ComparedView]:
    """Return the comparisons of a rollout's arms; none where there are no two."""
    return [ComparedView.of(one) for one in await services.serial.read(services.looks.comparisons, name)]

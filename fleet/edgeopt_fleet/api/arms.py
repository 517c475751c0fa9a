"""Routes: how two arms of a rollout compare, and what somebody decides about them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, Field

from edgeopt_fleet.api.arm_views import ComparisonView
from edgeopt_fleet.api.etags import IfMatch
from edgeopt_fleet.api.idempotency import IdempotentRoute, answer_once
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.rollout_views import RolloutView, check_wave_list
from edgeopt_fleet.api.rollouts import RolloutName
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import Name, StrictRequest
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.problems import ConflictError, NotFoundError, PreconditionFailedError
from edgeopt_fleet.rollout import Wave
from edgeopt_fleet.store.rollout_reports import RolloutReport
from edgeopt_fleet.store.rollouts import Plan

__all__ = ["ConclusionRequest", "ConclusionView", "router"]

router = APIRouter(tags=["rollouts"], route_class=IdempotentRoute)


class ConclusionRequest(StrictRequest):
    """Which arm is kept. With one of them its bundle goes to the rest of the cohort, as an ordinary rollout."""

    keep: Literal["A", "B", "both"] = Field(examples=["B"], description="both: every device stays as it is")
    rollout: Name = Field(examples=["digits-rest"], description="name of the rollout to the rest")
    waves: Annotated[list[int | str], AfterValidator(check_wave_list)] = Field(
        default=[20, 50, 100], examples=[["50%", "100%"]], description="of the devices that do not run the bundle yet"
    )
    start: bool = True


class ConclusionView(BaseModel):
    """What was decided, and the rollout that follows from it, if there is one."""

    kept: str = Field(examples=["B"])
    rollout: RolloutView | None = Field(description="null when no device has to change")

    @classmethod
    def of(cls, kept: str, report: RolloutReport | None) -> Self:
        """Show one."""
        return cls(kept=kept, rollout=None if report is None else RolloutView.of(report))


@router.get(
    "/rollouts/{name}/comparison",
    operation_id="compareRollout",
    summary="Compare a rollout's two arms",
    responses=problems(NotFoundError, ConflictError),
)
async def compare_rollout(request: Request, name: RolloutName) -> ComparisonView:
    """Show how the arms compare, once the observation is over, and how far it is until then; 409 without arms."""
    services = services_of(request)
    record, rows = await services.serial.read(services.looks.progress, name)
    found = await services.serial.read(services.looks.comparisons, name)
    return ComparisonView.of(record, rows, found, services.clock())


@router.post(
    "/rollouts/{name}/conclude",
    operation_id="concludeRollout",
    summary="Decide between a rollout's two arms",
    response_model=ConclusionView,
    responses=problems(NotFoundError, ConflictError, PreconditionFailedError),
)
async def conclude_rollout(request: Request, name: RolloutName, body: ConclusionRequest, match: IfMatch) -> Response:
    """Keep an arm: its bundle goes to the devices of the cohort that run something else, under the same rules.

    Approval and rights are those of any rollout. 409 before the end, the second time, and for an arm that harmed.
    """
    services = services_of(request)
    changed: set[str] = set()

    def decide() -> ConclusionView:
        now = services.clock()
        waves = tuple(Wave.parse(wave) for wave in body.waves)
        frame = Plan(name=body.rollout, bundle="", cohort="", waves=waves, policy=Policy(), approval=services.four_eyes)
        rest = services.rollouts.conclude(
            name, frame, body.keep, now, lambda report: match.check(RolloutView.of(report))
        )
        if rest is None:
            return ConclusionView.of(body.keep, None)
        services.rollouts.create(rest, now)
        if body.start:
            changed.update(services.rollouts.start(rest.name, now))
        return ConclusionView.of(body.keep, services.rollouts.report(rest.name))

    response = await answer_once(request, decide)
    await services.worker.announce(changed)
    return response

"""Routes: four eyes on a rollout. Somebody else than its creator lets it go, or says why not."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import Field

from edgeopt_fleet.acting import Actor
from edgeopt_fleet.api.access import actor_of
from edgeopt_fleet.api.etags import IfMatch, Match
from edgeopt_fleet.api.idempotency import IdempotentRoute
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.rollout_views import RolloutView
from edgeopt_fleet.api.rollouts import RolloutName, carry_out_order
from edgeopt_fleet.api.views import StrictRequest
from edgeopt_fleet.problems import ConflictError, ForbiddenError, NotFoundError, PreconditionFailedError
from edgeopt_fleet.rollout import Event
from edgeopt_fleet.store.rollout_reports import RolloutReport
from edgeopt_fleet.store.rollouts import Check

__all__ = ["ApprovalRequest", "DenialRequest", "router"]

router = APIRouter(tags=["rollouts"], route_class=IdempotentRoute)

_REFUSALS = problems(ForbiddenError, NotFoundError, ConflictError, PreconditionFailedError)
_LONGEST_REASON = 500


class ApprovalRequest(StrictRequest):
    """What is said with an approval."""

    reason: str = Field(default="", max_length=_LONGEST_REASON, examples=["tested on the bench in Oslo"])


class DenialRequest(StrictRequest):
    """Why a rollout must not go."""

    reason: str = Field(min_length=1, max_length=_LONGEST_REASON, examples=["not before the shop closes"])


@router.post(
    "/rollouts/{name}/approve",
    operation_id="approveRollout",
    summary="Approve a rollout",
    response_model=RolloutView,
    responses=_REFUSALS,
)
async def approve_rollout(request: Request, name: RolloutName, body: ApprovalRequest, match: IfMatch) -> Response:
    """Let a rollout that waits for approval go; 403 for whoever created it."""
    return await carry_out_order(request, name, Event.APPROVED, _by_another(actor_of(request), match), body.reason)


@router.post(
    "/rollouts/{name}/deny",
    operation_id="denyRollout",
    summary="Deny a rollout",
    response_model=RolloutView,
    responses=_REFUSALS,
)
async def deny_rollout(request: Request, name: RolloutName, body: DenialRequest, match: IfMatch) -> Response:
    """End a rollout that waits for approval, and say why; 403 for whoever created it, who may cancel it."""
    return await carry_out_order(request, name, Event.DENIED, _by_another(actor_of(request), match), body.reason)


def _by_another(actor: Actor, match: Match) -> Check:
    """Return the check that is made in the transaction that decides: nobody slips in between."""

    def check(report: RolloutReport) -> None:
        if report.rollout.created_by == actor.name:
            raise ForbiddenError(
                f"{actor.name} created the rollout {report.rollout.name}: somebody else with the role approver decides "
                f"about it; you may cancel it: edgeopt rollout cancel {report.rollout.name}"
            )
        match.check(RolloutView.of(report))

    return check

"""Routes: rollouts, the orders that people give them, and what one would do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from edgeopt_fleet.api.etags import NOT_MODIFIED, IfMatch, Match, tagged
from edgeopt_fleet.api.idempotency import IdempotentRoute, answer_once
from edgeopt_fleet.api.paging import Paging
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.rollout_views import PlannedView, RolloutList, RolloutRequest, RolloutView
from edgeopt_fleet.api.services import Services, services_of
from edgeopt_fleet.api.views import Name
from edgeopt_fleet.problems import ConflictError, NotFoundError, PreconditionFailedError
from edgeopt_fleet.rollout import Event, State
from edgeopt_fleet.store.rollouts import Check, Plan

__all__ = ["RolloutName", "carry_out_order", "router"]

router = APIRouter(tags=["rollouts"], route_class=IdempotentRoute)


RolloutName = Annotated[Name, Path(examples=["digits-2"])]


def _plan(services: Services, body: RolloutRequest) -> Plan:
    return Plan(
        name=body.name,
        bundle=body.bundle or "",
        trial=body.trial(),
        cohort=body.cohort,
        waves=body.wave_values(),
        policy=body.policy.policy(),
        execution=body.execution.execution(),
        allow_no_recall=body.no_recall,
        approval=body.approval or services.four_eyes,
    )


@router.post(
    "/rollouts",
    status_code=201,
    operation_id="createRollout",
    summary="Create a rollout",
    response_model=RolloutView,
    responses=problems(NotFoundError, ConflictError),
)
async def create_rollout(request: Request, body: RolloutRequest) -> Response:
    """Create a rollout; its devices and waves are fixed from now on. It starts at once unless told otherwise.

    Where approval is needed it waits for that, and with `start_at` for its time.
    """
    services = services_of(request)
    changed: set[str] = set()

    def create() -> RolloutView:
        now = services.clock()
        services.rollouts.create(_plan(services, body), now)
        if body.start:
            changed.update(services.rollouts.start(body.name, now))
        return RolloutView.of(services.rollouts.report(body.name))

    response = await answer_once(request, create)
    await services.worker.announce(changed)
    return response


@router.post(
    "/rollouts/dry-run",
    operation_id="planRollout",
    summary="Show what a rollout would do",
    responses=problems(NotFoundError),
)
async def plan_rollout(request: Request, body: RolloutRequest) -> PlannedView:
    """Show members, waves and what would happen. Nothing is written, and no device hears of it."""
    services = services_of(request)
    return PlannedView.of(await services.serial.read(services.rollouts.plan, _plan(services, body), services.clock()))


@router.get("/rollouts", operation_id="listRollouts", summary="List rollouts")
async def list_rollouts(
    request: Request,
    page: Paging,
    state: Annotated[list[State], Query(max_length=len(State), description="only those in one of these states")] = [],  # noqa: B006  # FastAPI copies it
) -> RolloutList:
    """List rollouts, newest first, without their members."""
    services = services_of(request)
    after = page.after(float, str)
    below = None if after is None else (float(after[0]), str(after[1]))
    reports = await services.serial.read(services.rollouts.reports, page.limit + 1, below, state)
    return RolloutList(
        items=[RolloutView.of(report) for report in page.cut(reports)],
        next=page.next(reports, lambda report: (report.rollout.created_at, report.rollout.name)),
    )


@router.get(
    "/rollouts/{name}",
    operation_id="getRollout",
    summary="Show one rollout",
    response_model=RolloutView,
    responses=NOT_MODIFIED | problems(NotFoundError),
)
async def get_rollout(request: Request, name: RolloutName) -> Response:
    """Show one rollout with its members and verdicts."""
    services = services_of(request)
    return tagged(request, RolloutView.of(await services.serial.read(services.rollouts.report, name)))


async def carry_out_order(request: Request, name: str, event: Event | None, check: Check, reason: str = "") -> Response:
    """Let somebody's ``event`` happen to a rollout (None: the order to start), and show it as it is then.

    ``check`` may refuse what it is shown; it is asked in the same transaction.
    """
    services = services_of(request)
    changed: set[str] = set()

    def order() -> RolloutView:
        changed.update(services.rollouts.apply(name, event, services.clock(), check, reason))
        return RolloutView.of(services.rollouts.report(name))

    response = await answer_once(request, order)
    await services.worker.announce(changed)
    return response


def _add_order(order: str, operation: str, event: Event | None, summary: str) -> None:
    """Add the route by which people give one order."""

    async def give(request: Request, name: RolloutName, match: IfMatch) -> Response:
        return await carry_out_order(request, name, event, _check(match))

    router.add_api_route(
        f"/rollouts/{{name}}/{order}",
        give,
        methods=["POST"],
        operation_id=operation,
        summary=summary,
        response_model=RolloutView,
        description=f"{summary}; 409 when the rollout's state does not allow it.",
        responses=problems(NotFoundError, ConflictError, PreconditionFailedError),
    )


for _order in (
    ("start", "startRollout", None, "Start a draft, as approval and its time allow"),
    ("pause", "pauseRollout", Event.PAUSED, "Offer the bundle to no further device"),
    ("resume", "resumeRollout", Event.RESUMED, "Go on with a paused rollout"),
    ("cancel", "cancelRollout", Event.CANCELLED, "End a rollout; devices that confirmed keep the bundle"),
    ("roll-back", "rollBackRollout", Event.ROLL_BACK_ORDERED, "Bring every exposed device back"),
):
    _add_order(*_order)


def _check(match: Match) -> Check:
    return lambda report: match.check(RolloutView.of(report))

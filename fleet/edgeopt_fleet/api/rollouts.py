"""Routes: rollouts and alerts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from edgeopt_fleet.api.rollout_views import RolloutList, RolloutRequest, RolloutView
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import AlertList, AlertView
from edgeopt_fleet.rollout import Event
from edgeopt_fleet.store.rollouts import Plan

__all__ = [
    "Order",
    "router",
]

router = APIRouter(tags=["rollouts"])


class Order(StrEnum):
    """What an operator may order."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    ROLL_BACK = "roll-back"


_EVENTS = {
    Order.START: Event.STARTED,
    Order.PAUSE: Event.PAUSED,
    Order.RESUME: Event.RESUMED,
    Order.CANCEL: Event.CANCELLED,
    Order.ROLL_BACK: Event.ROLL_BACK_ORDERED,
}


@router.post("/rollouts", status_code=201)
async def create_rollout(request: Request, body: RolloutRequest) -> RolloutView:
    """Create a rollout; its devices and waves are fixed from now on. It starts at once unless told otherwise."""
    services = services_of(request)
    plan = Plan(
        name=body.name,
        bundle=body.bundle,
        cohort=body.cohort,
        waves=tuple(body.waves),
        policy=body.policy.policy(),
        allow_no_recall=body.no_recall,
    )
    await services.serial(services.rollouts.create, plan, services.clock())
    if body.start:
        await services.worker.apply(body.name, Event.STARTED)
    return await get_rollout(request, body.name)


@router.get("/rollouts")
async def list_rollouts(request: Request) -> RolloutList:
    """List all rollouts, newest first."""
    services = services_of(request)
    names = await services.serial(services.rollouts.names)
    return RolloutList(items=[await get_rollout(request, name) for name in names])


@router.get("/rollouts/{name}")
async def get_rollout(request: Request, name: str) -> RolloutView:
    """Show one rollout."""
    services = services_of(request)
    return RolloutView.of(await services.serial(services.rollouts.report, name))


@router.post("/rollouts/{name}/{order}")
async def order_rollout(request: Request, name: str, order: Order) -> RolloutView:
    """Start, pause, resume, cancel or roll back; 409 when the rollout's state does not allow it."""
    await services_of(request).worker.apply(name, _EVENTS[order])
    return await get_rollout(request, name)


@router.get("/alerts", tags=["alerts"])
async def list_alerts(
    request: Request, state: Annotated[Literal["open", "closed"] | None, Query(examples=["open"])] = None
) -> AlertList:
    """List drift alerts, newest first."""
    services = services_of(request)
    return AlertList(items=[AlertView.of(row) for row in await services.serial(services.alerts.list, state)])

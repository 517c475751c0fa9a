"""Routes: alerts, and what they look like."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from edgeopt_fleet.api.idempotency import IdempotentRoute, answer_once
from edgeopt_fleet.api.paging import Paging
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, Digest, Name, Next
from edgeopt_fleet.problems import ConflictError, NotFoundError
from edgeopt_fleet.store.alert_book import CLOSED, OPEN, AlertFilter
from edgeopt_fleet.store.tables import AlertRow

__all__ = ["AlertList", "AlertState", "AlertView", "router"]

router = APIRouter(tags=["alerts"], route_class=IdempotentRoute)
Number = Annotated[int, Path(ge=1, lt=2**53, description="the alert's number", examples=[7])]


class AlertState(StrEnum):
    """Whether an alert still holds."""

    OPEN = OPEN
    CLOSED = CLOSED


class AlertView(BaseModel):
    """Something that wants attention: drift, or an alarm about security.

    What only drift has is empty in an alarm. ``psi`` is debiased: about 0 without drift, 0.2 and more when it matters.
    """

    id: int = Field(examples=[7])
    kind: str = Field(examples=["drift"], description="drift, or the name of an alarm such as token_reuse")
    cohort: str = Field(examples=["oslo"])
    feature: str = Field(examples=["brightness"])
    source: str = Field(examples=["input"], description="of the feature; of an alarm what it is about")
    bundle: str = Field(examples=[DIGEST_EXAMPLE])
    state: AlertState = Field(examples=["open"])
    opened_at: int = Field(examples=[1764000000])
    last_seen: int = Field(examples=[1764000600])
    psi: float = Field(examples=[1.4])
    p_value: float = Field(examples=[1e-30])
    rows: int = Field(examples=[412])
    message: str = Field(examples=["oslo: brightness: PSI 1.40, p 1.0e-30 on 412 rows; above 0.8 went from 6% to 71%"])

    @classmethod
    def of(cls, row: AlertRow) -> Self:
        """Show one alert's row."""
        return cls.model_validate(row, from_attributes=True)


class AlertList(BaseModel):
    """A page of alerts, newest first."""

    items: list[AlertView]
    next: Next = None


@router.get("/alerts", operation_id="listAlerts", summary="List alerts")
async def list_alerts(
    request: Request,
    page: Paging,
    *,
    state: Annotated[AlertState | None, Query(description="open or closed")] = None,
    kind: Annotated[str | None, Query(pattern=r"^[a-z_]{1,40}$", examples=["drift"])] = None,
    cohort: Annotated[Name | None, Query(examples=["oslo"])] = None,
    bundle: Annotated[Digest | None, Query()] = None,
) -> AlertList:
    """List alerts, newest first."""
    services = services_of(request)
    wanted = AlertFilter(state=state, kind=kind, cohort=cohort, bundle=bundle)
    rows = await services.serial.read(services.alert_book.page, wanted, page.below(), page.limit + 1)
    return AlertList(
        items=[AlertView.of(row) for row in page.cut(rows)], next=page.next(rows, lambda row: (row.id or 0,))
    )


@router.get("/alerts/{number}", operation_id="getAlert", summary="Show an alert", responses=problems(NotFoundError))
async def get_alert(request: Request, number: Number) -> AlertView:
    """Show one alert."""
    services = services_of(request)
    return AlertView.of(await services.serial.read(services.alert_book.get, number))


@router.post(
    "/alerts/{number}/close",
    operation_id="closeAlert",
    summary="Close an alarm",
    response_model=AlertView,
    responses=problems(NotFoundError, ConflictError),
)
async def close_alert(request: Request, number: Number) -> Response:
    """Close an alarm that was looked into; it is raised anew when it happens again. Drift closes by itself: 409."""
    services = services_of(request)
    return await answer_once(request, lambda: AlertView.of(services.alert_book.close(number, services.clock())))

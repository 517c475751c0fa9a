"""Routes: challengers that run beside champions, what people order, and how they agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from edgeopt_fleet.api.etags import NOT_MODIFIED, IfMatch, tagged
from edgeopt_fleet.api.idempotency import IdempotentRoute, answer_once
from edgeopt_fleet.api.paging import Paging
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import Services, services_of
from edgeopt_fleet.api.shadow_views import (
    AgreementView,
    ShadowList,
    ShadowLookList,
    ShadowLookView,
    ShadowRequest,
    ShadowView,
)
from edgeopt_fleet.api.views import Name
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError, PreconditionFailedError
from edgeopt_fleet.store.shadow_rows import ShadowState

__all__ = ["router"]

router = APIRouter(tags=["shadows"], route_class=IdempotentRoute)

ShadowName = Annotated[Name, Path(examples=["digits-3-beside"])]
Change = Annotated[str, Field(pattern=r"^[a-z_]{1,40}=[0-9.e+-]{1,40}$")]


async def _act(request: Request, act: Callable[[Services], set[str]], name: str) -> Response:
    """Carry ``act`` out, which returns the devices to be told, and show the shadow as it is then."""
    services, changed = services_of(request), set[str]()

    def carry_out() -> ShadowView:
        changed.update(act(services))
        return ShadowView.of(services.shadows.report(name))

    response = await answer_once(request, carry_out)
    await services.worker.announce(changed)
    return response


@router.post(
    "/shadows",
    status_code=201,
    operation_id="createShadow",
    summary="Create a shadow",
    response_model=ShadowView,
    responses=problems(NotFoundError, ConflictError),
)
async def create_shadow(request: Request, body: ShadowRequest) -> Response:
    """Let a challenger run beside the champion on a cohort's devices; it never answers anybody.

    Its devices are fixed from now on. It starts at once unless told otherwise.
    """

    def create(services: Services) -> set[str]:
        now = services.clock()
        services.shadows.create(body.plan(), now)
        return services.shadows.start(body.name, now) if body.start else set()

    return await _act(request, create, body.name)


@router.get("/shadows", operation_id="listShadows", summary="List shadows")
async def list_shadows(
    request: Request,
    page: Paging,
    state: Annotated[
        list[ShadowState], Query(max_length=len(ShadowState), description="only those in one of these")
    ] = [],  # noqa: B006  # FastAPI copies it
) -> ShadowList:
    """List shadows, newest first, without their members."""
    services = services_of(request)
    after = page.after(float, str)
    below = None if after is None else (float(after[0]), str(after[1]))
    reports = await services.serial.read(services.shadows.reports, page.limit + 1, below, state)
    return ShadowList(
        items=[ShadowView.of(report) for report in page.cut(reports)],
        next=page.next(reports, lambda report: (report.row.created_at, report.row.name)),
    )


@router.get(
    "/shadows/{name}",
    operation_id="getShadow",
    summary="Show one shadow",
    response_model=ShadowView,
    responses=NOT_MODIFIED | problems(NotFoundError),
)
async def get_shadow(request: Request, name: ShadowName) -> Response:
    """Show one shadow with its members and the verdict of its newest look."""
    services = services_of(request)
    return tagged(request, ShadowView.of(await services.serial.read(services.shadows.report, name)))


def _add_order(order: str, summary: str, description: str) -> None:
    """Add the route by which people start or end a shadow."""

    async def give(request: Request, name: ShadowName, match: IfMatch) -> Response:
        def act(services: Services) -> set[str]:
            orders = {"start": services.shadows.start, "end": services.shadows.end}
            return orders[order](name, services.clock(), lambda report: match.check(ShadowView.of(report)))

        return await _act(request, act, name)

    router.add_api_route(
        f"/shadows/{{name}}/{order}",
        give,
        methods=["POST"],
        operation_id=f"{order}Shadow",
        summary=summary,
        response_model=ShadowView,
        description=description,
        responses=problems(NotFoundError, ConflictError, PreconditionFailedError),
    )


_add_order("start", "Start a draft", "Start a shadow that was created without starting; 409 for any other.")
_add_order("end", "End a shadow", "End a shadow before its time; what was compared stays. 409 when it has ended.")


@router.get(
    "/shadows/{name}/agreement",
    operation_id="getShadowAgreement",
    summary="Show how a challenger agrees",
    response_model=AgreementView,
    responses=NOT_MODIFIED | problems(NotFoundError),
)
async def get_agreement(request: Request, name: ShadowName) -> Response:
    """Show what each device compared, by class, and what the newest look said of it."""
    services = services_of(request)
    found = await services.serial.read(services.shadow_looks.agreement, name)
    return tagged(request, AgreementView.of(name, found))


@router.get(
    "/shadows/{name}/looks",
    operation_id="replayShadow",
    summary="Judge a shadow's looks again",
    responses=problems(NotFoundError, InvalidError),
)
async def replay_shadow(
    request: Request,
    name: ShadowName,
    most: Annotated[int, Query(ge=1, le=500, description="the newest so many looks")] = 50,
    what_if: Annotated[list[Change] | None, Query(examples=[["minimum_agreement=0.97"]])] = None,
) -> ShadowLookList:
    """Compute every verdict again from the stored evidence; under another policy, if ``what_if`` changes one."""
    services = services_of(request)
    changes = {field: value for field, _, value in (change.partition("=") for change in what_if or ())}
    found = await services.serial.read(services.shadow_looks.explain, name, most, changes)
    items = [ShadowLookView.of(one) for one in found]
    return ShadowLookList(same=all(item.same for item in items), what_if=changes, items=items)

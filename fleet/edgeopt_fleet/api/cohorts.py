"""Routes: cohorts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from edgeopt_fleet.api.device_views import CohortList, CohortRequest, CohortView
from edgeopt_fleet.api.etags import NOT_MODIFIED, TAGGED, IfMatch, Match, tagged
from edgeopt_fleet.api.paging import Paging
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import Name
from edgeopt_fleet.problems import ConflictError, NotFoundError, PreconditionFailedError
from edgeopt_fleet.store.cohorts import SavedFilter

__all__ = ["router"]

router = APIRouter(tags=["cohorts"])
CohortName = Annotated[Name, Path(examples=["oslo"])]


@router.get("/cohorts", operation_id="listCohorts", summary="List cohorts")
async def list_cohorts(request: Request, page: Paging) -> CohortList:
    """List the saved filters by name, the one of all devices first."""
    services, after = services_of(request), page.after(str)
    saved = await services.serial.read(services.cohorts.list, None if after is None else str(after[0]), page.limit + 1)
    items = [CohortView.of(one) for one in page.cut(saved)]
    return CohortList(items=items, next=page.next(saved, lambda one: (one.name,)))


@router.get(
    "/cohorts/{name}",
    operation_id="getCohort",
    summary="Show a cohort",
    response_model=CohortView,
    responses=NOT_MODIFIED | problems(NotFoundError),
)
async def get_cohort(request: Request, name: CohortName) -> Response:
    """Show one saved filter. Its devices: `GET /api/v1/devices?cohort=<name>`."""
    services = services_of(request)
    return tagged(request, CohortView.of(await services.serial.read(services.cohorts.get, name)))


@router.put(
    "/cohorts/{name}",
    operation_id="putCohort",
    summary="Save a cohort",
    response_model=CohortView,
    responses=TAGGED | problems(PreconditionFailedError),
)
async def put_cohort(request: Request, name: CohortName, body: CohortRequest, match: IfMatch) -> Response:
    """Save a filter over devices, or change what its name means. Rollouts that exist keep their members."""
    services = services_of(request)
    saved = await services.serial(services.cohorts.put, name, body.wanted(), services.clock(), _check(match))
    return tagged(request, CohortView.of(saved))


@router.delete(
    "/cohorts/{name}",
    operation_id="deleteCohort",
    summary="Delete a cohort",
    status_code=204,
    response_class=Response,
    responses=problems(NotFoundError, ConflictError, PreconditionFailedError),
)
async def delete_cohort(request: Request, name: CohortName, match: IfMatch) -> Response:
    """Forget a cohort; 409 while a rollout that has not ended, or a token, uses it."""
    services = services_of(request)
    await services.serial(services.cohorts.delete, name, services.clock(), _check(match))
    return Response(status_code=204)


def _check(match: Match) -> Callable[[SavedFilter | None], None]:
    """Return what compares If-Match with what is saved, as the representation that was read."""
    return lambda present: match.check(None if present is None else CohortView.of(present))

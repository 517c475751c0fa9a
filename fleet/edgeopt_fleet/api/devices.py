"""Routes: devices, what they say, and their tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.api.device_views import (
    DeviceList,
    DeviceView,
    MessageList,
    ReportList,
    ReportView,
    SpoolView,
    TagsModel,
    WindowList,
    WindowView,
    Word,
)
from edgeopt_fleet.api.etags import NOT_MODIFIED, TAGGED, IfMatch, tagged
from edgeopt_fleet.api.paging import PageRequest, Paging
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, Name
from edgeopt_fleet.filters import KEY_PATTERN, MOST_TAGS, RUNNING_PATTERN, VALUE_PATTERN, DeviceFilter, Health
from edgeopt_fleet.problems import NotFoundError, PreconditionFailedError
from edgeopt_fleet.store.tables import ReportRow, WindowRow

__all__ = ["DeviceId", "device_filter", "router"]

router = APIRouter(tags=["devices"])
Said = TypeVar("Said", ReportRow, WindowRow)
DeviceId = Annotated[
    str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", description="the device's id", examples=["cam-7"])
]
_TAG = Annotated[str, Field(pattern=f"{KEY_PATTERN[:-1]}={VALUE_PATTERN[1:]}")]


async def device_filter(  # noqa: PLR0913  # one parameter a query parameter
    *,
    tag: Annotated[
        list[_TAG], Query(max_length=MOST_TAGS, examples=[["site=oslo"]], description="`key=value`; all must match")
    ] = [],  # noqa: B006  # FastAPI copies it
    hardware: Annotated[
        list[Word], Query(max_length=MOST_TAGS, examples=[["aarch64-dotprod"]], description="one of these classes")
    ] = [],  # noqa: B006  # as above
    running: Annotated[
        str | None,
        Query(
            pattern=RUNNING_PATTERN,
            examples=[DIGEST_EXAMPLE[:12]],
            description="beginning of the bundle's digest that it runs, or none",
        ),
    ] = None,
    agent_version: Annotated[Word | None, Query(examples=["0.1.0"])] = None,
    state: Annotated[DeviceState | None, Query(description="of its newest update")] = None,
    online: Annotated[bool | None, Query(examples=[True])] = None,
    health: Annotated[Health | None, Query()] = None,
) -> DeviceFilter:
    """Return the filter that a request's query asks for; all of it must hold."""
    tags = dict(one.split("=", 1) for one in tag)
    return DeviceFilter(
        tags=tags,
        hardware=tuple(hardware),
        running=running,
        agent_version=agent_version,
        state=state,
        online=online,
        health=health,
    )


@router.get("/devices", operation_id="listDevices", summary="List devices", responses=problems(NotFoundError))
async def list_devices(
    request: Request,
    page: Paging,
    wanted: Annotated[DeviceFilter, Depends(device_filter)],
    cohort: Annotated[
        Name | None, Query(examples=["oslo"], description="only those that belong to this cohort now")
    ] = None,
) -> DeviceList:
    """List the devices that fit all filters, by id."""
    services, after = services_of(request), page.after(str)
    rows = await services.serial.read(
        services.registry.devices, wanted, None if after is None else str(after[0]), page.limit + 1, cohort
    )
    items = [DeviceView.of(row) for row in page.cut(rows)]
    return DeviceList(items=items, next=page.next(rows, lambda row: (row.id,)))


@router.get("/devices/{device}", operation_id="getDevice", summary="Show a device", responses=problems(NotFoundError))
async def get_device(request: Request, device: DeviceId) -> DeviceView:
    """Show one device: what it is, what it runs, how its newest update stands, and its last ten reports."""
    services = services_of(request)
    row, reports = await services.serial.read(services.registry.detail, device)
    return DeviceView.of(row, reports)


@router.get(
    "/devices/{device}/messages",
    operation_id="listDeviceMessages",
    summary="Show which messages are stored",
    responses=problems(NotFoundError),
)
async def get_messages(request: Request, device: DeviceId) -> MessageList:
    """Show which numbered messages of a device are stored, by spool session."""
    services = services_of(request)
    spools = await services.serial.read(services.registry.spools, device)
    return MessageList(items=[SpoolView.of(row) for row in spools])


@router.get(
    "/devices/{device}/reports",
    operation_id="listDeviceReports",
    summary="List a device's reports",
    responses=problems(NotFoundError),
)
async def list_reports(request: Request, device: DeviceId, page: Paging) -> ReportList:
    """List what a device reported of its updates, newest first, in the order in which it came here."""
    rows, following = await _page_of(request, services_of(request).registry.reports, device, page)
    return ReportList(items=[ReportView.of(row) for row in rows], next=following)


@router.get(
    "/devices/{device}/windows",
    operation_id="listDeviceWindows",
    summary="List a device's profile windows",
    responses=problems(NotFoundError),
)
async def list_windows(request: Request, device: DeviceId, page: Paging) -> WindowList:
    """List the profile windows that are kept of a device, newest first, in the order in which they came here."""
    rows, following = await _page_of(request, services_of(request).registry.windows, device, page)
    return WindowList(items=[WindowView.of(row) for row in rows], next=following)


async def _page_of(
    request: Request, read: Callable[[str, int | None, int], Sequence[Said]], device: str, page: PageRequest
) -> tuple[Sequence[Said], str | None]:
    """Return a page of what a device said, newest first, and the cursor of the page after it."""
    rows = await services_of(request).serial.read(read, device, page.below(), page.limit + 1)
    return page.cut(rows), page.next(rows, lambda row: (row.id or 0,))


@router.get(
    "/devices/{device}/tags",
    operation_id="getDeviceTags",
    summary="Show a device's tags",
    response_model=TagsModel,
    responses=NOT_MODIFIED | problems(NotFoundError),
)
async def get_tags(request: Request, device: DeviceId) -> Response:
    """Show the tags of a device, with the ETag that changing them asks for."""
    services = services_of(request)
    row = await services.serial.read(services.registry.device, device)
    return tagged(request, TagsModel(tags=row.tags))


@router.put(
    "/devices/{device}/tags",
    operation_id="putDeviceTags",
    summary="Change a device's tags",
    response_model=TagsModel,
    responses=TAGGED | problems(NotFoundError, PreconditionFailedError),
)
async def put_tags(request: Request, device: DeviceId, body: TagsModel, match: IfMatch) -> Response:
    """Give a device these tags instead of those that it has. Rollouts that exist keep their members."""
    services = services_of(request)
    tags = await services.serial(
        services.registry.put_tags,
        device,
        body.tags,
        services.clock(),
        lambda present: match.check(TagsModel(tags=dict(present))),
    )
    return tagged(request, TagsModel(tags=dict(tags)))

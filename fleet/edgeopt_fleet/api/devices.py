"""Routes: tokens, devices, their messages, and cohorts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from edgeopt_contract.enrolment import EnrolToken
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import (
    CohortList,
    CohortRequest,
    CohortView,
    DeviceList,
    DeviceView,
    MessageList,
    Name,
    SpoolView,
    TokenRequest,
    TokenView,
)
from edgeopt_fleet.problems import InvalidError
from edgeopt_fleet.store.registry import TokenGrant

__all__ = ["router"]

router = APIRouter(tags=["devices"])


@router.post("/tokens", status_code=201)
async def create_token(request: Request, body: TokenRequest) -> TokenView:
    """Make a token that enrols devices."""
    services = services_of(request)
    expires_at = int(services.clock()) + body.expires_in_seconds
    grant = TokenGrant(uses=body.uses, expires_at=expires_at, tags=body.tags)
    secret = await services.serial(services.registry.create_token, grant)
    token = EnrolToken(secret=secret, fingerprint=services.authority.fingerprint)
    return TokenView(token=str(token), expires_at=expires_at)


@router.get("/devices")
async def list_devices(
    request: Request,
    tag: Annotated[str | None, Query(examples=["site=oslo"], description="key=value")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    cursor: str = "",
) -> DeviceList:
    """List devices by id, those with a tag if one is given."""
    wanted = None
    if tag is not None:
        key, equals, value = tag.partition("=")
        if not equals:
            raise InvalidError(f"expected tag=key=value, got tag={tag}")
        wanted = (key, value)
    services = services_of(request)
    page = await services.serial(services.registry.devices, wanted, limit, cursor)
    return DeviceList(items=[DeviceView.of(row) for row in page.devices], next=page.next)


@router.get("/devices/{device}")
async def get_device(request: Request, device: str) -> DeviceView:
    """Show one device."""
    services = services_of(request)
    row = await services.serial(services.registry.device, device)
    return DeviceView.of(row, await services.serial(services.registry.reports, device))


@router.get("/devices/{device}/messages")
async def get_messages(request: Request, device: str) -> MessageList:
    """Show which numbered messages of a device are stored, by spool session."""
    services = services_of(request)
    spools = await services.serial(services.registry.spools, device)
    return MessageList(items=[SpoolView.of(row) for row in spools])


@router.get("/cohorts")
async def list_cohorts(request: Request) -> CohortList:
    """List all cohorts."""
    services = services_of(request)
    return CohortList(items=[CohortView.of(cohort) for cohort in await services.serial(services.registry.cohorts)])


@router.get("/cohorts/{name}")
async def get_cohort(request: Request, name: str) -> CohortView:
    """Show one cohort."""
    services = services_of(request)
    return CohortView.of(await services.serial(services.registry.cohort, name))


@router.put("/cohorts/{name}")
async def put_cohort(request: Request, name: Name, body: CohortRequest) -> CohortView:
    """Save a filter over tags under a name."""
    services = services_of(request)
    return CohortView.of(await services.serial(services.registry.put_cohort, name, body.tags))

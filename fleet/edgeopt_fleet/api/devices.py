"""Routes: tokens, enrolment, devices, their messages, and cohorts."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.errors import MessageError
from edgeopt_contract.messages import EnrolRequest, EnrolResponse, MqttAccess
from edgeopt_fleet.api.bodies import read_body
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
from edgeopt_fleet.broker import hash_password
from edgeopt_fleet.problems import InvalidError
from edgeopt_fleet.store.registry import Enrolment, TokenGrant

__all__ = ["public", "router"]

public = APIRouter(tags=["devices"])
router = APIRouter(tags=["devices"])

_RECONNECTS_A_SECOND = 65.0  # a broker on two cores takes about this many without strain
_LONGEST_WINDOW_SECONDS = 90.0


@router.post("/tokens", status_code=201)
async def create_token(request: Request, body: TokenRequest) -> TokenView:
    """Make a token that enrols devices."""
    services = services_of(request)
    expires_at = int(services.clock()) + body.expires_in_seconds
    grant = TokenGrant(uses=body.uses, expires_at=expires_at, tags=body.tags)
    return TokenView(token=await services.serial(services.registry.create_token, grant), expires_at=expires_at)


@public.post("/devices/enrol", status_code=201, response_class=Response)
async def enrol(request: Request) -> Response:
    """Give a device an identity, for a token. Body and answer are EnrolRequest and EnrolResponse of the contract."""
    services = services_of(request)
    try:
        asked = decode(EnrolRequest, await read_body(request, EnrolRequest.MAX_BYTES))
    except MessageError as error:
        raise InvalidError(str(error)) from error
    password = secrets.token_urlsafe(32)
    enrolment = Enrolment(
        device=asked.device,
        tags=asked.tags,
        capabilities=asked.capabilities,
        password_hash=hash_password(password),
    )
    devices = await services.serial(services.registry.enrol, asked.token, enrolment, int(services.clock()))
    await services.reload_broker()
    answer = EnrolResponse(
        device=asked.device,
        mqtt=MqttAccess(
            host=request.url.hostname or "127.0.0.1",  # as the device reached us
            port=services.mqtt_port,
            username=asked.device,
            password=password,
        ),
        keys=(services.public_key,),
        reconnect_window_seconds=min(max(1.0, devices / _RECONNECTS_A_SECOND), _LONGEST_WINDOW_SECONDS),
    )
    return Response(encode(answer), status_code=201, media_type="application/json")


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
    return DeviceView.of(await services.serial(services.registry.device, device))


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

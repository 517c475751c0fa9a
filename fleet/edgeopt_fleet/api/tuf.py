"""Routes: TUF metadata for devices, and what people sign with offline keys."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response

from edgeopt_contract.tuf import TufMetadata
from edgeopt_fleet.api.bodies import binary, read_body
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.tuf_views import StandingView, UnsignedView
from edgeopt_fleet.problems import ConflictError, TooLargeError

__all__ = ["public", "router"]

public = APIRouter(tags=["tuf"])
router = APIRouter(tags=["tuf"])


@public.get(
    "/tuf",
    operation_id="getMetadata",
    summary="Get all metadata",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def get_metadata(request: Request) -> Response:
    """Give all metadata as one TufMetadata message: the same bytes as on the topic. They are no secret."""
    services = services_of(request)
    return Response(await services.serial(services.metadata.message), media_type="application/json")


@router.get("/tuf/signing", operation_id="getMetadataToSign", summary="Show what is to be signed")
async def get_unsigned(request: Request) -> UnsignedView:
    """Show root and targets in force, and drafts of them that wait for signatures."""
    services = services_of(request)
    return UnsignedView.of(await services.serial(services.metadata.unsigned))


@router.put(
    "/tuf/{role}",
    operation_id="putMetadata",
    summary="Hand in signed metadata",
    responses=problems(TooLargeError, ConflictError),
    openapi_extra=binary("application/json", TufMetadata.MAX_BYTES, "the signed file, root.json or targets.json"),
)
async def put_metadata(request: Request, role: Literal["root", "targets"]) -> StandingView:
    """Take signed metadata in; with enough signatures they are in force, and devices get them."""
    services = services_of(request)
    data = await read_body(request, TufMetadata.MAX_BYTES)
    return StandingView.of(await services.serial(services.metadata.accept, role, data, services.clock()))

"""Routes: TUF metadata for devices, and what people sign with offline keys."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from edgeopt_contract.tuf import TufMetadata
from edgeopt_fleet.api.bodies import binary, read_body
from edgeopt_fleet.api.reads import reads_of
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.tuf_views import StandingView, UnsignedView
from edgeopt_fleet.problems import ConflictError, TooLargeError

__all__ = ["metadata_answer", "public", "router"]

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
    return metadata_answer(await reads_of(request).metadata())


def metadata_answer(message: bytes) -> Response:
    """Return the answer that carries all metadata."""
    return Response(message, media_type="application/json")


@router.get("/tuf/signing", operation_id="getMetadataToSign", summary="Show what is to be signed")
async def get_unsigned(request: Request) -> UnsignedView:
    """Show root and targets in force, and drafts of them that wait for signatures."""
    services = services_of(request)
    return UnsignedView.of(await services.serial(services.metadata.unsigned))


_SIGNED: dict[str, Any] = {
    "responses": problems(TooLargeError, ConflictError),
    "openapi_extra": binary("application/json", TufMetadata.MAX_BYTES, "the exact bytes of the signed file"),
}


@router.put("/tuf/root", operation_id="putRoot", summary="Hand in a signed root.json", **_SIGNED)
async def put_root(request: Request) -> StandingView:
    """Take a signed root in; with enough signatures it is in force, and devices get it."""
    return await _accept(request, "root")


@router.put("/tuf/targets", operation_id="putTargets", summary="Hand in a signed targets.json", **_SIGNED)
async def put_targets(request: Request) -> StandingView:
    """Take signed targets in; with enough signatures they are in force, and devices get them."""
    return await _accept(request, "targets")


async def _accept(request: Request, role: Literal["root", "targets"]) -> StandingView:
    services = services_of(request)
    data = await read_body(request, TufMetadata.MAX_BYTES)
    return StandingView.of(await services.serial(services.metadata.accept, role, data, services.clock()))

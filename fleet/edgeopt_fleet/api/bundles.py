"""Routes: blocks and bundles."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from edgeopt_contract.blocks import MAX_BLOCK_BYTES
from edgeopt_contract.manifest import Manifest
from edgeopt_fleet.api.bodies import read_body
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import BundleDetail, BundleList, BundleView

__all__ = ["router"]

router = APIRouter(tags=["bundles"])


@router.put("/blocks/{sha256}", status_code=204, response_class=Response)
async def put_block(request: Request, sha256: str) -> Response:
    """Keep one block (application/octet-stream) under the hash of its bytes."""
    data = await read_body(request, MAX_BLOCK_BYTES)
    await asyncio.to_thread(services_of(request).bundles.put_block, sha256, data)
    return Response(status_code=204)


@router.post("/bundles")
async def post_bundle(request: Request) -> BundleView:
    """Take the exact bytes of a manifest.json; once no block is missing, the bundle can be rolled out."""
    services = services_of(request)
    manifest = await read_body(request, Manifest.MAX_BYTES)
    return BundleView.of(await services.serial(services.bundles.post, manifest, services.clock()))


@router.get("/bundles")
async def list_bundles(request: Request) -> BundleList:
    """List all bundles."""
    services = services_of(request)
    return BundleList(items=[BundleDetail.of(row) for row in await services.serial(services.bundles.all)])


@router.get("/bundles/{prefix}")
async def get_bundle(request: Request, prefix: str) -> BundleDetail:
    """Show the bundle whose digest begins with ``prefix``."""
    services = services_of(request)
    return BundleDetail.of(await services.serial(services.bundles.find, prefix))

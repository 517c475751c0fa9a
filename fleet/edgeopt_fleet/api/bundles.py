"""Routes: blocks and bundles."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from edgeopt_contract.blocks import MAX_BLOCK_BYTES
from edgeopt_contract.manifest import Manifest
from edgeopt_fleet.api.bodies import binary, read_body
from edgeopt_fleet.api.bundle_views import BundlePage
from edgeopt_fleet.api.device_views import Word
from edgeopt_fleet.api.idempotency import IdempotentRoute, answer_once
from edgeopt_fleet.api.paging import Paging
from edgeopt_fleet.api.responses import problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, BundleDetail, BundleList, BundleView, Digest
from edgeopt_fleet.problems import ConflictError, NotFoundError, TooLargeError
from edgeopt_fleet.store.bundles import BundleFilter

__all__ = ["router"]

router = APIRouter(tags=["bundles"], route_class=IdempotentRoute)
Prefix = Annotated[
    str,
    Path(pattern="^[0-9a-f]{4,64}$", description="the digest, or a beginning of it", examples=[DIGEST_EXAMPLE[:12]]),
]


@router.put(
    "/blocks/{sha256}",
    operation_id="putBlock",
    summary="Upload a block",
    status_code=204,
    response_class=Response,
    responses=problems(TooLargeError),
    openapi_extra=binary("application/octet-stream", MAX_BLOCK_BYTES, "the bytes of the block"),
)
async def put_block(request: Request, sha256: Digest) -> Response:
    """Keep one block under the hash of its bytes. Sending it again changes nothing."""
    data = await read_body(request, MAX_BLOCK_BYTES)
    await asyncio.to_thread(services_of(request).bundles.put_block, sha256, data)
    return Response(status_code=204)


@router.post(
    "/bundles",
    operation_id="publishBundle",
    summary="Publish a bundle",
    response_model=BundleView,
    responses=problems(TooLargeError),
    openapi_extra=binary("application/json", Manifest.MAX_BYTES, "the exact bytes of manifest.json"),
)
async def post_bundle(request: Request) -> Response:
    """Take the exact bytes of a manifest.json; once no block is missing, the bundle can be rolled out."""
    services = services_of(request)
    manifest = await read_body(request, Manifest.MAX_BYTES)
    return await answer_once(request, lambda: BundleView.of(services.bundles.post(manifest, services.clock())))


@router.get("/bundles", operation_id="listBundles", summary="List bundles")
async def list_bundles(
    request: Request,
    page: Paging,
    *,
    name: Annotated[Word | None, Query(examples=["digits"])] = None,
    version: Annotated[Word | None, Query(examples=["2"])] = None,
    complete: Annotated[
        bool | None, Query(examples=[True], description="all blocks are here, and it is signed")
    ] = None,
) -> BundleList:
    """List bundles, newest first."""
    services, after = services_of(request), page.after(float, str)
    wanted = BundleFilter(name=name, version=version, complete=complete)
    rows = await services.serial.read(
        services.bundles.page, wanted, None if after is None else (float(after[0]), str(after[1])), page.limit + 1
    )
    items = [BundleDetail.of(row) for row in page.cut(rows)]
    return BundleList(items=items, next=page.next(rows, lambda row: (row.created_at, row.digest)))


@router.get(
    "/bundles/{prefix}",
    operation_id="getBundle",
    summary="Show a bundle",
    responses=problems(NotFoundError, ConflictError),
)
async def get_bundle(request: Request, prefix: Prefix) -> BundlePage:
    """Show the bundle whose digest begins so: what it holds for which devices, who signed it, where it runs.

    409 when several begin so.
    """
    services = services_of(request)
    return BundlePage.from_facts(await services.serial.read(services.bundles.facts, prefix))

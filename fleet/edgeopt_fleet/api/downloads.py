"""Routes for devices that download over HTTP: blocks and files of bundles, with Range and ETag.

The entity tag is the SHA-256 of what it names, so a download that goes on later cannot mix two versions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from edgeopt_fleet.api.responses import Responses, problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import Digest
from edgeopt_fleet.problems import NotFoundError, RangeError
from edgeopt_fleet.ranges import ByteRange, UnsatisfiableRangeError, wanted_bytes

__all__ = ["router"]

router = APIRouter(tags=["downloads"])
_BYTES = "application/octet-stream"
_CONTENT = {_BYTES: {"schema": {"type": "string", "format": "binary"}}}
_DESCRIPTION: Responses = {
    200: {"content": _CONTENT},
    206: {"content": _CONTENT, "description": "A part of it"},
    **problems(NotFoundError, RangeError),
}


@router.get(
    "/blocks/{sha256}",
    operation_id="getBlock",
    summary="Download a block",
    response_class=Response,
    responses=_DESCRIPTION,
)
async def get_block(
    request: Request, sha256: Digest, range_: Annotated[str | None, Header(alias="Range")] = None
) -> Response:
    """Give a device the block, or the manifest, with this hash."""
    services = services_of(request)
    data = services.downloads.kept(sha256)
    if data is None:
        data = await services.serial.read(services.downloads.named, sha256)
    part = _wanted(range_, len(data))
    body = data if part is None else data[part.first : part.last + 1]
    return Response(body, status_code=200 if part is None else 206, media_type=_BYTES, headers=_headers(sha256, part))


@router.get(
    "/bundles/{digest}/files/{path}",
    operation_id="getFile",
    summary="Download a file of a bundle",
    response_class=StreamingResponse,
    responses=_DESCRIPTION,
)
async def get_file(
    request: Request,
    digest: Digest,
    path: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}$", examples=["int8.onnx"])],
    range_: Annotated[str | None, Header(alias="Range")] = None,
    if_range: Annotated[str | None, Header(alias="If-Range")] = None,
) -> StreamingResponse:
    """Give a device a file of a bundle, or the part of it that it misses."""
    services = services_of(request)
    entry = await services.serial.read(services.downloads.entry, digest, path)
    unchanged = if_range is None or if_range == f'"{entry.sha256}"'
    part = _wanted(range_ if unchanged else None, entry.size)
    first, last = (0, entry.size - 1) if part is None else (part.first, part.last)
    return StreamingResponse(
        _in_threads(services.downloads.read(entry, first, last)),
        status_code=200 if part is None else 206,
        media_type=_BYTES,
        headers={**_headers(entry.sha256, part), "Content-Length": str(last + 1 - first)},
    )


def _wanted(header: str | None, size: int) -> ByteRange | None:
    try:
        return wanted_bytes(header, size)
    except UnsatisfiableRangeError as error:
        raise RangeError(str(error)) from error


def _headers(tag: str, part: ByteRange | None) -> dict[str, str]:
    headers = {"ETag": f'"{tag}"', "Accept-Ranges": "bytes", "Cache-Control": "private, immutable, max-age=31536000"}
    return headers if part is None else {**headers, "Content-Range": str(part)}


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Read each piece from the disk in a thread, one ahead of none: a slow device holds one block, not a file."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece

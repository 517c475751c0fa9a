"""Routes for devices that download over HTTP: blocks and files of bundles, with Range and ETag.

The entity tag is the SHA-256 of what it names, so a download that goes on later cannot mix two versions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from edgeopt_contract.manifest import FileEntry
from edgeopt_fleet.api.responses import Responses, problems
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.api.views import DIGEST_EXAMPLE, Digest
from edgeopt_fleet.problems import NotFoundError, RangeError
from edgeopt_fleet.ranges import ByteRange, UnsatisfiableRangeError, wanted_bytes

__all__ = ["block_answer", "file_answer", "router"]

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
    request: Request,
    sha256: Digest,
    range_: Annotated[str | None, Header(alias="Range", examples=["bytes=65536-"])] = None,
) -> Response:
    """Give a device the block, or the manifest, with this hash."""
    services = services_of(request)
    data = services.downloads.kept(sha256)
    if data is None:
        data = await services.serial.read(services.downloads.named, sha256)
    return block_answer(sha256, data, range_)


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
    range_: Annotated[str | None, Header(alias="Range", examples=["bytes=65536-"])] = None,
    if_range: Annotated[str | None, Header(alias="If-Range", examples=[f'"{DIGEST_EXAMPLE}"'])] = None,
) -> StreamingResponse:
    """Give a device a file of a bundle, or the part of it that it misses."""
    services = services_of(request)
    entry = await services.serial.read(services.downloads.entry, digest, path)
    part = _wanted_part(entry, range_, if_range)
    first, last = (0, entry.size - 1) if part is None else (part.first, part.last)
    return StreamingResponse(
        _in_threads(services.downloads.read(entry, first, last)),
        status_code=200 if part is None else 206,
        media_type=_BYTES,
        headers={**_headers(entry.sha256, part), "Content-Length": str(last + 1 - first)},
    )


def block_answer(sha256: str, data: bytes, range_: str | None) -> Response:
    """Return the block, or the part of it that is asked for. Raises :class:`RangeError`."""
    return _part_of(data, sha256, _wanted(range_, len(data)))


def file_answer(entry: FileEntry, data: bytes, range_: str | None, if_range: str | None) -> Response:
    """Return the whole of a small file, or the part of it that is asked for. Raises :class:`RangeError`."""
    return _part_of(data, entry.sha256, _wanted_part(entry, range_, if_range))


def _part_of(data: bytes, tag: str, part: ByteRange | None) -> Response:
    body = data if part is None else data[part.first : part.last + 1]
    return Response(body, status_code=200 if part is None else 206, media_type=_BYTES, headers=_headers(tag, part))


def _wanted_part(entry: FileEntry, range_: str | None, if_range: str | None) -> ByteRange | None:
    """Return which part; all of it when somebody began with another version of the file."""
    unchanged = if_range is None or if_range == f'"{entry.sha256}"'
    return _wanted(range_ if unchanged else None, entry.size)


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

"""Request bodies that are bytes with a limit, and how the OpenAPI describes them.

Example::

    @router.put("/blocks/{sha256}", openapi_extra=binary("application/octet-stream", MAX_BLOCK_BYTES, "the block"))
    async def put_block(request: Request, sha256: str) -> Response:
        data = await read_body(request, at_most=MAX_BLOCK_BYTES)
"""

from __future__ import annotations

from typing import Any

from fastapi import Request

from edgeopt_fleet.problems import TooLargeError

__all__ = ["binary", "read_body"]


async def read_body(request: Request, at_most: int) -> bytes:
    """Return the body; stops reading and raises :class:`TooLargeError` beyond ``at_most`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > at_most:
            raise TooLargeError(f"expected a body of at most {at_most} bytes")
    return bytes(body)


def binary(media_type: str, at_most: int, description: str) -> dict[str, Any]:
    """Return the part of an operation that describes a body whose bytes matter, not only its meaning."""
    schema = {"description": f"{description}; at most {at_most} bytes"}
    schema |= {"type": "string", "format": "binary"} if media_type == "application/octet-stream" else {"type": "object"}
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}

"""Request bodies that are bytes with a limit.

Example::

data = await read_body(request, at_most=MAX_BLOCK_BYTES)
"""

from __future__ import annotations

from fastapi import Request

from edgeopt_fleet.problems import TooLargeError

__all__ = ["read_body"]


async def read_body(request: Request, at_most: int) -> bytes:
    """Return the body; stops reading and raises :class:`TooLargeError` beyond ``at_most`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > at_most:
            raise TooLargeError(f"expected a body of at most {at_most} bytes")
    return bytes(body)

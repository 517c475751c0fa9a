"""Who asks, for routes that want to know; :mod:`edgeopt_fleet.api.guard` has let them in before.

Example::

    @router.get("/blocks/{sha256}")
    async def get_block(device: Annotated[str, Depends(device_of)], sha256: str) -> Response: …
"""

from __future__ import annotations

from fastapi import Request

from edgeopt_fleet.acting import Actor

__all__ = ["actor_of", "device_of"]


def actor_of(request: Request) -> Actor:
    """Return who asks."""
    actor = request.state.actor
    assert isinstance(actor, Actor)
    return actor


async def device_of(request: Request) -> str:
    """Return which device asks, on a route that the table of rights gives to devices."""
    return actor_of(request).name.removeprefix("device/")

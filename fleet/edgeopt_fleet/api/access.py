"""Who may call what: operators by the key of operator.json, devices by the bearer of their identity.

Both are FastAPI dependencies. Example::

    @router.get("/blocks/{sha256}")
    async def get_block(device: Annotated[str, Depends(device_of)], sha256: str) -> Response: …
"""

from __future__ import annotations

from fastapi import Request

from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.problems import UnauthorizedError

__all__ = ["device_of", "operator_only"]


async def operator_only(request: Request) -> None:
    """Let the holder of an operator's key through. Raises :class:`UnauthorizedError`."""
    services = services_of(request)
    key = _bearer(request)
    if key is None or not await services.serial(services.registry.is_api_key, key):
        raise UnauthorizedError(
            "expected 'Authorization: Bearer <key>' with the key from operator.json; it is missing or wrong"
        )


async def device_of(request: Request) -> str:
    """Return the device whose bearer the request carries. Raises :class:`UnauthorizedError`."""
    services = services_of(request)
    bearer = _bearer(request)
    device = None
    if bearer is not None:
        device = await services.serial(services.identities.device_of_bearer, bearer, int(services.clock()))
    if device is None:
        raise UnauthorizedError(
            "expected 'Authorization: Bearer <bearer>' with the bearer of a device's identity; it is missing, expired "
            "or revoked: renew the identity, or enrol again"
        )
    return device


def _bearer(request: Request) -> str | None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None

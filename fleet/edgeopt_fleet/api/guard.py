"""The guard in front of all routes: who asks, how often, and whether the role allows it.

It decides by the table in :mod:`edgeopt_fleet.rights`, before a byte of the body is read, and says for whom the rest of
the request acts. A path that is not in the table is for admins, so a route that somebody forgot there opens nothing.
Example::

    app.add_middleware(Guard, services=services, reads=reads)
"""

from __future__ import annotations

import math

from starlette.types import ASGIApp, Receive, Scope, Send

from edgeopt_fleet.acting import NOBODY, Actor, acting_as
from edgeopt_fleet.api.direct import Direct, header_of
from edgeopt_fleet.api.reads import DeviceReads
from edgeopt_fleet.api.responses import answer_problem
from edgeopt_fleet.api.services import Services
from edgeopt_fleet.problems import ForbiddenError, ProblemError, RateLimitedError, UnauthorizedError
from edgeopt_fleet.rates import Limiter
from edgeopt_fleet.rights import Caller, Role, least_of, operation_for

__all__ = ["Guard", "device_actor"]

_ENROLLING = ("/api/v1/devices/enrol", "/api/v1/devices/renew")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


class Guard:
    """ASGI middleware that lets through what is allowed."""

    def __init__(self, app: ASGIApp, services: Services, reads: DeviceReads) -> None:
        self._app = app
        self._services = services
        self._reads = reads
        self._direct = Direct(services.downloads, reads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with problem+json, or hand the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        operation = operation_for(scope["method"], scope["path"])
        try:
            actor = await self._admit(scope, operation)
            answer = await self._direct.answer(scope, operation)
        except ProblemError as error:
            await answer_problem(error, _headers(error))(scope, receive, send)
            return
        if answer is not None:
            await answer(scope, receive, send)
            return
        scope.setdefault("state", {})["actor"] = actor
        with acting_as(actor):
            await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, operation: str | None) -> Actor:
        """Return who acts. Raises :class:`UnauthorizedError`, :class:`ForbiddenError`, :class:`RateLimitedError`."""
        limits, path = self._services.limits, scope["path"]
        least = least_of(operation)
        address = scope["client"][0] if scope.get("client") else ""
        if least is Caller.ANYONE and path in _ENROLLING:
            _take(limits.enrolments, address, limits.clock(), ("enrolments", "enrolments from this address"))
            return NOBODY
        _take(limits.addresses, address, limits.clock(), ("address", "requests from this address"))
        if least is Caller.ANYONE:
            return NOBODY
        bearer = _bearer(scope)
        if least is Caller.DEVICE:
            return await self._device(bearer)
        actor = await self._user(bearer)
        limits.addresses.give_back(address)  # whoever has a key counts by the key
        _take(limits.keys, actor.name, limits.clock(), ("user", "requests with keys of this user"))
        assert isinstance(least, Role) and actor.role is not None  # noqa: PT018 - users have a role
        if not actor.role.covers(least):
            raise ForbiddenError(
                f"this needs the role {least} or higher, and {actor.name} is {actor.role}; ask an admin for it: "
                f"edgeopt users role {actor.name} {least}"
            )
        return actor

    async def _user(self, bearer: str | None) -> Actor:
        services = self._services
        holder = None
        if bearer is not None:
            holder = await services.serial.read(services.users.whose, bearer, services.clock())
        if holder is None:
            raise UnauthorizedError(
                "expected 'Authorization: Bearer <key>' with the key of a user, as in operator.json; it is missing, "
                "wrong, expired or revoked"
            )
        return Actor(name=holder.name, via="api", role=holder.role, key=holder.prefix)

    async def _device(self, bearer: str | None) -> Actor:
        services, now = self._services, int(self._services.clock())
        found = None
        if bearer is not None:
            found = await self._reads.bearer(bearer, now)
        if found is not None and found.revoked:
            await services.serial(services.identities.report_revoked, found.device, now)
        if found is None or not found.valid:
            raise UnauthorizedError(
                "expected 'Authorization: Bearer <bearer>' with the bearer of a device's identity; it is missing, "
                "expired or revoked: renew the identity, or enrol again"
            )
        return device_actor(found.device)


def device_actor(device: str) -> Actor:
    """Return a device as who acts."""
    return Actor(name=f"device/{device}", via="api")


def _bearer(scope: Scope) -> str | None:
    scheme, _, key = (header_of(scope, b"authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _take(limiter: Limiter, who: str, now: float, policy: tuple[str, str]) -> None:
    """Count a request of ``who``. Raises :class:`RateLimitedError`; ``policy`` is its name and what is limited."""
    seconds = limiter.take(who, now)
    if seconds > 0:
        wait, (name, what) = max(1, math.ceil(seconds)), policy
        quota, window = math.floor(limiter.rate.burst), math.ceil(limiter.rate.burst / limiter.rate.per_second)
        headers = {
            "Retry-After": str(wait),
            "RateLimit-Policy": f'"{name}";q={quota};w={window}',
            "RateLimit": f'"{name}";r=0;t={wait}',
        }
        raise RateLimitedError(f"too many {what}; wait {wait} s", headers)


def _headers(error: ProblemError) -> dict[str, str] | None:
    if isinstance(error, RateLimitedError):
        return dict(error.headers)
    return _CHALLENGE if isinstance(error, UnauthorizedError) else None

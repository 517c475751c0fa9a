"""The HTTP API.

It checks who asks and what, and leaves the rest to the stores and the worker. Errors are problem+json (RFC 9457).
Example::

    app = create_app(services)               # an ASGI application; nothing is started by making it
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.api import (
    alerts,
    approval,
    arms,
    audit,
    bundles,
    cohorts,
    devices,
    downloads,
    events,
    gate,
    identities,
    operations,
    rollouts,
    shadows,
    tokens,
    tuf,
    users,
)
from edgeopt_fleet.api.guard import Guard
from edgeopt_fleet.api.openapi import describe_api
from edgeopt_fleet.api.queries import refuse_unknown
from edgeopt_fleet.api.reads import DeviceReads
from edgeopt_fleet.api.responses import answer_problem, describe, problems_of_all
from edgeopt_fleet.api.services import Services
from edgeopt_fleet.problems import InvalidError, ProblemError, UnauthorizedError

__all__ = ["create_app"]

_LOG = logging.getLogger(__name__)
_ROUTERS = (  # who may call what stands in edgeopt_fleet.rights
    identities.public,
    tuf.public,
    downloads.router,
    devices.router,
    cohorts.router,
    identities.router,
    tokens.router,
    bundles.router,
    tuf.router,
    rollouts.router,
    gate.router,
    approval.router,
    arms.router,
    shadows.router,
    alerts.router,
    events.router,
    users.router,
    audit.router,
)


class _Api(FastAPI):
    """FastAPI with a description of its own; it is made once."""

    def openapi(self) -> dict[str, Any]:
        if not self.openapi_schema:
            self.openapi_schema = describe_api(self)
        return self.openapi_schema


def create_app(services: Services) -> FastAPI:
    """Return the application over ``services``."""
    app = _Api(
        title="edgeopt fleet",
        version="1",
        summary="Devices, cohorts, bundles, rollouts and alerts of one fleet.",
        description="Guide and conventions: docs/api.md. Every refusal is application/problem+json (RFC 9457).",
        dependencies=[Depends(refuse_unknown)],
        responses=problems_of_all(),
        docs_url=None,  # the pages behind it load scripts from elsewhere; /openapi.json stands
        redoc_url=None,
    )
    app.state.services = services
    app.state.reads = reads = DeviceReads(services)
    app.add_middleware(Guard, services=services, reads=reads)
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(StorageError, _on_failure)
    app.add_exception_handler(Exception, _on_failure)
    app.include_router(operations.router)  # app.state.operations is theirs
    api = APIRouter(prefix="/api/v1")
    for router in _ROUTERS:
        api.include_router(router)
    app.include_router(api)
    return app


async def _on_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    challenge = {"WWW-Authenticate": "Bearer"} if error.status == UnauthorizedError.status else None
    return answer_problem(error, challenge)


async def _on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    """Name the first field that is wrong; the values are left out, one may be a secret."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part)[:80] for part in first["loc"] if part != "body") or "body"
    return describe("invalid", 422, "Invalid request", f"{where}: {first['msg']}")


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: an unknown path, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # a body that is no text
        return answer_problem(InvalidError(f"body: {error.detail}"))
    kind = status.phrase.lower().replace(" ", "-")
    detail = f"{error.detail}; see /openapi.json for what there is"
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return describe(kind, status, status.phrase, detail, headers)


def _methods(request: Request) -> set[str]:
    """Return all methods that the path has; the framework names those of the first route only."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return found


async def _on_failure(_request: Request, error: Exception) -> JSONResponse:
    _LOG.error("a request failed: %s", error, exc_info=None if isinstance(error, StorageError) else error)
    return answer_problem(error)

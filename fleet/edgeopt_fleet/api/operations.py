"""What load balancers and Prometheus ask: alive, ready, and the numbers. No key is asked for, and no secret is told.

Example::

    app.include_router(router)               # app.state.operations = Operations(metrics, watch)
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from edgeopt_fleet.api.views import Health
from edgeopt_fleet.metrics import CONTENT_TYPE, Metrics
from edgeopt_fleet.watch import Watch

__all__ = ["CheckView", "Operations", "ReadinessView", "create_probe", "router"]

router = APIRouter(tags=["operations"])


@dataclass(frozen=True, slots=True)
class Operations:
    """What the answers are made of."""

    metrics: Metrics
    watch: Watch


class CheckView(BaseModel):
    """One thing that was looked at."""

    name: str = Field(examples=["database"])
    ok: bool = Field(examples=[True])
    needed: bool = Field(examples=[True], description="whether this process can work without it")
    detail: str = Field(examples=["answers"])


class ReadinessView(BaseModel):
    """Whether this process can do its work, and how the others stand."""

    ready: bool = Field(examples=[True])
    checks: list[CheckView]


def create_probe(operations: Operations) -> FastAPI:
    """Return an application of a process that has no other: a worker, or a broker's node."""
    app = FastAPI(title="edgeopt fleet worker", docs_url=None, redoc_url=None)
    app.state.operations = operations
    app.include_router(router)
    return app


def _operations(request: Request) -> Operations:
    operations = request.app.state.operations
    assert isinstance(operations, Operations)
    return operations


@router.get("/healthz", operation_id="getHealth", summary="Is the process alive?")
async def health(request: Request) -> Health:
    """Say that this process answers, and whether the fleet hears its devices."""
    connected = _operations(request).watch.is_connected()
    return Health(status="ok", broker="connected" if connected else "disconnected")


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Can this process do its work?",
    response_model=ReadinessView,
    responses={503: {"model": ReadinessView, "description": "Something that it needs is not there"}},
)
async def readiness(request: Request) -> JSONResponse:
    """Name what this process needs and has, and who holds the roles."""
    found = _operations(request).watch.readiness()
    checks = [CheckView(name=c.name, ok=c.ok, needed=c.needed, detail=c.detail) for c in found.checks]
    content = ReadinessView(ready=found.ready, checks=checks).model_dump()
    return JSONResponse(content, status_code=200 if found.ready else 503)


@router.get(
    "/metrics",
    operation_id="getMetrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format 0.0.4"}},
)
async def metrics(request: Request) -> Response:
    """Return what this process counts and measures, and what the fleet is like."""
    return Response(_operations(request).metrics.exposition(), media_type=CONTENT_TYPE)

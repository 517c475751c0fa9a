"""Routes: the audit log, read and exported. Nothing here writes: entries come with the changes they tell of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from edgeopt_contract.audit import export_lines
from edgeopt_fleet.api.paging import Paging
from edgeopt_fleet.api.people_views import AuditList, AuditView
from edgeopt_fleet.api.services import services_of
from edgeopt_fleet.store.audit import AuditFilter

__all__ = ["router"]

router = APIRouter(tags=["audit"])
_LINES = "application/x-ndjson"
_LINES_AT_ONCE = 500
_EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {_LINES: {"schema": {"type": "string"}}}, "description": "one entry a line, and the end"}
}


@router.get("/audit", operation_id="listAudit", summary="List the audit log")
async def list_audit(
    request: Request,
    page: Paging,
    actor: Annotated[str, Query(max_length=80, examples=["alice"], description="who did it")] = "",
    operation: Annotated[str, Query(max_length=80, examples=["rollout.pause"], description="what was done")] = "",
    subject: Annotated[str, Query(max_length=160, examples=["rollout/v2"], description="to which thing")] = "",
) -> AuditList:
    """List who did what, newest first."""
    services = services_of(request)
    wanted = AuditFilter(actor=actor, operation=operation, subject=subject)
    found = await services.serial.read(services.audit.page, wanted, page.limit + 1, page.below())
    items = [AuditView.of(row) for row in page.cut(found)]
    return AuditList(items=items, next=page.next(found, lambda row: (row.number,)))


@router.get(
    "/audit/export", operation_id="exportAudit", summary="Export the audit log", response_class=StreamingResponse,
    responses=_EXPORTED,
)  # fmt: skip
async def export_audit(request: Request) -> StreamingResponse:
    """Give the whole log as lines of JSON, oldest first, as `edgeopt-fleet audit verify` reads them."""
    return StreamingResponse(_in_threads(export_lines(services_of(request).audit.entries())), media_type=_LINES)


async def _in_threads(lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Read some lines from the database at a time, in a thread."""

    def some() -> bytes:
        return b"".join(islice(lines, _LINES_AT_ONCE))

    while chunk := await asyncio.to_thread(some):
        yield chunk

"""Route: server-sent events, for whoever watches rollouts, shadows, devices or alerts.

A stream is read from the database, not from a queue in this process: an id that a client saw from one API process is
understood by every other one, and after a restart. A slow client costs one page of changes, and gets the newest state
when it is ready for it. See :mod:`edgeopt_fleet.store.feed`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.api.alerts import AlertView
from edgeopt_fleet.api.device_views import DeviceView
from edgeopt_fleet.api.responses import Responses
from edgeopt_fleet.api.rollout_views import RolloutView
from edgeopt_fleet.api.services import Services, services_of
from edgeopt_fleet.api.shadow_views import ShadowView
from edgeopt_fleet.api.watchers import POLL_SECONDS
from edgeopt_fleet.problems import InvalidError
from edgeopt_fleet.store.feed import Change, Position, Topic
from edgeopt_fleet.store.rollout_reports import RolloutReport
from edgeopt_fleet.store.shadow_rows import ShadowReport
from edgeopt_fleet.store.tables import AlertRow

__all__ = ["router"]

router = APIRouter(tags=["events"])

_EVENT_STREAM = "text/event-stream"
_EVENT_ID = r"^[0-9]{1,16}(\.(alerts\.[0-9]{16}|(devices|rollouts|shadows)\.[A-Za-z0-9._-]{1,64}))?$"
_PAGE = 200
_HEARTBEAT_SECONDS = 15.0  # shorter than what proxies call idle
_LONGEST_SECONDS = 900  # then the client comes again, and its key is looked at anew
_RETRY_MILLISECONDS = 1000
_DESCRIBED: Responses = {
    200: {
        "description": "Events. `id` is what Last-Event-ID takes; `event` is ready, device, rollout, shadow or "
        "alert; `data` is JSON: nothing, or what the list of that thing shows of it",
        "content": {
            _EVENT_STREAM: {
                "schema": {  # of one event
                    "type": "object",
                    "required": ["event", "id", "data"],
                    "properties": {
                        "event": {"enum": ["ready", "device", "rollout", "shadow", "alert"]},
                        "id": {"type": "string", "pattern": _EVENT_ID},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                        "retry": {"type": "integer"},
                    },
                },
                "example": {"event": "ready", "id": "812", "data": "{}"},
            }
        },
    },
}


@router.get(
    "/events",
    operation_id="watchEvents",
    summary="Watch what changes",
    response_class=StreamingResponse,
    responses=_DESCRIBED,
)
async def watch_events(
    request: Request,
    *,
    topic: Annotated[
        list[Topic], Query(max_length=len(Topic), description="what to watch; nothing given means everything")
    ] = [],  # noqa: B006  # FastAPI copies it
    seconds: Annotated[
        int, Query(ge=0, le=_LONGEST_SECONDS, description="end after so long; 0: only what there is now")
    ] = _LONGEST_SECONDS,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID", pattern=_EVENT_ID, examples=["812"], description="the id of an event: go on after it"
        ),
    ] = None,
) -> StreamingResponse:
    """Send each device, rollout, shadow or alert that changes, as server-sent events.

    States are told, not history: what changes often is told as it is when the client can take it. The first event is
    `ready`; without Last-Event-ID its id is the present, so what is read after it misses nothing.
    """
    services = services_of(request)
    services.watchers.check_room()
    if last_event_id is None:
        position = await services.serial.read(services.feed.position)
    else:
        position = _parse(last_event_id)
    stream = _events(services, position, frozenset(topic or Topic), seconds)
    return StreamingResponse(
        stream, media_type=_EVENT_STREAM, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


def _parse(text: str) -> Position:
    try:
        return Position.parse(text)
    except ValueError as error:
        raise InvalidError(f"Last-Event-ID: {error}") from error


async def _events(
    services: Services, position: Position, topics: frozenset[Topic], seconds: float
) -> AsyncIterator[bytes]:
    began = time.monotonic()
    with services.watchers.counted():
        yield f"retry: {_RETRY_MILLISECONDS}\n".encode() + _event("ready", position, "{}")
        spoke, first = time.monotonic(), True
        while True:
            end, changes = await _look(services, position, topics, now_at_least=first)
            first = False
            for change in changes:
                yield _event(*_shown(change))
            position = changes[-1].position if changes else max(position, end)
            now = time.monotonic()
            if changes:
                spoke = now
                continue
            if now - began >= seconds:
                return
            if now - spoke >= _HEARTBEAT_SECONDS:
                yield b": still here\n\n"
                spoke = now
            await asyncio.sleep(POLL_SECONDS)


async def _look(
    services: Services, position: Position, topics: frozenset[Topic], *, now_at_least: bool
) -> tuple[Position, Sequence[Change]]:
    """Return where the feed ends and what is new; a database that fails for a moment is asked again."""
    try:
        end = await services.watchers.end(services.serial, services.feed, now_at_least=now_at_least)
        if end <= position:
            return end, ()
        return end, await services.serial.read(services.feed.since, position, topics, _PAGE)
    except StorageError:
        return position, ()


def _shown(change: Change) -> tuple[str, Position, str]:
    """Return the name of an event, its place, and what it tells."""
    thing = change.thing
    view: BaseModel
    if isinstance(thing, RolloutReport):
        name, view = "rollout", RolloutView.of(thing)
    elif isinstance(thing, ShadowReport):
        name, view = "shadow", ShadowView.of(thing)
    elif isinstance(thing, AlertRow):
        name, view = "alert", AlertView.of(thing)
    else:
        name, view = "device", DeviceView.of(thing)
    return name, change.position, view.model_dump_json()


def _event(name: str, position: Position, data: str) -> bytes:
    """Return one event on the wire; JSON has no line breaks in it."""
    return f"event: {name}\nid: {position}\ndata: {data}\n\n".encode()

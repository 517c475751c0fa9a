"""What is noticed about every request: an id, how long the answer took, and a line in the log.

It wraps the application and looks at no body and no header but ``X-Request-ID``, which a proxy may have set. Durations
are counted by route template, so that names of devices do not become series. Example::

    app = Observed(create_app(services), metrics)
"""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeopt_fleet.logs import with_request_id
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.rights import operation_for

__all__ = ["Observed"]

_LOG = logging.getLogger(__name__)
_HEADER = b"x-request-id"
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")  # nothing else gets into a log


class Observed:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._seconds = metrics.http_request_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        identifier = given if _PLAIN.fullmatch(given) else uuid.uuid4().hex.encode()
        started = time.perf_counter()
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER, identifier)]
            await send(message)

        with with_request_id(identifier.decode()):
            try:
                await self._app(scope, receive, send_marked)
            finally:
                self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and log an answer; status 0: the client went away before there was one."""
        operation = operation_for(scope["method"], scope["path"]) or "other unknown"
        method, _, route = operation.partition(" ")
        self._seconds.labels(method=method, route=route, status=str(status)).observe(seconds)
        facts = {"event": "http.answered", "method": method, "route": route, "status": status}
        level = logging.DEBUG if method == "GET" and 0 < status < 400 else logging.INFO  # reads are many
        milliseconds = 1000 * seconds
        _LOG.log(
            level,
            "%s %s %d in %.1f ms",
            method,
            route,
            status,
            milliseconds,
            extra={**facts, "seconds": round(seconds, 6)},
        )

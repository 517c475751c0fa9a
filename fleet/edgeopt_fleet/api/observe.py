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

__all__ = ["Observed"]

_LOG = logging.getLogger(__name__)
_HEADER = b"x-request-id"
_PLAIN = re.compile(rb"[A-Za-z0-9._-]{1,64}")  # nothing else gets into a log
_QUIET = ("/healthz", "/readyz", "/metrics")  # asked every few seconds
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


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
        route = getattr(scope.get("route"), "path_format", "unknown")
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
        self._seconds.labels(method=method, route=route, status=str(status)).observe(seconds)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        facts = {
            "event": "http.answered",
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 6),
        }
        _LOG.log(level, "%s %s %d in %.1f ms", method, route, status, 1000 * seconds, extra=facts)

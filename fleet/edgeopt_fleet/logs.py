"""Logs: lines for people, or one JSON object a line for programs.

A record's ``event`` and other extra fields stand in the object; the id of the request that is being answered is added
to every line that is written meanwhile. Secrets are never handed to a logger. Example::

    configure("json", logging.INFO)
    log.info("took the role %s", role, extra={"event": "role.taken", "role": role})
    # {"time": "2026-11-22T10:00:00.123Z", "level": "info", "logger": …, "event": "role.taken", "message": …, …}
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TextIO

__all__ = ["configure", "request_id", "with_request_id"]

_REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def request_id() -> str:
    """Return the id of the request that is being answered here, or nothing."""
    return _REQUEST.get()


@contextlib.contextmanager
def with_request_id(given: str) -> Iterator[None]:
    """Let every line that is logged here carry ``given``."""
    token = _REQUEST.set(given)
    try:
        yield
    finally:
        _REQUEST.reset(token)


def configure(style: str, level: int, stream: TextIO | None = None) -> None:
    """Send what is logged to ``stream`` (by default stderr) in ``style``, ``text`` or ``json``, from ``level`` on.

    The fleet's own lines are always shown from INFO on.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    handler.addFilter(_add_request)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("edgeopt_fleet").setLevel(min(level, logging.INFO))


def _add_request(record: logging.LogRecord) -> bool:
    given = _REQUEST.get()
    if given:
        record.request_id = given
    return True


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, with the request's id at its end."""
        given = getattr(record, "request_id", "")
        return super().format(record) + (f" [{given}]" if given else "")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return one JSON object."""
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN and name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)

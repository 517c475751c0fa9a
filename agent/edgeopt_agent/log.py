"""Structured logs: one JSON object a line on standard error (journald takes it from there), and in a file on request.

A line that comes again and again is limited, so that a broker that is away for a day gives tens of lines; what was left
out is counted in ``suppressed``. Secrets are never passed in, and what looks like one is blotted out all the same.
Example::

    log_event("fetched", job="r1.cam-7", blocks=12)
    # {"at":"2026-11-22T10:45:39.123Z","level":"info","event":"fetched","job":"r1.cam-7","blocks":12}
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from pathlib import Path

from edgeopt_agent.repetition import Repetition
from edgeopt_contract.storage import storage_errors

__all__ = ["configure_logging", "log_event"]

_LOGGER = logging.getLogger("edgeopt_agent")
_LONGEST_VALUE = 400
_LONGEST_TRACE = 8000
_FILE_BYTES = 512 << 10  # and as much again in the file before
_SECRET = re.compile(
    r"eo1\.[\w-]+\.[\w-]+|(?<=[Bb]earer )[\w.~+/=-]+|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*-----|$)",
    re.DOTALL,
)


def configure_logging(file: Path | None = None) -> None:
    """Send the agent's events to standard error and, if given, to ``file``; other libraries only from errors on.

    ``file`` and the one before it take at most 1 MiB. Raises :class:`StorageError` when it cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file is not None:
        from logging.handlers import RotatingFileHandler  # many modules, which stay in memory

        with storage_errors(file):
            handlers.append(RotatingFileHandler(file, maxBytes=_FILE_BYTES, backupCount=1, encoding="utf-8"))
    logging.basicConfig(handlers=handlers, level=logging.ERROR, force=True)
    logging.raiseExceptions = False  # a log that cannot be written must not take the agent down
    limit = _Limit()
    for handler in handlers:
        handler.setFormatter(_Lines())
        handler.addFilter(limit)
    _LOGGER.setLevel(logging.INFO)


def log_event(event: str, *, level: int = logging.INFO, trace: bool = False, **fields: object) -> None:
    """Log ``event`` with its fields; what is None is left out, long text is cut.

    ``trace`` adds where the exception that is being handled came from.
    """
    shown = {"event": event, **{key: _value(value) for key, value in fields.items() if value is not None}}
    _LOGGER.log(level, "%s", json.dumps(shown, separators=(",", ":")), exc_info=trace)


class _Limit(logging.Filter):
    """Lets a line through unless it has come too often; all handlers get the same answer."""

    def __init__(self) -> None:
        super().__init__()
        self._repetition = Repetition()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.__dict__  # where logging keeps what is added to a record
        if "suppressed" not in said:
            said["suppressed"] = self._repetition.suppressed(record.getMessage(), time.monotonic())
        return said["suppressed"] is not None


class _Lines(logging.Formatter):
    """One line of JSON for each record, whoever wrote it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = record.getMessage()
        if record.name != _LOGGER.name or not message.startswith("{"):
            message = json.dumps({"event": "message", "logger": record.name, "text": _value(message)})
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = f'{{"at":"{at}.{record.msecs:03.0f}Z","level":"{record.levelname.lower()}",'
        tail = ""
        if record.exc_info:
            tail += f',"trace":{json.dumps(self.formatException(record.exc_info)[-_LONGEST_TRACE:])}'
        if suppressed := record.__dict__.get("suppressed"):
            tail += f',"suppressed":{suppressed}'
        return _SECRET.sub("***", f"{head}{message[1:-1]}{tail}}}")


def _value(value: object) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else str(value)
    return str(value)[:_LONGEST_VALUE]

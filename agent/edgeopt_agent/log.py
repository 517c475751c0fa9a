"""Structured logs: one line of ``key=value`` pairs on standard error. Secrets are never passed in.

Example::

    log_event("fetched", job="r1.cam-7", blocks=12)      # ts=… level=info event=fetched job=r1.cam-7 blocks=12
"""

from __future__ import annotations

import logging
import sys

__all__ = ["configure_logging", "log_event"]

_LOGGER = logging.getLogger("edgeopt_agent")
_LONGEST_VALUE = 400


def configure_logging() -> None:
    """Send the agent's events to standard error; other libraries only from errors on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("ts=%(created).3f level=%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.ERROR, force=True)
    _LOGGER.setLevel(logging.INFO)


def log_event(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log ``event`` with its fields; text with blanks is quoted, control characters are escaped."""
    pairs = [f"{key}={_value(value)}" for key, value in fields.items() if value is not None]
    _LOGGER.log(level, "%s", " ".join([f"event={event}", *pairs]))


def _value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    text = text[:_LONGEST_VALUE]
    if text and text.isprintable() and not any(character in text for character in ' "='):
        return text
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'

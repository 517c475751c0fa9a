"""Keeps out of the agent's memory what its libraries import and it never uses: 2.7 MB of 25 (``make bench-agent``).

paho-mqtt imports ``urllib.request`` (and with it ``http.client`` and ``email``) for proxies of WebSockets; msgspec
prefers ``typing_extensions`` to the standard library's ``typing``, which has the same since Python 3.11. To be called
before anything else is imported; when something does use ``urllib.request`` it is loaded then. Example::

    keep_lean()
    from edgeopt_agent.app import run_agent
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["keep_lean"]


def keep_lean() -> None:
    """Let ``urllib.request`` be loaded when it is used, and msgspec without ``typing_extensions``."""
    _load_when_used("urllib", "request")
    if "typing_extensions" not in sys.modules:
        sys.modules["typing_extensions"] = None  # type: ignore[assignment]  # importing it fails, as if not installed
        try:
            importlib.import_module("msgspec")
        finally:
            del sys.modules["typing_extensions"]


def _load_when_used(package: str, name: str) -> None:
    """Put an empty module in place that becomes the real one when something is looked up in it.

    ``importlib.util.LazyLoader`` does not serve: before Python 3.12 the second ``import`` of the module loads it.
    """
    path = f"{package}.{name}"
    if path in sys.modules:
        return

    def look_up(attribute: str) -> Any:
        if sys.modules.get(path) is placeholder:
            del sys.modules[path]
        return getattr(importlib.import_module(path), attribute)

    placeholder = ModuleType(path)
    placeholder.__getattr__ = look_up  # type: ignore[method-assign]  # PEP 562
    sys.modules[path] = placeholder
    setattr(importlib.import_module(package), name, placeholder)

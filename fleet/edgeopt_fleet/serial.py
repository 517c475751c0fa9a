"""Blocking calls, one after the other, on one thread: how the event loop uses the database.

SQLite has one writer; taking turns here costs less than waiting for its lock. Example::

    serial = Serial()
    device = await serial(registry.device, "cam-7")
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["Serial"]

P = ParamSpec("P")
R = TypeVar("R")


class Serial:
    """A queue of calls with one thread behind it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")

    async def __call__(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``call`` after all calls before it and return what it returns."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Finish the calls that wait, then end the thread."""
        self._executor.shutdown(wait=True)

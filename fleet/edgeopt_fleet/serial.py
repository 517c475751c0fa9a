"""Blocking calls on threads: how the event loop uses the database.

Calls that write take turns where the database has one writer (SQLite): waiting here costs less than waiting for its
lock. Calls that only read have threads of their own, and never wait for one that writes. Example::

    serial = Serial(writers=1)
    await serial(registry.put_cohort, "oslo", {"site": "oslo"})
    device = await serial.read(registry.device, "cam-7")
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["Serial"]

P = ParamSpec("P")
R = TypeVar("R")

_READERS = 4


class Serial:
    """A queue of calls that write and one of calls that read, each with threads behind it.

    With one writer, calls that write happen one after the other, in the order in which they were made.
    """

    def __init__(self, writers: int = 1) -> None:
        self._writers = ThreadPoolExecutor(max_workers=writers, thread_name_prefix="database")
        self._readers = ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="reading")

    async def __call__(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``call``, which may write, and return what it returns."""
        return await _run(self._writers, lambda: call(*args, **kwargs))

    async def read(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run ``call``, which uses :meth:`~edgeopt_fleet.store.database.Database.reading` only."""
        return await _run(self._readers, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Finish the calls that wait, then end the threads."""
        self._readers.shutdown(wait=True)
        self._writers.shutdown(wait=True)


async def _run(executor: ThreadPoolExecutor, call: Callable[[], R]) -> R:
    """Run ``call`` on a thread, with the context variables of who asks."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(executor, lambda: context.run(call))

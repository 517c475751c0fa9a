"""Ending asyncio tasks for certain.

On Python 3.11 a cancellation can get lost: ``asyncio.wait_for``, which aiomqtt uses, swallows it when what it waits
for ends in the same moment (python/cpython#86296). So one ``cancel()`` is not enough. Example::

    await end_tasks([task])
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

__all__ = ["end_tasks"]

_AGAIN_SECONDS = 3.0  # longer than any cleanup takes, so that none is cut short


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel ``tasks`` until every one has ended; what they raise is left for whoever awaits them."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)

"""Ending tasks that do not want to."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from edgeopt_agent import tasks


async def test_task_that_loses_a_cancellation_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that swallows the first cancellation gets another one."""
    monkeypatch.setattr(tasks, "_AGAIN_SECONDS", 0.01)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 3:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await tasks.end_tasks([task])
    assert (3, True) == (swallowed, task.cancelled())


async def test_cleanup_is_not_cut_short() -> None:
    """What a task does on its way out is done, and ended tasks are left alone."""
    cleaned = []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    task = asyncio.create_task(tidy())
    await asyncio.sleep(0)
    await tasks.end_tasks([task])
    await tasks.end_tasks([task])
    assert [1] == cleaned

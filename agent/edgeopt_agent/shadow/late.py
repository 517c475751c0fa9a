"""Starts the shadow's part of the agent when there is something for it to do; until then it takes no memory.

Nothing that goes wrong in there ends the agent: a device serves without its shadow. Example::

    late = LateShadow(make, was_given=spool.meta(META) != 0)
    group.create_task(late.run())
    late.receive(payload)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from edgeopt_agent.log import log_event

__all__ = ["META", "LateShadow", "ShadowPart"]

META = "shadow"  # the name of the record among the spool's small values


class ShadowPart(Protocol):
    """What :class:`edgeopt_agent.shadow.shell.Shadowing` does."""

    def receive(self, payload: bytes) -> None:
        """Take an order."""

    def update_changed(self) -> None:
        """Take notice of the update's state."""

    def ends_on_purpose(self) -> None:
        """Remember that the agent was told to end."""

    async def run(self) -> None:
        """Work until cancelled."""


class LateShadow:
    """See the module; ``was_given`` says whether this device was given a shadow before."""

    def __init__(self, make: Callable[[], ShadowPart], *, was_given: bool) -> None:
        self._make = make
        self._part: ShadowPart | None = None
        self._orders: list[bytes] = []
        self._is_wanted = asyncio.Event()
        if was_given:
            self._is_wanted.set()

    def receive(self, payload: bytes) -> None:
        """Hand on an order; none, to a device that was never given one, changes nothing."""
        if self._part is not None:
            self._part.receive(payload)
        elif payload or self._is_wanted.is_set():
            self._orders.append(payload)
            self._is_wanted.set()

    def update_changed(self) -> None:
        """Hand on that the update's state changed."""
        if self._part is not None:
            self._part.update_changed()

    def ends_on_purpose(self) -> None:
        """Hand on that the agent was told to end."""
        if self._part is not None:
            self._part.ends_on_purpose()

    async def run(self) -> None:
        """Wait until there is something to do, and do it until cancelled."""
        await self._is_wanted.wait()
        try:
            part = self._make()
            for payload in self._orders:
                part.receive(payload)
            self._part = part
            await part.run()
        except Exception:  # whatever it is, this device goes on serving
            self._part = None
            log_event("shadow_given_up", level=logging.ERROR, trace=True)

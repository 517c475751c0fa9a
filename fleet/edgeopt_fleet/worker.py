"""What happens by itself: rollouts go on, and cohorts are looked at for drift.

Save, then act: a step is committed before anything is published, and after a crash everything is published again.
Example::

    worker = Worker(Stores(rollouts, alerts), serial, link.announce, timing)
    group.create_task(worker.run())
    await worker.apply("v2", Event.PAUSED)       # an operator's order
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.rollout import Event
from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.alerts import Alerts
from edgeopt_fleet.store.rollouts import Rollouts

__all__ = ["Timing", "Worker"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often the worker looks, and at which clock (seconds since 1970)."""

    tick_seconds: float
    drift_look_seconds: float
    clock: Callable[[], float] = time.time


class Worker:
    """Moves rollouts on and looks for drift, one tick after the other."""

    def __init__(
        self,
        rollouts: Rollouts,
        alerts: Alerts,
        serial: Serial,
        announce: Callable[[Collection[str]], Awaitable[None]],
        timing: Timing,
    ) -> None:
        self._rollouts = rollouts
        self._alerts = alerts
        self._serial = serial
        self._announce = announce
        self._timing = timing
        self._next_look = 0.0

    async def run(self) -> None:
        """Tick until cancelled. A failing disk is logged and tried again; nothing was acted upon."""
        while True:
            try:
                await self.tick()
            except StorageError:
                _LOG.exception("this tick failed")
            await asyncio.sleep(self._timing.tick_seconds)

    async def tick(self) -> None:
        """Look once at every rollout that may go on, and at drift when it is time."""
        changed: set[str] = set()
        for name in await self._serial(self._rollouts.unsettled):
            changed |= await self._serial(self._rollouts.advance, name, self._timing.clock())
        if changed:
            await self._announce(changed)
        if self._timing.clock() >= self._next_look:
            self._next_look = self._timing.clock() + self._timing.drift_look_seconds
            await self._serial(self._alerts.look, self._timing.clock())

    async def apply(self, name: str, event: Event) -> None:
        """Carry out an operator's order. Raises a problem when the rollout's state does not allow it."""
        changed = await self._serial(self._rollouts.apply, name, event, self._timing.clock())
        if changed:
            await self._announce(changed)

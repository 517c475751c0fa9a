"""Moves rollouts on: what happens at each tick, and at an operator's order.

Save, then act: a step is committed, with what is to be published, before anything is published. It does not say when to
tick, and does not publish: ``announce`` wakes whoever holds the connection. Example::

    worker = Worker(rollouts, serial, announce)
    await worker.tick()
    await worker.announce(rollouts.apply("v2", Event.PAUSED, now))       # an operator's order
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection

from edgeopt_fleet.serial import Serial
from edgeopt_fleet.store.rollouts import Rollouts

__all__ = ["Worker"]


class Worker:
    """Looks at rollouts, and has devices told; ``clock`` gives seconds since 1970."""

    def __init__(
        self,
        rollouts: Rollouts,
        serial: Serial,
        announce: Callable[[Collection[str]], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rollouts = rollouts
        self._serial = serial
        self._announce = announce
        self._clock = clock

    async def tick(self) -> None:
        """Look once at every rollout that may go on. Raises :class:`StorageError`: nothing was acted upon then."""
        changed: set[str] = set()
        for name in await self._serial(self._rollouts.unsettled):
            changed |= await self._serial(self._rollouts.advance, name, self._clock())
        await self.announce(changed)

    async def announce(self, changed: Collection[str]) -> None:
        """Have the devices told whose desired state somebody's order changed; it is committed already."""
        if changed:
            await self._announce(changed)

"""Blocks over MQTT: each is a retained message whose topic is its hash.

Only as many questions are under way as the link needs (:mod:`edgeopt_agent.delivery.flow`). What the broker does not
have, or has damaged, goes to the end of the queue and is asked for again after a growing pause, so it never holds up
the others. It does not verify or write: the errand does. Example::

    carrier = MqttCarrier(link, MqttOptions(), Budget(None), Random())
    await carrier.bring(errand)
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from edgeopt_agent.delivery.errand import Errand, Wanted
from edgeopt_agent.delivery.flow import Budget, Flow, Passage
from edgeopt_agent.log import log_event
from edgeopt_agent.mqtt.backoff import full_jitter
from edgeopt_agent.mqtt.link import Arrival
from edgeopt_contract.errors import UnreachableError
from edgeopt_contract.topics import Topics

__all__ = ["BlockSource", "MqttCarrier", "MqttOptions"]


class BlockSource(Protocol):
    """Where retained messages come from; :class:`edgeopt_agent.mqtt.link.Link` is one."""

    async def wait_until_connected(self) -> None:
        """Return when there is a connection."""
        ...

    async def fetch(self, topic: str, patience_seconds: float) -> Arrival:
        """Return what is published on ``topic``, or raise :class:`UnreachableError`; never leaves a copy under way."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOptions:
    """How patient to be. ``give_up_seconds`` without a good block end the attempt; ``None`` never does."""

    block_timeout_seconds: float = 10.0
    retry_base_seconds: float = 0.2
    retry_cap_seconds: float = 10.0
    give_up_seconds: float | None = None


class MqttCarrier:
    """See the module."""

    name = "mqtt"

    def __init__(self, source: BlockSource, options: MqttOptions, budget: Budget, random: Random) -> None:
        self._source = source
        self._options = options
        self._budget = budget
        self._random = random
        self._flow = Flow(longest_patience_seconds=options.block_timeout_seconds)
        self._under_way = 0
        self._good_at = 0.0

    async def bring(self, errand: Errand) -> None:
        """Bring what ``errand`` misses.

        Raises :class:`UnreachableError` when no good block came for ``give_up_seconds``, and :class:`StorageError`.
        """
        self._good_at = time.monotonic()
        queue = _Queue(errand.missing)
        tasks: dict[asyncio.Task[bool], Wanted] = {}
        try:
            while queue or tasks:
                while len(tasks) < self._flow.window and (wanted := queue.next(time.monotonic())):
                    tasks[asyncio.create_task(self._obtain(errand, wanted))] = wanted
                await self._wait(tasks, queue)
                for task in [task for task in tasks if task.done()]:
                    wanted = tasks.pop(task)
                    if not task.result():
                        queue.put_back(wanted, time.monotonic(), self._pause)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, tasks: Collection[asyncio.Task[bool]], queue: _Queue) -> None:
        """Wait until a block has come, one is due again, or patience is at its end."""
        limit = self._options.give_up_seconds
        now = time.monotonic()
        deadlines = [] if limit is None else [self._good_at + limit]
        if deadlines and deadlines[0] <= now:
            raise UnreachableError(f"no good block came over MQTT for {limit:.0f} s")
        if queue.due_at is not None and len(tasks) < self._flow.window:
            deadlines.append(queue.due_at)
        seconds = max(0.0, min(deadlines) - now) if deadlines else None
        if tasks:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(seconds or 0.0)

    async def _obtain(self, errand: Errand, wanted: Wanted) -> bool:
        """Ask for one block once; say whether it came whole."""
        await asyncio.sleep(self._budget.take(wanted.size if wanted.exact else 0, time.monotonic()))
        await self._source.wait_until_connected()
        self._under_way += 1
        try:
            patience = self._flow.patience_seconds(self._under_way)
            arrival = await self._source.fetch(Topics.block(wanted.sha256), patience)
        except UnreachableError as error:
            errand.counts.unanswered += 1
            log_event("block_unanswered", level=logging.WARNING, block=wanted.sha256[:12], reason=error)
            return False
        finally:
            self._under_way -= 1
        if not wanted.exact:
            self._budget.take(len(arrival.payload), time.monotonic())
        if not await errand.take(wanted, arrival.payload):
            return False
        self._good_at = time.monotonic()
        passage = Passage(
            asked_at=arrival.asked_at,
            answered_at=arrival.answered_at,
            arrived_at=arrival.arrived_at,
            kept_at=self._good_at,
        )
        self._flow = self._flow.after(passage, len(arrival.payload))
        return True

    def _pause(self, attempt: int) -> float:
        return full_jitter(
            attempt,
            base_seconds=self._options.retry_base_seconds,
            cap_seconds=self._options.retry_cap_seconds,
            random=self._random,
        )


class _Queue:
    """What is still to be asked for: first what never was, then what failed, each when its pause is over."""

    def __init__(self, wanted: Iterable[Wanted]) -> None:
        self._fresh = deque(wanted)
        self._failed: list[tuple[float, str, Wanted]] = []  # a heap by due time
        self._attempts: Counter[str] = Counter()

    def __bool__(self) -> bool:
        return bool(self._fresh or self._failed)

    @property
    def due_at(self) -> float | None:
        """When the next one that failed may be asked for again."""
        return self._failed[0][0] if self._failed else None

    def next(self, now: float) -> Wanted | None:
        """Take out what may be asked for now."""
        if self._failed and self._failed[0][0] <= now:
            return heapq.heappop(self._failed)[2]
        return self._fresh.popleft() if self._fresh else None

    def put_back(self, wanted: Wanted, now: float, pause: Callable[[int], float]) -> None:
        """Ask for ``wanted`` again after the pause of its next attempt."""
        heapq.heappush(self._failed, (now + pause(self._attempts[wanted.sha256]), wanted.sha256, wanted))
        self._attempts[wanted.sha256] += 1

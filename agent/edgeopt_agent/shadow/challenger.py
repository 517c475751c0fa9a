"""The bundle that runs beside the champion: it sees answers when they have left, one at a time, and answers nobody.

What comes while it is busy is passed over and counted. Whatever it does wrong comes to :attr:`Challenger.ended`, and
to nobody else. When it has to run is :mod:`edgeopt_agent.shadow.shell`'s part. Example::

    challenger = Challenger(installed, champion, counts, options)
    await challenger.start()                        # [] when the self-test passed
    challenger.begin(share=0.1)
    serving.beside = challenger
    happened = await challenger.ended
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from edgeopt_agent.device.machine import resident_memory
from edgeopt_agent.inference.served import NotServingError, Served, ServedOptions
from edgeopt_agent.log import log_event
from edgeopt_agent.reports.counts import Counts
from edgeopt_agent.runner.frames import Champion, Tensor
from edgeopt_agent.shadow.lifecycle import Happened
from edgeopt_agent.shadow.room import is_sampled
from edgeopt_agent.shadow.transitions import Event
from edgeopt_agent.update.slots import Installed
from edgeopt_contract.agreement import PASSED_OVER, PAUSED_SECONDS
from edgeopt_contract.errors import EdgeoptError, StorageError
from edgeopt_contract.manifest import Role

__all__ = ["Challenger"]

_AFTER_SECONDS = 0.002  # the answer goes through some turns of the event loop before it is in the socket
_LAST_SECONDS = 2.0  # as long as a request of the champion may take when the agent ends
_FIRST_NEED_BYTES = 64 << 20  # of a runtime without a model


class Challenger:
    """See the module; ``ended`` is done when this shadow cannot go on."""

    def __init__(
        self,
        installed: Installed,
        champion: Installed,
        counts: Counts,
        options: ServedOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = counts
        self.champion = champion.digest
        self.ended: asyncio.Future[Happened] = asyncio.get_running_loop().create_future()
        golden = str(champion.path_with(Role.GOLDEN).absolute())
        against = Champion(golden, champion.variant.name)
        self._served = Served(installed, options, counts, self._changed, against)
        self._needs_bytes = _FIRST_NEED_BYTES + installed.model.size
        self._clock = clock
        self._share = 0.0
        self._seen = 0
        self._passed_over = 0
        self._paused_at: float | None = None
        self._paused_seconds = 0.0  # not counted yet
        self._work: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- runner ---------------------------------------------------------------------------------------------------

    async def start(self) -> list[str]:
        """Load the model and return what its self-test finds wrong. Raises as :meth:`Served.start`."""
        await self._served.start()
        return await self._served.self_test()

    @property
    def is_paused(self) -> bool:
        """Whether its runner was ended for a while."""
        return self._paused_at is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._timer is None and self._work is None

    @property
    def has_begun(self) -> bool:
        """Whether it compares, or would if it were not paused."""
        return self._share > 0

    @property
    def needs_bytes(self) -> int:
        """How much memory its runner takes, as far as is known."""
        return self._needs_bytes

    async def pause(self, reason: str) -> None:
        """End the runner at once, for a while; what it was comparing is not counted."""
        self.counts.notes = {"paused": reason}
        if self._paused_at is not None:
            return
        log_event("shadow_paused", reason=reason)
        self._paused_at = self._clock()
        pid = self._served.runner_pid
        self._needs_bytes = max(self._needs_bytes, resident_memory(pid) if pid else 0)
        self._let_go()
        await self._served.suspend(reason)

    def resume(self) -> None:
        """Start the runner again, in the background."""
        if self._paused_at is not None:
            log_event("shadow_resumed")
            self.tick()
            self._paused_at = None
            self.counts.notes = {}
            self._served.resume()

    async def stop(self) -> None:
        """End the runner; nothing is counted afterwards. What is being compared may come to its end."""
        self._share = 0.0
        if self._work is not None:
            await asyncio.wait([self._work], timeout=_LAST_SECONDS)
        self._let_go()
        await self._served.stop()
        self.tick()

    def tick(self) -> None:
        """Count what was passed over and how long it was paused since the last time."""
        cells = self.counts.layout.cells - 2  # SAMPLING is the last feature
        passed_over, self._passed_over = self._passed_over, 0
        if self._paused_at is not None:
            now = self._clock()
            self._paused_seconds, self._paused_at = self._paused_seconds + now - self._paused_at, now
        paused = int(self._paused_seconds)
        self._paused_seconds -= paused
        try:
            for cell, count in ((PASSED_OVER, passed_over), (PAUSED_SECONDS, paused)):
                if count:
                    self.counts.add(cells + cell, count)
        except StorageError as error:
            log_event("not_counted", level=logging.ERROR, reason=error)

    def _changed(self, served: Served) -> None:
        if served.health.fault:
            self._end(Happened(event=Event.FAULT, detail=served.health.fault))

    def _end(self, happened: Happened) -> None:
        if not self.ended.done():
            self.ended.set_result(happened)

    # --- what serving tells (edgeopt_agent.inference.serving.Beside) --------------------------------------------------

    def begin(self, share: float) -> None:
        """Compare this share of what is answered from now on."""
        self._share = share

    def saw(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], microseconds: float) -> None:
        """Hand an answer over when it is one of the share and nothing is under way; else pass over it."""
        self._seen += 1
        if not is_sampled(self._seen, self._share) or self._paused_at is not None:
            return
        if not self.is_idle or not self._served.is_ready:
            self._passed_over += 1
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_AFTER_SECONDS, self._hand_over, tuple(inputs), tuple(outputs), microseconds)

    async def give_way(self) -> None:
        """Leave memory and CPU to the candidate of an update."""
        await self.pause("an update is being tested")

    def champion_changed(self, running: str | None) -> None:
        """End when it is another bundle that answers."""
        if running not in (None, self.champion):
            self._end(Happened(event=Event.OVERTAKEN, detail="another bundle serves now"))

    def _hand_over(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], microseconds: float) -> None:
        self._timer = None
        self._work = asyncio.create_task(self._compare(inputs, outputs, microseconds))
        self._work.add_done_callback(self._handed_over)

    def _handed_over(self, work: asyncio.Task[None]) -> None:
        if self._work is work:
            self._work = None

    async def _compare(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], microseconds: float) -> None:
        try:
            await self._served.compare(inputs, outputs, microseconds)
        except NotServingError:
            self._passed_over += 1
        except EdgeoptError as error:  # counted; what it means for the shadow is said by its health
            log_event("shadow_failed", level=logging.WARNING, reason=error)
        except Exception as error:  # it must not be able to touch what serves, whatever it is
            log_event("unexpected", level=logging.ERROR, trace=True)
            self._end(Happened(event=Event.FAULT, detail=f"{type(error).__name__}: {error}"))

    def _let_go(self) -> None:
        """Forget what is about to be compared, and give up what is being compared."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self._work is not None:
            self._work.cancel()

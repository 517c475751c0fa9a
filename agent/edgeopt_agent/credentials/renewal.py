"""Keeps the identity valid: starts the short-lived process that renews it whenever it is time.

When that is, :mod:`edgeopt_agent.credentials.validity` says; whether the new identity takes over, the broker. Example::

    renewal = Renewal(data, random, reconnect=link.reconnect)
    group.create_task(renewal.run())
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from edgeopt_agent.credentials.identity import load_identity, load_renewal
from edgeopt_agent.credentials.validity import Validity
from edgeopt_agent.log import log_event
from edgeopt_agent.mqtt.backoff import full_jitter

__all__ = ["Renewal"]

_LONGEST_SLEEP_SECONDS = 3600.0  # the clock may be set meanwhile
_TIMEOUT_SECONDS = 120.0  # an emulated or busy small board takes seconds to import cryptography


class Renewal:
    """Renews the identity of this device for as long as the agent runs."""

    def __init__(
        self,
        data: Path,
        random: Random,
        *,
        reconnect: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._data = data
        self._random = random
        self._reconnect = reconnect
        self._clock = clock
        self._failures = 0

    async def run(self) -> None:
        """Renew whenever it is time, until cancelled."""
        share = self._random.random()
        while True:
            access = load_identity(self._data).access
            validity = Validity(access.valid_from, access.valid_until)
            wait = validity.due(share) - self._clock()
            if wait > 0:
                await asyncio.sleep(min(wait, _LONGEST_SLEEP_SECONDS))
                continue
            if self._is_there() or await self._renew():
                self._failures = 0
                self._reconnect()  # the broker decides whether the new identity takes over
                await asyncio.sleep(validity.patience)
            else:
                self._failures += 1
                await asyncio.sleep(self._pause(validity))

    def _pause(self, validity: Validity) -> float:
        """Return seconds to wait after a failure."""
        return full_jitter(
            self._failures, base_seconds=validity.retry_base, cap_seconds=validity.retry_cap, random=self._random
        )

    def _is_there(self) -> bool:
        """Say whether a renewed identity waits for the broker to let it in."""
        pending = load_renewal(self._data)
        return pending is not None and self._clock() < pending.access.valid_until

    async def _renew(self) -> bool:
        """Run the short-lived process; say whether a new identity is there."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edgeopt_agent.credentials.enrolment",
            str(self._data),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                said, _ = await process.communicate()
        except TimeoutError:
            said = b"no answer in time"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        good = process.returncode == 0 and self._is_there()
        level = logging.INFO if good else logging.WARNING
        last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        log_event("renewal" if good else "renewal_failed", level=level, failures=self._failures, reason=last)
        return good

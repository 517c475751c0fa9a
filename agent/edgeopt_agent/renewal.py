"""When the identity is renewed, and starting the short-lived process that does it.

At about two thirds of the certificate's life, spread so that devices that were enrolled together do not come together;
at once when it has expired already, for a device that was off for months may still renew with its old key. Example::

    renewal = Renewal(data, random, reconnect=link.reconnect)
    group.create_task(renewal.run())
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from edgeopt_agent.backoff import full_jitter
from edgeopt_agent.identity import load_identity, load_renewal
from edgeopt_agent.log import log_event

__all__ = ["Renewal", "Validity", "renewal_due", "retry_after"]

_LONGEST_SLEEP_SECONDS = 3600.0  # the clock may be set meanwhile
_TIMEOUT_SECONDS = 120.0  # an emulated or busy small board takes seconds to import cryptography
_LONGEST_RETRY_SECONDS = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid, in seconds since 1970."""

    begin: int
    end: int


def renewal_due(validity: Validity, share: float) -> float:
    """Return when to renew: after two thirds of the life and ``share`` (0 to 1) of another twelfth."""
    life = validity.end - validity.begin
    return validity.begin + life * (2 / 3 + share / 12)


def retry_after(failures: int, validity: Validity, random: Random) -> float:
    """Return seconds to wait after ``failures`` in a row: full jitter, within limits that suit the life."""
    life = validity.end - validity.begin
    return full_jitter(
        failures, base_seconds=min(60.0, life / 200), cap_seconds=min(_LONGEST_RETRY_SECONDS, life / 24), random=random
    )


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
            wait = renewal_due(validity, share) - self._clock()
            if wait > 0:
                await asyncio.sleep(min(wait, _LONGEST_SLEEP_SECONDS))
                continue
            if self._is_there() or await self._renew():
                self._failures = 0
                self._reconnect()  # the broker decides whether the new identity takes over
                await asyncio.sleep(min(_LONGEST_SLEEP_SECONDS, (validity.end - validity.begin) / 24))
            else:
                self._failures += 1
                await asyncio.sleep(retry_after(self._failures, validity, self._random))

    def _is_there(self) -> bool:
        """Say whether a renewed identity waits for the broker to let it in."""
        pending = load_renewal(self._data)
        return pending is not None and self._clock() < pending.access.valid_until

    async def _renew(self) -> bool:
        """Run the short-lived process; say whether a new identity is there."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edgeopt_agent.enrolment",
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

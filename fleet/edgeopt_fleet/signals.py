"""Wakes what waits for news, in this process and, on PostgreSQL, in all others (LISTEN and NOTIFY).

A signal carries nothing: what is new stands in the database, and whoever is woken reads it there. One that gets lost,
or a database without signals (SQLite), costs the time until the next look. Example::

    signals = Signals("postgresql://…")
    group.create_task(signals.run())
    group.create_task(signals.repeat(publish, News.DESIRED, seconds=0.5))
    await signals.send(News.DESIRED)                 # after the commit; elsewhere publish() is called at once
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.store.engines import postgres_url
from edgeopt_fleet.store.leases import LeaseLostError

__all__ = ["News", "Signals"]

_LOG = logging.getLogger(__name__)
_CHANNEL = "edgeopt_fleet"
_RECONNECT_SECONDS = 1.0
_SEND_SECONDS = 2.0


class News(enum.StrEnum):
    """What may be new."""

    DESIRED = "desired"  # a device should run something else, or the metadata have changed
    ROLLOUTS = "rollouts"  # an operator's order
    METADATA = "metadata"  # somebody has signed
    USERS = "users"  # a device was enrolled or revoked
    LEASES = "leases"  # a role was handed back


class Signals:
    """Sends news and wakes for them; ``address`` is PostgreSQL's, or empty."""

    def __init__(self, address: str = "") -> None:
        self._address = _parameters(address) if address else {}
        self._events: dict[News, set[asyncio.Event]] = {news: set() for news in News}

    async def run(self) -> None:
        """Hear other processes until cancelled."""
        while self._address:
            try:
                await self._listen()
            except ConnectionError as error:
                _LOG.info("no signals from the database: %s; looking again and again instead", error)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def send(self, news: News) -> None:
        """Wake all that wait for ``news``. Nothing is raised: a look comes sooner or later anyway."""
        self.wake(news)
        if not self._address:
            return
        import psycopg

        try:
            async with asyncio.timeout(_SEND_SECONDS):
                async with await psycopg.AsyncConnection.connect(**self._address, autocommit=True) as connection:
                    await connection.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, news.value))
        except (psycopg.Error, TimeoutError) as error:
            _LOG.info("the signal %s reaches this process only: %s", news, error)

    async def repeat(self, look: Callable[[], Awaitable[None]], news: News | None, seconds: float) -> None:
        """Call ``look`` until cancelled: at once on ``news``, else every ``seconds``; a failing database is logged.

        Raises :class:`LeaseLostError`: whoever lost the role has nothing to look at any more.
        """
        with self._heard(news) as event:
            while True:
                event.clear()  # before the look: news that come during it are looked at again
                try:
                    await look()
                except LeaseLostError:
                    raise
                except StorageError:
                    _LOG.exception("this look failed")
                await _either(event, seconds)

    async def wait(self, news: News, seconds: float) -> None:
        """Return on ``news`` that come from now on, or after ``seconds``."""
        with self._heard(news) as event:
            await _either(event, seconds)

    @contextlib.contextmanager
    def _heard(self, news: News | None) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever there are ``news``."""
        event = asyncio.Event()
        events = self._events[news] if news else set()
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)

    def wake(self, news: News) -> None:
        """Wake all in this process that wait for ``news``."""
        for event in self._events[news]:
            event.set()

    async def _listen(self) -> None:
        """Pass on what PostgreSQL says. Raises :class:`ConnectionError` when it is gone."""
        import psycopg

        try:
            async with await psycopg.AsyncConnection.connect(**self._address, autocommit=True) as connection:
                await connection.execute(f"LISTEN {_CHANNEL}")
                for news in News:
                    self.wake(news)  # what was said before nobody heard
                async for notice in connection.notifies():
                    with contextlib.suppress(ValueError):  # of a newer version
                        self.wake(News(notice.payload))
        except psycopg.Error as error:
            raise ConnectionError(str(error).strip()) from error


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Return when ``event`` is set, or after ``seconds``.

    Not ``wait_for``: before Python 3.12 it returns as if nothing had been when it is cancelled in the moment in which
    the event is set, and whoever ends the work then waits for ever.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _parameters(address: str) -> dict[str, Any]:
    """Return how psycopg connects to ``address``."""
    url = postgres_url(address)
    return {**url.translate_connect_args(username="user", database="dbname"), **url.query}

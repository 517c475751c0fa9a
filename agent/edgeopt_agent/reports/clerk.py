"""One thread with its own connection to the spool, for what waits until the disk has it and nobody waits for.

A commit with ``synchronous=FULL`` takes milliseconds, and tens of them on a disk with other work; on the event loop it
would hold up every request. Work is done in the order in which it was given, and to its end, also when whoever gave it
is cancelled: what is half known to be on the disk would be told twice. SQLite lets one write at a time, so a report
that is saved on the event loop in the same moment waits. Example::

    clerk = Clerk(lambda: Spool.open(path, now_ms=…))
    books = clerk.do_now(Books, clerk.spool, data, time.time)
    await clerk.do(books.tell, counts)
    await clerk.close()
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from edgeopt_agent.reports.spool import Spool

__all__ = ["Clerk"]

P = ParamSpec("P")
T = TypeVar("T")


class Clerk:
    """See the module; ``spool`` may be used on the clerk's thread only."""

    def __init__(self, open_spool: Callable[[], Spool]) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clerk")
        self.spool = self.do_now(open_spool)

    def do_now(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have ``work`` done and wait for it; before the event loop has anything else to do."""
        return self._thread.submit(work, *args, **kwargs).result()

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Have ``work`` done after everything that was given before it; await what it returns, or do not."""
        return asyncio.shield(asyncio.wrap_future(self._thread.submit(work, *args, **kwargs)))

    async def close(self) -> None:
        """Return when everything is done and the connection is closed."""
        await self.do(self.spool.close)
        self._thread.shutdown()

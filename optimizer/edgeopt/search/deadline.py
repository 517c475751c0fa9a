"""Ending a long step of Python code when its time is over.

An alarm of the system raises :class:`OutOfTime` in the main thread, between two steps of the interpreter: a call into a
library ends first. Elsewhere than in the main thread, and without a limit, nothing is interrupted. Example::

    with deadline(30):
        train()                      # raises OutOfTime after about 30 seconds
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

__all__ = ["OutOfTime", "deadline"]

_LEAST = 0.001  # seconds; an alarm in zero seconds would be none


class OutOfTime(BaseException):
    """The time is over; no ``Exception``, so that no library takes it for a failure of its own and tries again."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTime` in the block after ``seconds``; infinity is no limit."""
    if math.isinf(seconds) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    begun = time.monotonic()
    another, interval = signal.getitimer(signal.ITIMER_REAL)
    before = signal.signal(signal.SIGALRM, over)
    try:
        try:  # the alarm may come before the block begins and after it has ended, but only once
            signal.setitimer(signal.ITIMER_REAL, max(seconds, _LEAST))
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if another:  # somebody else's alarm, a test runner's for instance, goes on
            signal.setitimer(signal.ITIMER_REAL, max(another - (time.monotonic() - begun), _LEAST), interval)

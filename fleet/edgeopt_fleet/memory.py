"""How a process of the fleet keeps its memory small and its pauses short, whatever it serves.

Example::

    settle_memory()                          # once, at its start, before there are threads
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

__all__ = ["settle_memory"]

_COLLECT_AFTER = 20_000  # objects; a batch of telemetry makes thousands that live as long as it does
_M_ARENA_MAX = -8  # of mallopt(3)
_ARENAS = 2


def settle_memory() -> None:
    """Let the garbage collector look at new objects only and seldom, and the C library keep two pools of freed memory.

    glibc gives threads pools of their own, up to eight a core, and what one has freed no other can use: a rollout to
    5,000 devices left 20 MB more that way. Another C library is left as it is.
    """
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    with contextlib.suppress(AttributeError):  # no glibc
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)

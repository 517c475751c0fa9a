"""One agent at a time on one data directory, and who that is.

A POSIX record lock: the kernel frees it when the process dies, children do not inherit it, and it names its holder, so
that no file with a process id can be out of date. Example::

    with only_agent_of(data):                 # raises UsageError when another agent runs on it
        …
    agent_of(data)                            # the process id of the agent, or None
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import storage_errors

__all__ = ["agent_of", "only_agent_of"]

_NAME = "lock"
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid; see fcntl(2)


@contextlib.contextmanager
def only_agent_of(data: Path) -> Iterator[None]:
    """Hold the lock of ``data``. Raises :class:`UsageError` when another agent does, :class:`StorageError`."""
    with storage_errors(data):
        descriptor = os.open(data / _NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise UsageError(f"another edgeopt-agent runs on {data}; stop it, or give another --data") from error
    try:
        yield
    finally:
        os.close(descriptor)


def agent_of(data: Path) -> int | None:
    """Return the process id of the agent that runs on ``data``, as this process sees it; None when none does."""
    try:
        descriptor = os.open(data / _NAME, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return int(pid) if kind != fcntl.F_UNLCK and pid > 0 else None  # 0 or -1: in another container

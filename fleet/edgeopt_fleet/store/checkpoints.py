"""Copies SQLite's write-ahead log into its file from a thread of its own, so that no commit pays for it.

A commit that reaches SQLite's automatic checkpoint waits for it: up to a second on a slow disk. It decides nothing
about durability: what is committed is fsynced in the log already. Example::

    checkpoints = Checkpoints(Path("fleet.db"))
    checkpoints.wanted()                     # after each commit; the thread starts with the first
    checkpoints.close()
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from pathlib import Path

__all__ = ["Checkpoints"]

_LOG = logging.getLogger(__name__)
_EVERY_SECONDS = 1.0
_LARGE_LOG_PAGES = 16_384  # 64 MiB; then writers wait for the small rest of a copy, and the log begins anew
_BUSY_MILLISECONDS = 200


class Checkpoints:
    """The thread that copies, while there is something to copy."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def wanted(self) -> None:
        """Say that something was committed; returns at once."""
        self._wanted.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._closed.is_set():
                    self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """End the thread; SQLite copies the rest when its last connection closes."""
        self._closed.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
            connection.execute("PRAGMA synchronous=FULL")
            while not self._closed.wait(_EVERY_SECONDS):
                self._wanted.wait()
                self._wanted.clear()
                if self._closed.is_set():
                    return
                try:
                    _copy(connection)
                except sqlite3.Error as error:  # the next commit fails by itself if it is the disk
                    _LOG.warning("could not copy the log of %s into it: %s", self._path, error)


def _copy(connection: sqlite3.Connection) -> None:
    _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages > _LARGE_LOG_PAGES:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()

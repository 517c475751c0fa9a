"""What the device has to tell the fleet, numbered and kept until the fleet says that it is committed.

One SQLite file with ``synchronous=FULL``. Its *session* is the millisecond at which the file was made; numbers run
1, 2, 3 … over reports and telemetry and never go back, also across restarts. A report is numbered at once. A window is
numbered as soon as fewer than ``AHEAD`` numbered messages wait: what has a number may have been sent, and keeps its
number and its bytes for ever; what has none may be put together with others when the file comes to its limit
(:mod:`edgeopt_agent.reports.waiting`). When that does not help either, the spool is full and the open window goes on.
Reports always fit. It publishes nothing itself. Example::

    spool = Spool.open(Path("agent.db"), now_ms=1_795_300_000_123)
    spool.append(Channel.TELEMETRY, lambda session, number: Telemetry(session=session, number=number, …))
    spool.acknowledge(ack)
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeopt_agent.reports.packing import pack, unpack
from edgeopt_agent.reports.waiting import GREATEST_NUMBER, SCHEMA, Waiting
from edgeopt_contract.codec import encode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import Ack, Reported, Telemetry
from edgeopt_contract.topics import Channel

__all__ = ["AHEAD", "Spool", "SpoolTotals", "Spooled", "database_errors"]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, channel TEXT NOT NULL, payload BLOB NOT NULL)",
    *SCHEMA,
)
AHEAD = 64  # messages that are on their way at the same time, and so need a number
_BUSY_SECONDS = 10
_DEFAULT_BYTES = 3 << 20
_PAGE_BYTES = 1024  # each commit writes whole pages, and a window is two or three of these
_LOG_PAGES = 96  # the write-ahead log is taken over into the file after so many
_LOG_BYTES = 192 << 10  # kept for it out of the limit
_FRESH = {"last_number": 0, "rows": 0, "errors": 0, "acknowledged_at": 0}
_RECONNECT_WINDOW = "reconnect_window_ms"
_SHRINK_PAGES = 64  # so many free pages go back to the file system


@dataclass(frozen=True, slots=True)
class Spooled:
    """One message that waits for its acknowledgement."""

    number: int
    channel: Channel
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolTotals:
    """What was kept since the session began; the fleet's books must come to the same once nothing waits.

    ``unacknowledged`` counts all that waits, with a number or without; ``acknowledged_at`` is when the fleet was last
    heard of, in seconds since 1970 (0: never).
    """

    session: int
    last_number: int
    unacknowledged: int
    acknowledged_at: int
    rows: int
    errors: int


@contextlib.contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite raises (disk full, file damaged, locked too long) into :class:`StorageError`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StorageError(f"cannot use {path}: {error}; free some space or check the disk") from error


class Spool:
    """The messages, and the small values (``meta``) that must be saved together with them."""

    def __init__(self, connection: sqlite3.Connection, path: Path, limit_bytes: int) -> None:
        self._connection = connection
        self._path = path
        self._limit_bytes = limit_bytes - _LOG_BYTES
        self._waiting = Waiting(connection)

    @classmethod
    def open(cls, path: Path, *, now_ms: int, limit_bytes: int = _DEFAULT_BYTES) -> Spool:
        """Open the spool in ``path``; a new file begins the session ``now_ms``. Raises :class:`StorageError`.

        File and write-ahead log together stay below ``limit_bytes``, as far as windows alone can help.
        """
        with database_errors(path):
            connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
            connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={_LOG_PAGES * _PAGE_BYTES}")
            connection.execute("PRAGMA synchronous=FULL")
        spool = cls(connection, path, limit_bytes)
        with spool.transaction():  # in one step, so that nobody sees a spool without a session
            for statement in _SCHEMA:
                connection.execute(statement)
            for name, value in {"session": now_ms, **_FRESH}.items():
                connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
        return spool

    @classmethod
    def look_into(cls, path: Path) -> Spool | None:
        """Open the spool in ``path`` for reading, beside a running agent; ``None`` before there is one."""
        if not path.exists():
            return None
        with database_errors(path):
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                connection.close()
                return None
        return cls(connection, path, _DEFAULT_BYTES)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def is_full(self) -> bool:
        """Whether telemetry should stay where it is for now: putting windows together makes no more room."""
        with database_errors(self._path):
            return self._used_bytes() > self._limit_bytes

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: what is done inside is on the disk afterwards, or never happened."""
        with database_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself rolls back when the disk is full
                    self._connection.execute("ROLLBACK")
                raise

    def append(self, channel: Channel, build: Callable[[int, int], Reported | Telemetry]) -> None:
        """Keep what ``build(session, number)`` makes.

        Call it inside :meth:`transaction`. Raises :class:`~edgeopt_contract.errors.MessageError` when the message
        does not keep the contract's limits; then no number is used. ``build`` of a window may be asked for a number
        that it does not get.
        """
        session, number = int(self.meta("session")), int(self.meta("last_number")) + 1
        if channel is Channel.REPORTED or (not self._waiting and self._numbered() < AHEAD):
            message = build(session, number)
            self._keep(number, channel, encode(message))
        else:
            message = build(session, GREATEST_NUMBER)
            assert isinstance(message, Telemetry)  # the channel says so
            encode(message)  # it must fit whatever number it gets
            self._waiting.put(pack(message))
        if isinstance(message, Telemetry):
            self.set_meta("rows", int(self.meta("rows")) + message.rows)
            self.set_meta("errors", int(self.meta("errors")) + message.errors)
        while self._used_bytes() > self._limit_bytes and self._waiting.coarsen(session):
            pass

    def unacknowledged(self, limit: int, after: int = 0) -> list[Spooled]:
        """Return the oldest ``limit`` messages numbered above ``after``."""
        query = "SELECT number, channel, payload FROM messages WHERE number > ? ORDER BY number LIMIT ?"
        with database_errors(self._path):
            rows = self._connection.execute(query, (after, limit)).fetchall()
        return [Spooled(number, Channel(channel), _expand(payload)) for number, channel, payload in rows]

    def acknowledge(self, ack: Ack, now: float = 0) -> int:
        """Forget what ``ack`` covers; return how many. An ack of another session changes nothing.

        Those that wait without a number move up. Its window for reconnects is kept, too.
        """
        if ack.session != self.meta("session"):
            return 0
        window = ack.reconnect_window_seconds
        if window is not None and window != self.reconnect_window_seconds:
            self.set_meta(_RECONNECT_WINDOW, max(1, round(1000 * window)))
        with self.transaction():
            deleted = self._connection.execute("DELETE FROM messages WHERE number <= ?", (ack.upto,)).rowcount
            for number in ack.beyond:
                deleted += self._connection.execute("DELETE FROM messages WHERE number = ?", (number,)).rowcount
            if deleted:
                self._number_waiting()
                self.set_meta("acknowledged_at", int(now))
        self._shrink()
        return deleted

    @property
    def reconnect_window_seconds(self) -> float | None:
        """From what window the fleet wants a first reconnect to be drawn, if an ack has said so."""
        milliseconds = int(self.meta(_RECONNECT_WINDOW))
        return milliseconds / 1000 if milliseconds else None

    def _number_waiting(self) -> None:
        """Give numbers to windows that wait, as many as may be under way."""
        session, number = int(self.meta("session")), int(self.meta("last_number"))
        for _ in range(AHEAD - self._numbered()):
            window = self._waiting.take()
            if window is None:
                return
            number += 1
            self._keep(number, Channel.TELEMETRY, encode(unpack(window, session=session, number=number)))

    def _keep(self, number: int, channel: Channel, payload: bytes) -> None:
        kept = min(payload, zlib.compress(payload), key=len)
        self._connection.execute("INSERT INTO messages VALUES (?, ?, ?)", (number, str(channel), kept))
        self.set_meta("last_number", number)

    def _numbered(self) -> int:
        """Return how many messages with a number wait."""
        (count,) = self._connection.execute("SELECT COUNT(*) FROM messages").fetchone()
        return int(count)

    def _used_bytes(self) -> int:
        """Return how much of the file holds something."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * self._pragma("page_size")

    def _shrink(self) -> None:
        """Give free pages back to the file system once there are many."""
        with database_errors(self._path):
            free = self._pragma("freelist_count")
            if free >= _SHRINK_PAGES:
                # As a script, for it gives a page back with every step, and execute() takes one step only.
                self._connection.executescript(f"PRAGMA incremental_vacuum({free})")

    def _pragma(self, name: str) -> int:
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    def damage(self) -> str:
        """Return what SQLite finds wrong with the file; empty when it is whole."""
        with database_errors(self._path):
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        return "" if found == "ok" else str(found)

    def totals(self) -> SpoolTotals:
        """Return what was numbered so far and how much of it waits."""
        with database_errors(self._path):
            waiting = self._numbered() + len(self._waiting)
        return SpoolTotals(
            session=int(self.meta("session")),
            last_number=int(self.meta("last_number")),
            unacknowledged=waiting,
            acknowledged_at=int(self.meta("acknowledged_at")),
            rows=int(self.meta("rows")),
            errors=int(self.meta("errors")),
        )

    def meta(self, name: str) -> int | bytes:
        """Return the small value ``name``; ``0`` before it was set."""
        with database_errors(self._path):
            row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else 0

    def set_meta(self, name: str, value: int | bytes) -> None:
        """Keep a small value."""
        with database_errors(self._path):
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def _expand(kept: bytes) -> bytes:
    """Return a payload as it was made: canonical JSON begins with a brace, what was compressed does not."""
    return kept if kept.startswith(b"{") else zlib.decompress(kept)

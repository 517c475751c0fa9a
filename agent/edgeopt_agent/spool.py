"""What the device has to tell the fleet, numbered and kept until the fleet says that it is committed.

One SQLite file with ``synchronous=FULL``. Its *session* is the millisecond at which the file was made; numbers run
1, 2, 3 … over reports and telemetry and never go back, also across restarts. When the spool is full it takes no more
telemetry: the monitor then keeps its window open, so time resolution is lost and no count is. Reports always fit.
It publishes nothing itself. Example::

    spool = Spool.open(Path("agent.db"), now_ms=1_795_300_000_123)
    spool.append(Channel.TELEMETRY, lambda session, number: Telemetry(session=session, number=number, …))
    spool.acknowledge(ack)
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeopt_contract.codec import encode
from edgeopt_contract.errors import StorageError
from edgeopt_contract.messages import Ack, Reported, Telemetry
from edgeopt_contract.topics import Channel

__all__ = ["Spool", "SpoolTotals", "Spooled", "database_errors"]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS messages (number INTEGER PRIMARY KEY, channel TEXT NOT NULL, payload BLOB NOT NULL)",
)
_BUSY_SECONDS = 10
_DEFAULT_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Spooled:
    """One message that waits for its acknowledgement."""

    number: int
    channel: Channel
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolTotals:
    """What was numbered since the session began; the fleet's books must come to the same."""

    session: int
    last_number: int
    unacknowledged: int
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

    def __init__(self, connection: sqlite3.Connection, path: Path, limit: int) -> None:
        self._connection = connection
        self._path = path
        self._limit = limit

    @classmethod
    def open(cls, path: Path, *, now_ms: int, limit: int = _DEFAULT_LIMIT) -> Spool:
        """Open the spool in ``path``; a new file begins the session ``now_ms``. Raises :class:`StorageError`."""
        with database_errors(path):
            connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        spool = cls(connection, path, limit)
        with spool.transaction():  # in one step, so that nobody sees a spool without a session
            for statement in _SCHEMA:
                connection.execute(statement)
            for name, value in {"session": now_ms, "last_number": 0, "rows": 0, "errors": 0}.items():
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
        return cls(connection, path, _DEFAULT_LIMIT)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def is_full(self) -> bool:
        """Whether telemetry should stay where it is for now."""
        with database_errors(self._path):
            (count,) = self._connection.execute("SELECT COUNT(*) FROM messages").fetchone()
        return int(count) >= self._limit

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

    def append(self, channel: Channel, build: Callable[[int, int], Reported | Telemetry]) -> int:
        """Number and keep what ``build(session, number)`` makes; return the number.

        Call it inside :meth:`transaction`. Raises :class:`~edgeopt_contract.errors.MessageError` when the message
        does not keep the contract's limits; then no number is used.
        """
        number = int(self.meta("last_number")) + 1
        message = build(int(self.meta("session")), number)
        self._connection.execute("INSERT INTO messages VALUES (?, ?, ?)", (number, str(channel), encode(message)))
        self.set_meta("last_number", number)
        if isinstance(message, Telemetry):
            self.set_meta("rows", int(self.meta("rows")) + message.rows)
            self.set_meta("errors", int(self.meta("errors")) + message.errors)
        return number

    def unacknowledged(self, limit: int, after: int = 0) -> list[Spooled]:
        """Return the oldest ``limit`` messages numbered above ``after``."""
        query = "SELECT number, channel, payload FROM messages WHERE number > ? ORDER BY number LIMIT ?"
        with database_errors(self._path):
            rows = self._connection.execute(query, (after, limit)).fetchall()
        return [Spooled(number, Channel(channel), payload) for number, channel, payload in rows]

    def acknowledge(self, ack: Ack) -> int:
        """Forget what ``ack`` covers; return how many. An ack of another session changes nothing."""
        if ack.session != self.meta("session"):
            return 0
        with self.transaction():
            deleted = self._connection.execute("DELETE FROM messages WHERE number <= ?", (ack.upto,)).rowcount
            for number in ack.beyond:
                deleted += self._connection.execute("DELETE FROM messages WHERE number = ?", (number,)).rowcount
        return deleted

    def totals(self) -> SpoolTotals:
        """Return what was numbered so far and how much of it waits."""
        with database_errors(self._path):
            (waiting,) = self._connection.execute("SELECT COUNT(*) FROM messages").fetchone()
        return SpoolTotals(
            session=int(self.meta("session")),
            last_number=int(self.meta("last_number")),
            unacknowledged=int(waiting),
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

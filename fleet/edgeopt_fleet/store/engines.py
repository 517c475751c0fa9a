"""SQLAlchemy engines for SQLite and PostgreSQL, set up so that what is committed survives a power cut.

All that differs between the two when connecting stands here. No transaction is begun here. Example::

    writing, reading = sqlite_engines(Path("fleet.db"))
    writing, reading = postgres_engines("postgresql://fleet@db.example/fleet", connections=8)
"""

from __future__ import annotations

import importlib.util
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from edgeopt_contract.errors import MissingExtraError, UsageError

__all__ = ["postgres_engines", "postgres_url", "sqlite_engines"]

_WAIT_MILLISECONDS = 30_000  # for another writer; longer means that something hangs
_IDLE_MILLISECONDS = 10_000  # a process that was stopped in the middle of a transaction keeps its locks no longer
_CACHE_KIBIBYTES = 24_576  # a batch of ingest changes 6 MB of pages; with SQLite's 2 MB they are written and read twice
_READING_CACHE_KIBIBYTES = 4_096  # each of several threads has one, and the system's own cache is behind it
_OPTIONS: dict[str, Any] = {
    # several times as fast as the standard library's
    "json_serializer": lambda value: msgspec.json.encode(value).decode(),
    "json_deserializer": msgspec.json.decode,
    "hide_parameters": True,  # what people paste into a wrong place must not get into a log or an error
}
_POSTGRES_SETTINGS = {
    "lock_timeout": str(_WAIT_MILLISECONDS),
    "idle_in_transaction_session_timeout": str(_IDLE_MILLISECONDS),
    "synchronous_commit": "on",  # a device deletes what was acknowledged, whatever the server's default is
    "random_page_cost": "1.1",  # what is asked for lies in memory or on flash; else whole tables are read for a batch
    "timezone": "UTC",
}
_POSTGRES_CONNECT = {
    "connect_timeout": "10",
    "application_name": "edgeopt-fleet",
    # A server that is gone without a word is noticed within half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "options": " ".join(f"-c {name}={value}" for name, value in _POSTGRES_SETTINGS.items()),
}


def sqlite_engines(path: Path) -> tuple[Engine, Engine]:
    """Return an engine for writing and one for reading; the latter sees one moment and waits for no writer.

    A writer begins with BEGIN IMMEDIATE, so that none fails half-way because another one wrote first (SQLITE_BUSY on
    upgrading a lock, as in ovumcy-web#155).
    """
    return _sqlite_engine(path, begin="BEGIN IMMEDIATE"), _sqlite_engine(path, begin="BEGIN", query_only="ON")


def _sqlite_engine(path: Path, *, begin: str, query_only: str = "OFF") -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"check_same_thread": False}, max_overflow=20, **_OPTIONS
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in (
            f"busy_timeout={_WAIT_MILLISECONDS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"cache_size=-{_READING_CACHE_KIBIBYTES if query_only == 'ON' else _CACHE_KIBIBYTES}",
            "foreign_keys=ON",
            "wal_autocheckpoint=0",  # store.checkpoints does that
            f"query_only={query_only}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin_one(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def postgres_engines(address: str, connections: int) -> tuple[Engine, Engine]:
    """Return an engine for writing and one for reading over one pool of up to ``connections`` connections.

    The latter sees one moment (REPEATABLE READ) and refuses to write.
    """
    url = postgres_url(address)
    engine = create_engine(url, pool_size=connections, max_overflow=0, pool_pre_ping=True, **_OPTIONS)
    event.listen(engine, "connect", _take_any_text)
    event.listen(engine, "before_cursor_execute", _fetch_as_asked)
    return engine, engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def postgres_url(address: str) -> URL:
    """Return ``address`` for psycopg 3. Raises :class:`UsageError` without repeating the address: it holds secrets."""
    try:
        url = make_url(address)
    except ArgumentError:
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres"):
        raise UsageError(
            "expected the setting database to be empty (SQLite) or as in postgresql://user:password@host:5432/name"
        )
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError("psycopg", "fleet")
    given = {name: value for name, value in url.query.items() if name in _POSTGRES_CONNECT}
    return url.set(drivername="postgresql+psycopg").update_query_dict({**_POSTGRES_CONNECT, **given})


def _fetch_as_asked(
    _connection: Connection, cursor: Any, _statement: str, _parameters: object, context: Any, _many: object
) -> None:
    """Let PostgreSQL send what it finds in binary where the statement has the option ``binary``: bytes as they are."""
    if context.execution_options.get("binary"):
        cursor.format = 1  # psycopg.pq.Format.BINARY


def _take_any_text(connection: Any, _record: object) -> None:
    """Let text with NUL characters be stored, as U+FFFD: PostgreSQL refuses them, and a device may send them.

    Without this one such message would fail its whole batch, again and again.
    """
    from psycopg.types.string import StrDumper

    class AnyText(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)

    connection.adapters.register_dumper(str, AnyText)

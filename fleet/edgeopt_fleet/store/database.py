"""The database: hands out transactions on SQLite or PostgreSQL, and what is committed survives a power cut.

Both behave alike. A plain transaction excludes every other one, in whatever process; one that names a lock excludes
those with the same name and the plain ones only (on SQLite, which has one writer, still all). What only reads takes
:meth:`Database.reading`, sees one moment and waits for nobody. Nothing is tried again here: a caller that gets a
:class:`StorageError` may do so, nothing of its transaction was kept. Example::

    database = Database.open(Path("fleet.db"))            # or "postgresql://fleet@db.example/fleet"
    with database.transaction(lock="rollout:v2") as session:
        session.add(row)                     # committed at the end, rolled back on any error
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session

from edgeopt_contract.errors import StorageError, UsageError
from edgeopt_fleet.store.checkpoints import Checkpoints
from edgeopt_fleet.store.engines import postgres_engines, postgres_url, sqlite_engines
from edgeopt_fleet.store.schema import check_schema, create_schema

__all__ = ["Address", "Database"]

Address = Path | str  # SQLite's file, or postgresql://…

_CONNECTIONS = 12  # for the API's threads, the worker and ingest of one process
_TURN_SECONDS = 30.0
_LOCK = text("SELECT pg_advisory_xact_lock_shared(:all), pg_advisory_xact_lock(:one)")
_LOCK_ALL = text("SELECT pg_advisory_xact_lock(:all)")
_JOINED: ContextVar[Session | None] = ContextVar("edgeopt_fleet_joined", default=None)


class Database:
    """Hands out transactions."""

    def __init__(self, engines: tuple[Engine, Engine], name: str, checkpoints: Checkpoints | None = None) -> None:
        self.name = name  # what messages call it; without the password
        self._writing, self._reading = engines
        self._checkpoints = checkpoints
        self._turn = threading.Lock()
        self._check: Callable[[Session], None] = lambda _session: None

    @classmethod
    def create(cls, address: Address, fill: Callable[[Session], None] = lambda _session: None) -> Database:
        """Make all tables in a new database and ``fill`` them, in one transaction.

        Raises :class:`UsageError` when there are some, :class:`StorageError`.
        """
        database = cls._connect(address)
        try:
            with database.transaction() as session:
                create_schema(session.connection(), database.name)
                fill(session)
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def open(cls, address: Address) -> Database:
        """Open a database that was made before.

        Raises :class:`UsageError` when there is none, or when it is older or newer than this program, and
        :class:`StorageError` when its server does not answer.
        """
        database = cls.open_any(address)
        try:
            with database.reading() as session:
                check_schema(session.connection(), database.name)
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def open_any(cls, address: Address) -> Database:
        """Open a database of whatever version; for migrating it. Raises :class:`UsageError` when there is none."""
        if isinstance(address, Path) and not address.exists():
            raise UsageError(f"{address} does not exist; make a fleet first: edgeopt-fleet init {address.parent}")
        return cls._connect(address)

    @classmethod
    def _connect(cls, address: Address) -> Database:
        if isinstance(address, Path):
            return cls(sqlite_engines(address), str(address), Checkpoints(address))
        return cls(postgres_engines(address, _CONNECTIONS), _name(address))

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of this machine, with one writer at a time."""
        return self._writing.dialect.name == "sqlite"

    @property
    def writers(self) -> int:
        """How many threads of one process may write without only waiting for each other."""
        return 1 if self.is_sqlite else 4

    @contextlib.contextmanager
    def transaction(self, lock: str | None = "") -> Iterator[Session]:
        """Give a session whose changes are committed together at the end, or not at all.

        It begins once no transaction with the same ``lock`` is open, nor one without a lock; without a lock, once no
        other one is open. With None it waits for rows only (PostgreSQL): for leases, which are prolonged whatever else
        goes on. Rows stay readable after it. Transactions do not nest, but inside :meth:`together`. Raises
        :class:`StorageError` when the disk is full, read-only or failing, when the server is away, or when the wait
        took half a minute.
        """
        joined = self._joined()
        if joined is not None:
            self._begin(joined, lock)
            yield joined
            joined.flush()
            return
        with self._errors(), self._alone():
            with Session(self._writing, expire_on_commit=False) as session, session.begin():
                self._begin(session, lock)
                yield session
            if self._checkpoints is not None:
                self._checkpoints.wanted()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of all that this thread begins inside; what it reads there sees what it wrote.

        Whoever begins first inside should take the widest lock. An error undoes all of it. Example::

            with database.together():
                view = show(rollouts.create(plan, now))
                answers.keep(ticket, view)           # both, or neither
        """
        with self.transaction(lock=None) as session:
            token = _JOINED.set(session)
            try:
                yield
            finally:
                _JOINED.reset(token)

    def _begin(self, session: Session, lock: str | None) -> None:
        if not self.is_sqlite and lock is not None:
            keys = {"all": _lock_key("")} | ({"one": _lock_key(lock)} if lock else {})
            session.execute(_LOCK if lock else _LOCK_ALL, keys)
        self._check(session)

    def _joined(self) -> Session | None:
        """Return the session of :meth:`together`, if there is one of this database."""
        session = _JOINED.get()
        return session if session is not None and session.bind is self._writing else None

    def guarded(self, check: Callable[[Session], None]) -> Database:
        """Return this database with ``check`` called at the beginning of every transaction; it may raise.

        What only reads is not checked. Both share their connections: close one of them.
        """
        guarded = copy.copy(self)
        guarded._check = check  # noqa: SLF001 - its own class
        return guarded

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a session that sees one moment, waits for no writer, and cannot write. Raises :class:`StorageError`."""
        joined = self._joined()
        if joined is not None:
            yield joined
            return
        with self._errors(), Session(self._reading, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close all connections."""
        if self._checkpoints is not None:
            self._checkpoints.close()
        self._writing.dispose()
        self._reading.dispose()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let the threads of this process take turns at SQLite: cheaper and fairer than its lock, which is polled."""
        if not self.is_sqlite:
            yield
            return
        if not self._turn.acquire(timeout=_TURN_SECONDS):
            raise StorageError(f"the database {self.name} was busy for {_TURN_SECONDS:.0f} s; is its disk failing?")
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeoutError) as error:
            cause = str(getattr(error, "orig", error)).strip().replace("\n", " ")
            raise StorageError(f"the database {self.name} failed: {cause}") from error


def _name(address: str) -> str:
    """Return a PostgreSQL address without its password and parameters, which may be secret, too."""
    url = postgres_url(address)
    return f"postgresql://{url.host or ''}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def _lock_key(name: str) -> int:
    """Return the number of an advisory lock: 64 bits of the name's SHA-256."""
    return int.from_bytes(hashlib.sha256(f"edgeopt:{name}".encode()).digest()[:8], "big", signed=True)

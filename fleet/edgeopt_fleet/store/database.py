"""The SQLite database: one connection at a time writes, and what is committed survives a power cut.

WAL with ``synchronous=FULL`` fsyncs every commit: a device deletes what was acknowledged, so an acknowledged row
must not be lost with the power. Every transaction is BEGIN IMMEDIATE, so none fails half-way because another one
wrote first. Example::

    database = Database.open(Path("fleet.db"))
    with database.transaction() as session:
        session.add(row)                     # committed at the end, rolled back on any error
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlmodel import Session, SQLModel, create_engine

from edgeopt_contract.errors import StorageError, UsageError
from edgeopt_fleet.store import tables

__all__ = ["Database"]

_BUSY_MILLISECONDS = 5000
assert tables.__all__  # importing it is what declares the tables


class Database:
    """Hands out transactions."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path

    @classmethod
    def create(cls, path: Path) -> Database:
        """Make a new database with all tables. Raises :class:`StorageError`."""
        database = cls(_engine(path), path)
        with database._errors():
            SQLModel.metadata.create_all(database._engine)
        return database

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open an existing database. Raises :class:`UsageError` when there is none."""
        if not path.exists():
            raise UsageError(f"{path} does not exist; make a fleet first: edgeopt-fleet init {path.parent}")
        return cls(_engine(path), path)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Session]:
        """Give a session whose changes are committed together at the end, or not at all.

        Rows stay readable after it. Raises :class:`StorageError` when the disk is full, read-only or failing.
        """
        with self._errors(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, DatabaseError) as error:
            if isinstance(error.orig, sqlite3.IntegrityError):
                raise
            raise StorageError(f"the database {self._path} failed: {error.orig}") from error


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in (
            f"busy_timeout={_BUSY_MILLISECONDS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine

"""Where the blocks of bundles are: files beside a SQLite database, rows of a PostgreSQL one.

A fleet on SQLite is one machine, and its blocks are cheapest as files. On PostgreSQL any process on any machine takes
blocks in and hands them out, so they are where all of them look: machines share the database and nothing else. What a
block is named never changes, so writing one again is nothing. Example::

    blocks = blocks_of(database, home.blocks)
    blocks.put(sha256, data)
    blocks.absent([sha256])                  # ()
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from sqlmodel import Session, col, delete, insert, select

from edgeopt_contract.errors import StorageError
from edgeopt_contract.storage import storage_errors, sync_directory, write_durably
from edgeopt_fleet.store.clock import database_time
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.statements import insert_new
from edgeopt_fleet.store.tables import BlockRow

__all__ = ["BlockFiles", "BlockRows", "Blocks", "blocks_of", "dump_blocks", "load_blocks"]

_LOCK = "blocks"
_AT_ONCE = 500  # names in one question


class Blocks(Protocol):
    """Keeps bytes under their SHA-256; whoever calls has checked that they fit."""

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a block durably. Raises :class:`StorageError`."""

    def get(self, sha256: str) -> bytes:
        """Return a block. Raises :class:`StorageError` when it is not here."""

    def absent(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of ``names`` that are not here, in their order. Raises :class:`StorageError`."""

    def remove(self, kept: Collection[str], before: float) -> int:
        """Let go of what is older than ``before`` and not in ``kept``; return how many.

        Raises :class:`StorageError`.
        """


def blocks_of(database: Database, directory: Path) -> Blocks:
    """Return where the blocks of the fleet in ``database`` are; ``directory`` counts for SQLite only."""
    return BlockFiles(directory) if database.is_sqlite else BlockRows(database)


class BlockFiles:
    """Blocks as files of one directory, each named by its hash."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, sha256: str, data: bytes) -> None:
        """See :class:`Blocks`."""
        path = self._directory / sha256
        if path.exists():
            return
        temporary = self._directory / f".{sha256}.{secrets.token_hex(8)}"  # of its own: two may put the same block
        with storage_errors(path):
            try:
                write_durably(temporary, data)
                temporary.replace(path)
                sync_directory(self._directory)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

    def get(self, sha256: str) -> bytes:
        """See :class:`Blocks`."""
        path = self._directory / sha256
        with storage_errors(path):
            return path.read_bytes()

    def absent(self, names: Iterable[str]) -> tuple[str, ...]:
        """See :class:`Blocks`."""
        return tuple(name for name in names if not (self._directory / name).exists())

    def remove(self, kept: Collection[str], before: float) -> int:
        """See :class:`Blocks`."""
        removed = 0
        with storage_errors(self._directory):
            for path in self._directory.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.name not in kept and path.stat().st_mtime < before:
                        path.unlink()
                        removed += 1
        return removed


class BlockRows:
    """Blocks as rows of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, sha256: str, data: bytes) -> None:
        """See :class:`Blocks`."""
        with self._database.transaction(lock=None) as session:  # nobody changes a block, so nobody need be kept out
            now = session.exec(select(database_time())).one()
            insert_new(session, BlockRow, [{"sha256": sha256, "data": data, "stored_at": float(now)}])

    def get(self, sha256: str) -> bytes:
        """See :class:`Blocks`."""
        with self._database.reading() as session:
            data = session.exec(select(BlockRow.data).where(BlockRow.sha256 == sha256)).first()
        if data is None:
            raise StorageError(
                f"the block {sha256[:12]} is not in the database {self._database.name}; publish it again"
            )
        return data

    def absent(self, names: Iterable[str]) -> tuple[str, ...]:
        """See :class:`Blocks`."""
        wanted, here = list(names), set[str]()
        with self._database.reading() as session:
            for some in _portions(wanted):
                here.update(session.exec(select(BlockRow.sha256).where(col(BlockRow.sha256).in_(some))))
        return tuple(name for name in wanted if name not in here)

    def remove(self, kept: Collection[str], before: float) -> int:
        """See :class:`Blocks`."""
        with self._database.reading() as session:
            old = session.exec(select(BlockRow.sha256).where(BlockRow.stored_at < before)).all()
        gone = [name for name in old if name not in kept]
        for some in _portions(gone):
            with self._database.transaction(lock=_LOCK) as session:
                session.connection().execute(delete(BlockRow).where(col(BlockRow.sha256).in_(some)))
        return len(gone)


def dump_blocks(session: Session) -> Iterator[tuple[str, bytes]]:
    """Yield all blocks in the database with their names, one at a time."""
    for name in session.exec(select(BlockRow.sha256).order_by(col(BlockRow.sha256))).all():
        yield name, session.exec(select(BlockRow.data).where(BlockRow.sha256 == name)).one()


def load_blocks(session: Session, blocks: Iterable[tuple[str, bytes]]) -> None:
    """Insert what :func:`dump_blocks` gave into a database without blocks."""
    now = float(session.exec(select(database_time())).one())
    for name, data in blocks:
        session.connection().execute(insert(BlockRow).values(sha256=name, data=data, stored_at=now))


def _portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]

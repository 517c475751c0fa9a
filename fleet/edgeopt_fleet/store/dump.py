"""All rows of the tables as bytes, and back: the same for SQLite and PostgreSQL.

A table is a sequence of frames: four bytes of length, then MessagePack. The first frame names the columns, each other
one holds some rows. What is dumped within one :meth:`Database.reading` is of one moment. Example::

    with old.reading() as session:
        rows = dump_table(session, table, file)
    with new.transaction() as session:
        load_table(session, table, file)
"""

from __future__ import annotations

from typing import Any, BinaryIO

import msgspec
from sqlalchemy import Table, func, select, text
from sqlmodel import Session, SQLModel

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.store import tables

__all__ = ["all_tables", "dump_table", "load_table", "number_on"]

_ROWS = 2000  # in one frame


def all_tables() -> list[Table]:
    """Return the fleet's tables but the blocks', those that others refer to first.

    Blocks are files beside SQLite, so they are copied as such: :func:`edgeopt_fleet.store.blocks.dump_blocks`.
    """
    return [table for table in SQLModel.metadata.sorted_tables if table.name != tables.BlockRow.__tablename__]


def dump_table(session: Session, table: Table, file: BinaryIO) -> int:
    """Write all rows of ``table`` and return how many."""
    _write(file, _names(table))
    query = select(table).order_by(*table.primary_key.columns)
    found = session.connection().execution_options(yield_per=_ROWS).execute(query)
    count = 0
    for rows in found.partitions():
        _write(file, [tuple(row) for row in rows])
        count += len(rows)
    return count


def load_table(session: Session, table: Table, file: BinaryIO) -> int:
    """Insert the rows that :func:`dump_table` wrote into an empty ``table`` and return how many.

    Raises :class:`UsageError` for columns that this program does not have.
    """
    names = _read(file)
    if names != _names(table):
        raise UsageError(
            f"the back-up's table {table.name} has other columns than this program; use the one that made it"
        )
    count = 0
    while (rows := _read(file)) is not None:
        session.connection().execute(table.insert(), [dict(zip(names, row, strict=True)) for row in rows])
        count += len(rows)
    return count


def number_on(session: Session) -> None:
    """Let PostgreSQL number new rows after those that were loaded; SQLite does by itself."""
    if session.connection().dialect.name == "sqlite":
        return
    for table in all_tables():
        column = table.autoincrement_column
        sequence = None
        if column is not None:
            find = text("SELECT pg_get_serial_sequence(:table, :column)")
            sequence = session.connection().execute(find, {"table": table.name, "column": column.name}).scalar()
        if column is not None and sequence is not None:
            last = session.connection().execute(select(func.max(column))).scalar()
            session.connection().execute(select(func.setval(sequence, last or 1, last is not None)))


def _names(table: Table) -> list[str]:
    return [str(column.name) for column in table.columns]


def _write(file: BinaryIO, value: Any) -> None:
    frame = msgspec.msgpack.encode(value)
    file.write(len(frame).to_bytes(4, "big"))
    file.write(frame)


def _read(file: BinaryIO) -> Any:
    """Return the next frame's value, or None at the end. Raises :class:`UsageError` when it ends in the middle."""
    head = file.read(4)
    if not head:
        return None
    size = int.from_bytes(head, "big")
    frame = file.read(size)
    if len(head) < 4 or len(frame) < size:
        raise UsageError("the back-up ends in the middle of a table; it was cut off")
    return msgspec.msgpack.decode(frame)

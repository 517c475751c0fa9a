"""Statements over many rows that SQLite and PostgreSQL both understand.

One execution for a whole batch, within somebody's transaction. Plain inserts and updates need nothing from here:
``session.execute(insert(Row), rows)`` and ``session.execute(update(Row), rows)`` are portable. Example::

    upsert(session, ServedRow, rows, add=("windows", "rows", "errors"))
    insert_new(session, ReportRow, rows)     # those that are there already stay as they are
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Table, inspect
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel

__all__ = ["insert_new", "upsert"]

Rows = Sequence[Mapping[str, Any]]


def upsert(
    session: Session, row_class: type[SQLModel], rows: Rows, *, key: Collection[str] = (), add: Collection[str] = ()
) -> None:
    """Insert ``rows``; where a row with the same ``key`` (by default the primary key) exists, change that one.

    Columns in ``add`` are added to what is there, so that concurrent writers lose nothing; the others are replaced.
    All rows name the same columns. Rows are taken in the order of their keys, so that two writers never wait for each
    other in a circle.
    """
    if not rows:
        return
    table = _table(row_class)
    names = tuple(key) or _primary_key(table)
    statement = _insert(session, table)
    changes = {
        name: table.c[name] + statement.excluded[name] if name in add else statement.excluded[name]
        for name in rows[0]
        if name not in names
    }
    if changes:
        final = statement.on_conflict_do_update(index_elements=list(names), set_=changes)
    else:
        final = statement.on_conflict_do_nothing(index_elements=list(names))
    session.connection().execute(final, _ordered(rows, names))


def insert_new(session: Session, row_class: type[SQLModel], rows: Rows) -> None:
    """Insert those of ``rows`` that break no key and no unique constraint; the others change nothing."""
    if rows:
        table = _table(row_class)
        session.connection().execute(_insert(session, table).on_conflict_do_nothing(), [dict(row) for row in rows])


def _insert(session: Session, table: Table) -> sqlite.Insert | postgresql.Insert:
    if session.connection().dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def _ordered(rows: Rows, names: Sequence[str]) -> list[dict[str, Any]]:
    return [dict(row) for row in sorted(rows, key=lambda row: tuple(row[name] for name in names))]


def _primary_key(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.primary_key.columns)


def _table(row_class: type[SQLModel]) -> Table:
    table = inspect(row_class).local_table
    assert isinstance(table, Table)  # every row class of store.tables has one
    return table

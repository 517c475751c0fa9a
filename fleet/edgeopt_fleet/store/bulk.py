"""Many rows in one statement, at the driver's own speed: for what comes thousands of times a second.

SQLAlchemy's compiler looks at no row here: that cost more than the database did (ADR 29). SQLite gets ``executemany``,
PostgreSQL one statement over one JSON document, which costs Python one call; bytes travel beside it, all of them as one
binary value, and the document says where each begins. Values are the driver's: JSON is text already. Everything is
within somebody's transaction. Example::

    rows = fetch_rows(session, SpoolRow, ("id", "upto"), where={"device": ["cam-7", "cam-8"]})
    update_rows(session, SpoolRow, ("id",), ("upto",), [(1, 12), (2, 7)])         # key first, then the values
    insert_rows(session, SpoolRow, ("device", "session"), [("cam-9", 5)])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import JSON, LargeBinary, Table, inspect
from sqlalchemy.dialects import postgresql
from sqlmodel import Session, SQLModel

__all__ = ["fetch_rows", "insert_rows", "update_rows"]

Names = tuple[str, ...]
_POSTGRES = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy gives it none


def fetch_rows(
    session: Session, row_class: type[SQLModel], names: Names, where: Mapping[str, Sequence[str] | str]
) -> Sequence[Any]:
    """Return ``names`` of the rows whose columns have one of the given texts; JSON comes as text."""
    connection = session.connection()
    sqlite = connection.dialect.name == "sqlite"
    several = tuple(name for name, value in where.items() if not isinstance(value, str))
    statement = _select(row_class, names, tuple(where), several, sqlite=sqlite)
    values = tuple(
        msgspec.json.encode(list(value)).decode() if sqlite and name in several else value
        for name, value in ((name, value if isinstance(value, str) else list(value)) for name, value in where.items())
    )
    return connection.exec_driver_sql(statement, values, execution_options={"binary": True}).fetchall()


def insert_rows(session: Session, row_class: type[SQLModel], names: Names, rows: Sequence[Sequence[Any]]) -> None:
    """Insert ``rows``, which hold the values of ``names``; other columns must have a default in the database."""
    if not rows:
        return
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_sqlite_insert(row_class, names), [tuple(row) for row in rows])
    else:
        document, pieces = _document(names, rows)
        connection.exec_driver_sql(_postgres_insert(row_class, names), {"document": document, "pieces": pieces})


def update_rows(
    session: Session, row_class: type[SQLModel], key: Names, names: Names, rows: Sequence[Sequence[Any]]
) -> None:
    """Set ``names`` of the rows with these keys; ``rows`` hold the key's values first, and are in its order."""
    if not rows:
        return
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        turned = [(*row[len(key) :], *row[: len(key)]) for row in rows]
        connection.exec_driver_sql(_sqlite_update(row_class, key, names), turned)
    else:
        document, pieces = _document(key + names, rows)
        connection.exec_driver_sql(_postgres_update(row_class, key, names), {"document": document, "pieces": pieces})


def _document(names: Names, rows: Sequence[Sequence[Any]]) -> tuple[str, bytes]:
    """Return ``rows`` as a JSON list of objects, and all bytes of them in one piece.

    An object says of bytes where they begin in that piece, from one, and how many they are. PostgreSQL has no NUL in a
    text: it is U+FFFD.
    """
    pieces: list[bytes] = []
    bytes_in = [name for name, value in zip(names, rows[0], strict=True) if isinstance(value, bytes)]
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    begin = 1
    for each in objects:
        for name in bytes_in:
            pieces.append(each[name])
            each[name] = (begin, len(pieces[-1]))
            begin += len(pieces[-1])
    return msgspec.json.encode(objects).replace(rb"\u0000", rb"\ufffd").decode(), b"".join(pieces)


@cache
def _select(row_class: type[SQLModel], names: Names, where: Names, several: Names, *, sqlite: bool) -> str:
    table = _table(row_class)
    chosen = ", ".join(
        f'CAST("{name}" AS TEXT)' if isinstance(table.c[name].type, JSON) else f'"{name}"' for name in names
    )
    mark, one_of = ("?", "IN (SELECT value FROM json_each(?))") if sqlite else ("%s", "= ANY(%s)")
    conditions = " AND ".join(f'"{name}" {one_of if name in several else f"= {mark}"}' for name in where)
    return f'SELECT {chosen} FROM "{table.name}" WHERE {conditions}'  # noqa: S608 - names of our own tables


@cache
def _sqlite_insert(row_class: type[SQLModel], names: Names) -> str:
    marks = ", ".join("?" * len(names))
    return f'INSERT INTO "{_table(row_class).name}" ({_listed(names)}) VALUES ({marks})'  # noqa: S608 - see above


@cache
def _postgres_insert(row_class: type[SQLModel], names: Names) -> str:
    table = _table(row_class)
    chosen = ", ".join(_postgres_value(table, name) for name in names)
    return (
        f'INSERT INTO "{table.name}" ({_listed(names)}) SELECT {chosen} FROM '  # noqa: S608 - see above
        f"ROWS FROM (json_to_recordset(%(document)s::json) AS ({_record(table, names)})) WITH ORDINALITY "
        f"AS v({_listed(names)}, place) ORDER BY v.place"
    )


@cache
def _sqlite_update(row_class: type[SQLModel], key: Names, names: Names) -> str:
    changes = ", ".join(f'"{name}" = ?' for name in names)
    condition = " AND ".join(f'"{name}" = ?' for name in key)
    return f'UPDATE "{_table(row_class).name}" SET {changes} WHERE {condition}'  # noqa: S608 - see above


@cache
def _postgres_update(row_class: type[SQLModel], key: Names, names: Names) -> str:
    table = _table(row_class)
    changes = ", ".join(f'"{name}" = {_postgres_value(table, name)}' for name in names)
    condition = " AND ".join(f't."{name}" = v."{name}"' for name in key)
    return (
        f'UPDATE "{table.name}" AS t SET {changes} '  # noqa: S608 - see above
        f"FROM json_to_recordset(%(document)s::json) AS v({_record(table, key + names)}) WHERE {condition}"
    )


def _record(table: Table, names: Names) -> str:
    return ", ".join(f'"{name}" {_postgres_type(table, name)}' for name in names)


def _postgres_type(table: Table, name: str) -> str:
    kind = table.c[name].type
    if isinstance(kind, LargeBinary):
        return "int4[]"
    return "text" if isinstance(kind, JSON) else kind.compile(dialect=_POSTGRES).split(" COLLATE")[0]


def _postgres_value(table: Table, name: str) -> str:
    kind = table.c[name].type
    if isinstance(kind, JSON):
        return f'v."{name}"::json'
    if isinstance(kind, LargeBinary):
        return f'substring(%(pieces)s::bytea from v."{name}"[1] for v."{name}"[2])'
    return f'v."{name}"'


def _listed(names: Names) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _table(row_class: type[SQLModel]) -> Table:
    table = inspect(row_class).local_table
    assert isinstance(table, Table)  # every row class of store.tables has one
    return table

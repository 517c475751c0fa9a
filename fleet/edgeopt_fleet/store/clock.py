"""The database's own clock, in seconds since 1970, as an SQL expression of every dialect.

Processes on several machines have several clocks; what they must agree on is measured on this one. On PostgreSQL it
goes on within a transaction (``clock_timestamp``, not ``now``). Example::

    now = session.exec(select(database_time())).one()
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Float
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["database_time"]


class database_time(FunctionElement[float]):  # noqa: N801 - SQL functions are written so
    """Seconds since 1970 at the moment of the call."""

    type = Float()
    inherit_cache = True


@compiles(database_time, "sqlite")
def _on_sqlite(_element: database_time, _compiler: Any, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_time, "postgresql")
def _on_postgresql(_element: database_time, _compiler: Any, **_options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"

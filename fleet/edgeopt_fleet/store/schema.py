"""Which version the tables of a database have, and how they get to the one that this program needs.

New databases are made from :mod:`edgeopt_fleet.store.tables`; older ones are brought there by Alembic's revisions in
``store/migrations``. A test holds that both ways end at the same tables. Example::

    check_schema(connection, "fleet.db")     # UsageError: … run: edgeopt-fleet migrate
    migrate(connection, "fleet.db")          # ("0001", "0002")
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select
from sqlmodel import SQLModel

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.store import tables

__all__ = ["SCHEMA", "check_schema", "create_schema", "migrate", "schema_of"]

SCHEMA = "0001"  # the newest revision; their names are in the order in which they apply
assert tables.__all__  # importing it is what declares the tables

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def create_schema(connection: Connection, name: str) -> None:
    """Make all tables. Raises :class:`UsageError` when the database called ``name`` has tables already."""
    if found := inspect(connection).get_table_names():
        raise UsageError(f"the database {name} holds tables already ({found[0]}, …); give an empty one")
    SQLModel.metadata.create_all(connection)
    _VERSION.create(connection)
    connection.execute(_VERSION.insert().values(version_num=SCHEMA))


def schema_of(connection: Connection) -> str | None:
    """Return the version of the tables; None where there are none of ours."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def check_schema(connection: Connection, name: str) -> None:
    """Raise :class:`UsageError` unless the database called ``name`` is of the version that this program needs."""
    found = schema_of(connection)
    if found is None:
        raise UsageError(f"the database {name} holds no fleet; make one first: edgeopt-fleet init")
    if found < SCHEMA:
        raise UsageError(
            f"the database {name} has version {found}, this program needs {SCHEMA}; back it up, stop all servers, and "
            "run: edgeopt-fleet migrate"
        )
    if found > SCHEMA:
        raise UsageError(
            f"the database {name} has version {found}, this program knows {SCHEMA} only; use the newer program that "
            "migrated it, or restore the back-up from before"
        )


def migrate(connection: Connection, name: str) -> tuple[str, str]:
    """Bring the tables to :data:`SCHEMA` within the connection's transaction and return the versions before and after.

    Raises :class:`UsageError` when the database called ``name`` holds no fleet, or a newer one.
    """
    from alembic import command
    from alembic.config import Config

    before = schema_of(connection)
    if before is None or before > SCHEMA:
        check_schema(connection, name)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return before or "", SCHEMA

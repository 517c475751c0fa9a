from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlmodel import SQLModel

from edgeopt_contract.errors import UsageError
from edgeopt_fleet.store import schema
from edgeopt_fleet.store.database import Address, Database


def empty(database: Database) -> None:
    """Take all tables away, as before a fleet was made."""
    with database.transaction() as session:
        SQLModel.metadata.drop_all(session.connection())
        session.execute(text("DROP TABLE alembic_version"))


def described(database: Database) -> dict[str, object]:
    """Return what the database itself says about its tables."""
    with database.reading() as session:
        seen = inspect(session.connection())
        return {
            table: (
                [(column["name"], str(column["type"]), column["nullable"]) for column in seen.get_columns(table)],
                seen.get_pk_constraint(table)["constrained_columns"],
                sorted((index["name"], index["column_names"], index["unique"]) for index in seen.get_indexes(table)),
                sorted(tuple(unique["column_names"]) for unique in seen.get_unique_constraints(table)),
                sorted(str(key) for key in seen.get_foreign_keys(table)),
            )
            for table in seen.get_table_names()
        }


def apply_revisions(database: Database) -> None:
    """Make the tables by Alembic's revisions alone."""
    with database.transaction() as session:
        session.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        session.execute(text("INSERT INTO alembic_version VALUES ('0000')"))
    with database.transaction() as session:
        session.execute(text("DELETE FROM alembic_version"))  # Alembic's way to say: nothing was applied
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(schema, "schema_of", lambda _connection: "0000")
            assert ("0000", schema.SCHEMA) == schema.migrate(session.connection(), database.name)


def test_models_and_revisions_agree(make_database: Callable[[], Database]) -> None:
    """A database that was migrated has exactly the tables of a new one; else run: python -m tools.migration."""
    new, migrated = make_database(), make_database()
    empty(migrated)
    apply_revisions(migrated)
    assert described(new) == described(migrated)
    with migrated.reading() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert [] == compare_metadata(context, SQLModel.metadata)


def test_the_newest_revision_is_the_one_that_the_program_asks_for() -> None:
    """The constant, which saves importing Alembic at each start, is the head; there is one head."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).with_name("migrations")))
    assert [schema.SCHEMA] == ScriptDirectory.from_config(config).get_heads()


@pytest.mark.parametrize(
    ("version", "words"),
    [("0000", "run: edgeopt-fleet migrate"), ("9999", "use the newer program"), (None, "holds no fleet")],
)
def test_another_version_is_refused_in_words(
    new_address: Callable[[], Address], version: str | None, words: str
) -> None:
    """A server does not run over tables of another version, and says what to do."""
    address = new_address()
    database = Database.open(address)
    with database.transaction() as session:
        session.execute(text("DELETE FROM alembic_version"))
        if version is not None:
            session.execute(text(f"INSERT INTO alembic_version VALUES ('{version}')"))
    database.close()
    with pytest.raises(UsageError, match=words):
        Database.open(address)


def test_migrating_a_database_of_this_version_changes_nothing(database: Database) -> None:
    """It may be run at every start."""
    before = described(database)
    with database.transaction() as session:
        assert (schema.SCHEMA, schema.SCHEMA) == schema.migrate(session.connection(), database.name)
    assert before == described(database)


def test_a_migration_that_fails_leaves_the_old_version(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are changed in one transaction, on SQLite, too."""
    from alembic import op

    empty(database)

    def create_table(name: str, *columns: object, **options: object) -> None:
        if name == "window":
            raise RuntimeError("power cut")
        original(name, *columns, **options)

    original = op.create_table
    monkeypatch.setattr(op, "create_table", create_table)
    with pytest.raises(RuntimeError, match="power cut"):
        apply_revisions(database)
    with database.reading() as session:
        assert ["alembic_version"] == inspect(session.connection()).get_table_names()

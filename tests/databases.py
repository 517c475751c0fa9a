"""Fixtures: the database of an empty fleet, for each test a new one, on SQLite and on PostgreSQL.

A test that takes ``database``, ``make_database`` or ``new_address`` runs twice. Where PostgreSQL is not installed, its
half is skipped with the reason. Example::

    def test_it_is_kept(database: Database) -> None: …

    @pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
    def test_locks(new_address: Callable[[], Address]) -> None: …
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # most tests need neither
    from edgeopt_fleet.store.database import Address, Database
    from tests.fleet.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL for the whole run; it holds an empty fleet to copy."""
    from tests.fleet.postgres import missing_postgres, running_postgres

    reason = missing_postgres()
    if reason is not None:
        pytest.skip(reason)
    from edgeopt_fleet.store.database import Database

    with running_postgres() as server:
        Database.create(server.create("empty_fleet")).close()
        yield server


@pytest.fixture(scope="session")
def empty_fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a SQLite file that holds an empty fleet to copy."""
    from edgeopt_fleet.store.database import Database

    path = tmp_path_factory.mktemp("empty") / "fleet.db"
    Database.create(path).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Name the database; tests run on both, but those that say otherwise (parametrize, indirect)."""
    return str(request.param)


@pytest.fixture
def new_address(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Address]]:
    """Give a function that makes the database of an empty fleet and returns where it is, for any process to open."""
    made: list[str] = []
    if backend != "sqlite":  # here, not in a thread of the test's: the server dies with the thread that started it
        server: Postgres = request.getfixturevalue("postgres")

    def new() -> Address:
        if backend == "sqlite":
            path = tmp_path / (f"fleet-{len(made)}.db" if made else "fleet.db")
            made.append(path.name)
            shutil.copy(request.getfixturevalue("empty_fleet"), path)
            return path
        made.append(f"fleet_{next(server.numbers)}")
        return server.create(made[-1], template="empty_fleet")

    yield new
    if backend != "sqlite":
        for name in made:
            server.drop(name)


@pytest.fixture
def make_database(new_address: Callable[[], Address]) -> Iterator[Callable[[], Database]]:
    """Give a function that returns the database of a new, empty fleet; it is closed at the end."""
    from edgeopt_fleet.store.database import Database

    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(Database.open(new_address())))


@pytest.fixture
def database(make_database: Callable[[], Database]) -> Database:
    """Return the database of an empty fleet."""
    return make_database()

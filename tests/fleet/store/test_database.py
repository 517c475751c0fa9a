from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import col, select

from edgeopt_contract.errors import StorageError, UsageError
from edgeopt_fleet.store.database import Address, Database
from edgeopt_fleet.store.tables import AlertRow, DraftRow, MetadataRow, SpoolRow
from tests.fleet.postgres import Postgres

GREATEST = 2**53 - 1  # that a message may hold


def put(database: Database, role: str, data: bytes = b"", lock: str = "") -> None:
    """Add one small row."""
    with database.transaction(lock=lock) as session:
        session.add(DraftRow(role=role, data=data))


def roles(database: Database) -> list[str]:
    """Return the rows of :func:`put` in the database's own order of text."""
    with database.reading() as session:
        return list(session.exec(select(DraftRow.role).order_by(col(DraftRow.role))))


def test_a_transaction_is_kept_or_not_at_all(database: Database) -> None:
    """An error anywhere takes back what was written before it, and leaves as it is."""
    put(database, "a")

    def fail() -> None:
        with database.transaction() as session:
            session.add(DraftRow(role="b", data=b""))
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert ["a"] == roles(database)


def test_a_broken_key_is_the_caller_s_business(database: Database) -> None:
    """A row that exists is an IntegrityError, not a failing disk; the transaction after it works."""
    put(database, "a")
    with pytest.raises(IntegrityError):
        put(database, "a")
    put(database, "b")
    assert ["a", "b"] == roles(database)


def test_who_reads_sees_one_moment_and_waits_for_nobody(database: Database) -> None:
    """While another transaction writes and commits, a reader's answers do not change."""
    put(database, "a")
    with database.transaction() as writing:
        writing.add(DraftRow(role="b", data=b""))
        writing.flush()
        assert ["a"] == roles(database)  # does not wait for the writer, on the same thread
    with database.reading() as session:
        assert 2 == len(session.exec(select(DraftRow)).all())
        put(database, "c")
        assert 2 == len(session.exec(select(DraftRow.role)).all())
    assert ["a", "b", "c"] == roles(database)


def test_who_reads_cannot_write(database: Database) -> None:
    """A store that was declared as reading only cannot change a row by mistake."""

    def write() -> None:
        with database.reading() as session:
            session.add(DraftRow(role="a", data=b""))
            session.flush()

    with pytest.raises(StorageError, match=r"read-?only"):
        write()


def _exclude(database: Database, first: str, second: str) -> bool:
    """Say whether a transaction with the lock ``second`` waits for one with ``first``."""
    inside, done = threading.Event(), threading.Event()

    def other() -> None:
        with database.transaction(lock=second):
            inside.set()

    with ThreadPoolExecutor(1) as executor:
        with database.transaction(lock=first):
            future = executor.submit(other)
            waited = not inside.wait(0.3 if first == second or "" in (first, second) or database.is_sqlite else 30)
            done.set()
        future.result(30)
    return waited


@pytest.mark.parametrize(("first", "second"), [("", ""), ("", "a"), ("a", ""), ("a", "a")])
def test_locks_exclude(database: Database, first: str, second: str) -> None:
    """Without a name a transaction excludes all, with one those of the same name."""
    assert _exclude(database, first, second)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_locks_of_different_names_do_not_wait(database: Database) -> None:
    """Ingest and a rollout write at the same time."""
    assert not _exclude(database, "ingest", "rollout:v2")


def test_a_guard_is_asked_inside_of_each_transaction(database: Database) -> None:
    """What a guard refuses changes nothing; the database without it is unaffected."""
    allowed = [True, False]

    def check(session: object) -> None:
        if not allowed.pop(0):
            raise StorageError("the lease was lost")

    guarded = database.guarded(check)
    put(guarded, "a")
    with pytest.raises(StorageError, match="lease"):
        put(guarded, "b")
    put(database, "c")
    assert ["a", "c"] == roles(guarded)


@pytest.mark.parametrize("number", [GREATEST, -GREATEST])
def test_the_greatest_number_of_a_message_is_kept(database: Database, number: int) -> None:
    """Devices count up to 2**53 - 1; a column of 32 bits would fail their whole batch."""
    with database.transaction() as session:
        session.add(SpoolRow(device="a", session=number, upto=number))
    with database.reading() as session:
        assert (number, number) == session.exec(select(SpoolRow.session, SpoolRow.upto)).one()


def test_any_text_can_be_stored(database: Database) -> None:
    """What a device says may hold every character; NUL, which PostgreSQL refuses, does not fail it."""
    text = "Grüße \U0001f600 ' \" \\ \x01 \uffff"
    put(database, text)
    put(database, "a\0b")
    found = roles(database)
    assert text in found
    assert found[1] in ("a\0b", "a\ufffdb")


def test_text_is_ordered_by_code_points(database: Database) -> None:
    """Pages follow ids: the order is Python's, whatever language the server speaks."""
    names = ["b", "B", "a-b", "ab", "ä", "_", "Z", "a b"]
    for name in names:
        put(database, name)
    assert sorted(names) == roles(database)


def test_bytes_and_json_come_back(database: Database) -> None:
    """Every byte, and JSON with its kinds of numbers and None inside."""
    put(database, "a", bytes(range(256)))
    with database.transaction() as session:
        session.add(MetadataRow(role="r", version=1, data=b""))
        session.add(SpoolRow(device="a", session=1, beyond=[[1, 2], [2**53, 2**53]]))
    with database.reading() as session:
        assert bytes(range(256)) == session.exec(select(DraftRow.data)).one()
        assert b"" == session.exec(select(MetadataRow.data)).one()
        assert [[1, 2], [2**53, 2**53]] == session.exec(select(SpoolRow.beyond)).one()


def test_ids_grow_in_the_order_of_writing(database: Database) -> None:
    """Rows that a database numbers itself are numbered in the order in which they were added."""
    with database.transaction() as session:
        for device in "cab":
            session.add(SpoolRow(device=device, session=1))
            session.flush()
    with database.reading() as session:
        assert ["c", "a", "b"] == list(session.exec(select(SpoolRow.device).order_by(col(SpoolRow.id))))


def test_a_new_database_must_be_empty(new_address: Callable[[], Address]) -> None:
    """A second fleet is not written over the first."""
    with pytest.raises(UsageError, match="give an empty one"):
        Database.create(new_address())


def test_there_must_be_a_database(tmp_path: Path) -> None:
    """SQLite would make an empty file; the message names the command instead."""
    with pytest.raises(UsageError, match="edgeopt-fleet init"):
        Database.open(tmp_path / "fleet.db")
    assert not (tmp_path / "fleet.db").exists()


def test_an_empty_server_holds_no_fleet(postgres: Postgres) -> None:
    """A database that exists but was never filled says so."""
    address = postgres.create("never_filled")
    with pytest.raises(UsageError, match="holds no fleet"):
        Database.open(address)
    postgres.drop("never_filled")


def test_a_server_that_is_away_is_the_world_s_error() -> None:
    """The message names the server, and never the password."""
    with pytest.raises(StorageError) as raised:
        Database.open("postgresql://fleet:canary-password@127.0.0.1:9/fleet?sslpassword=canary-two")
    assert "127.0.0.1:9/fleet" in str(raised.value)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize(
    "address", ["mysql://u:canary@h/d", "canary", "postgresql+asyncpg://u:canary@h/d", "://canary"]
)
def test_another_address_is_refused_without_repeating_it(address: str) -> None:
    """An address may hold a password: the message shows what one looks like, not what came."""
    with pytest.raises(UsageError, match="postgresql://user") as raised:
        Database.open(address)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_restarted_server_is_used_again(database: Database, postgres: Postgres) -> None:
    """Connections that the server closed are replaced; a transaction that was open fails as a whole."""
    put(database, "a")

    def lose_the_server() -> None:
        with database.transaction() as session:
            session.add(DraftRow(role="b", data=b""))
            session.flush()
            postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> ''")
            session.exec(select(DraftRow)).all()

    with pytest.raises(StorageError):
        lose_the_server()
    put(database, "c")
    assert ["a", "c"] == roles(database)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_what_is_acknowledged_is_on_the_disk(database: Database, postgres: Postgres) -> None:
    """Whatever the server's default is, a commit waits for the disk, and nobody waits for ever."""
    expected = {
        "synchronous_commit": "on",
        "lock_timeout": "30s",
        "idle_in_transaction_session_timeout": "10s",
        "TimeZone": "UTC",
    }
    with database.transaction() as session:
        found = {name: session.connection().exec_driver_sql(f"SHOW {name}").scalar() for name in expected}
    assert expected == found


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_sqlite_is_synced_and_its_log_is_copied_beside_the_commits(database: Database) -> None:
    """WAL, a sync for each commit, foreign keys, and no commit that copies the log."""
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0}
    with database.transaction() as session:
        found = {name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar() for name in expected}
    assert expected == found


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_sqlite_s_log_does_not_grow(database: Database, tmp_path: Path) -> None:
    """The thread that copies the log lets it begin anew, while a writer never stops."""
    blob = bytes(1_000_000)
    log = tmp_path / "fleet.db-wal"
    largest = 0
    for number in range(150):
        with database.transaction() as session:
            session.merge(DraftRow(role=str(number % 3), data=blob + str(number).encode()))
        largest = max(largest, log.stat().st_size)
        with contextlib.suppress(AttributeError):
            database._checkpoints._wanted.set()
    assert 0 < largest < 150 * len(blob)


def test_rows_stay_readable_after_their_transaction(database: Database) -> None:
    """What a store returns can be read when its session is gone."""
    with database.transaction() as session:
        row = AlertRow(
            kind="drift", cohort="a", feature="f", source="s", bundle="b", state="open", opened_at=1, last_seen=1,
            psi=0.5, p_value=0.5, rows=1, message="m",
        )  # fmt: skip
        session.add(row)
    assert ("drift", 1) == (row.kind, row.id)


def test_a_table_that_is_missing_is_not_hidden(database: Database) -> None:
    """A mistake in a statement names its cause."""
    with pytest.raises(StorageError, match="nowhere") as raised, database.reading() as session:
        session.connection().exec_driver_sql("SELECT * FROM nowhere")
    assert isinstance(raised.value.__cause__, DBAPIError)

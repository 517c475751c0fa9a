from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlmodel import col, select

from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.statements import insert_new, upsert
from edgeopt_fleet.store.tables import DraftRow, SpoolRow


def drafts(database: Database) -> dict[str, bytes]:
    """Return all rows by key."""
    with database.reading() as session:
        return dict(session.exec(select(DraftRow.role, DraftRow.data)).all())


def test_upsert_inserts_and_replaces(database: Database) -> None:
    """New keys are inserted, known ones replaced, the later of two rows with one key wins; no row is no work."""
    with database.transaction() as session:
        upsert(session, DraftRow, [{"role": "b", "data": b"1"}, {"role": "a", "data": b"1"}])
        upsert(session, DraftRow, [{"role": "b", "data": b"2"}, {"role": "c", "data": b"2"}])
        upsert(session, DraftRow, [{"role": "c", "data": b"3"}, {"role": "c", "data": b"4"}])
        upsert(session, DraftRow, [])
        insert_new(session, DraftRow, [])
    assert {"a": b"1", "b": b"2", "c": b"4"} == drafts(database)


def test_insert_new_keeps_what_is_there(database: Database) -> None:
    """A repeated message changes nothing."""
    with database.transaction() as session:
        insert_new(session, DraftRow, [{"role": "a", "data": b"1"}])
        insert_new(session, DraftRow, [{"role": "a", "data": b"2"}, {"role": "b", "data": b"2"}])
    assert {"a": b"1", "b": b"2"} == drafts(database)


def test_rows_that_are_only_a_key(database: Database) -> None:
    """Where there is nothing to change, a known row stays."""
    row = {"device": "a", "session": 1, "upto": 1, "beyond": [], "rows": 1, "errors": 0}
    with database.transaction() as session:
        upsert(session, SpoolRow, [row], key=("device", "session"), add=("rows",))
        upsert(session, SpoolRow, [{**row, "upto": 5}], key=("device", "session"), add=("rows",))
    with database.reading() as session:
        assert (5, 2) == session.exec(select(SpoolRow.upto, SpoolRow.rows)).one()


def test_concurrent_counters_lose_nothing(database: Database) -> None:
    """Threads that add to the same counters, in opposite orders, under different locks, lose nothing and never hang."""
    devices = [f"d{number}" for number in range(10)]

    def count(worker: int) -> None:
        order = devices if worker % 2 else devices[::-1]
        rows = [{"device": d, "session": 1, "beyond": [], "upto": 0, "rows": 1, "errors": 2} for d in order]
        for _ in range(20):
            with database.transaction(lock=f"worker:{worker}") as session:
                upsert(session, SpoolRow, rows, key=("device", "session"), add=("rows", "errors"))

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(count, range(4)))
    with database.reading() as session:
        found = session.exec(select(SpoolRow.device, SpoolRow.rows, SpoolRow.errors).order_by(col(SpoolRow.device)))
        assert [(device, 80, 160) for device in devices] == [tuple(row) for row in found]

"""What each of several processes does to the same database, for the tests of storage.

They are forked from a server without threads that has imported this module: a new interpreter costs a second each.
Example::

    process = PROCESSES.Process(target=work, args=(address, "count", 100, "w0", pipe))
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from sqlmodel import Session, col, func, select

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.statements import upsert
from edgeopt_fleet.store.tables import DriftRow, SpoolRow

__all__ = ["DEVICES", "PROCESSES", "work"]

DEVICES = 20
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.complaints.writers"])


def _count(database: Database, number: int, name: str) -> None:
    """Add one to counters of every device, with a lock of its own: the database adds, not the program."""
    rows = [
        {"device": f"d{device}", "session": 1, "upto": 0, "beyond": [], "rows": 1, "errors": 0}
        for device in range(DEVICES)
    ]
    with database.transaction(lock=f"writer:{name}") as session:
        upsert(session, SpoolRow, rows, key=("device", "session"), add=("rows",))


def _advance(database: Database, number: int, name: str) -> None:
    """Read a row, decide, and write it: all under the lock of that row."""
    with database.transaction(lock="row") as session:
        _step(session)


def _advance_alone(database: Database, number: int, name: str) -> None:
    """The same under no name, as code does that does not think of others."""
    with database.transaction() as session:
        _step(session)


def _step(session: Session) -> None:
    row = session.get_one(DriftRow, ("all", "bundle"))
    row.last_window += 1
    row.features = {**row.features, "f": {"seen": row.features.get("f", {}).get("seen", 0) + 1}}


def _request(database: Database, number: int, name: str) -> None:
    """Read, then write what follows: the pattern that fails with SQLITE_BUSY_SNAPSHOT when begun as a reader."""
    with database.transaction() as session:
        count = session.exec(select(func.count()).select_from(SpoolRow).where(SpoolRow.device == name)).one()
        session.add(SpoolRow(device=name, session=count + 1))


def _read(database: Database, number: int, name: str) -> None:
    """What the API does meanwhile."""
    with database.reading() as session:
        newest = session.exec(select(SpoolRow).order_by(col(SpoolRow.id).desc()).limit(50)).all()
        assert len({row.id for row in newest}) == len(newest)


KINDS: dict[str, Callable[[Database, int, str], None]] = {
    "count": _count,
    "advance": _advance,
    "advance_alone": _advance_alone,
    "request": _request,
    "read": _read,
}


def work(address: str, kind: str, times: int, name: str, pipe: Connection) -> None:
    """Say "ready", wait for a word, work, and tell how many transactions failed, and how the last one did."""
    database = Database.open(address if address.startswith("postgresql") else Path(address))
    pipe.send("ready")
    pipe.recv()
    failed, last = 0, ""
    for number in range(times):
        try:
            KINDS[kind](database, number, name)
        except StorageError as error:
            failed, last = failed + 1, str(error)
    database.close()
    pipe.send((failed, last))
    pipe.close()

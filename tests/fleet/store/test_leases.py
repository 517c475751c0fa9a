from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlmodel import select

from edgeopt_fleet.leases import Lease, Role
from edgeopt_fleet.store.clock import database_time
from edgeopt_fleet.store.database import Address, Database
from edgeopt_fleet.store.leases import LeaseLostError, Leases
from edgeopt_fleet.store.tables import CohortRow

SHORT = 0.6  # seconds; long enough for a busy machine to prolong it in time


def pass_time(database: Database, lease: Lease) -> None:
    """Wait until the lease is over by the database's clock."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with database.reading() as session:
            if session.exec(select(database_time())).one() > lease.expires_at:
                return
        time.sleep(0.02)
    raise AssertionError("the database's clock stands still")


def take(leases: Leases, role: Role = Role.ROLLOUTS) -> Lease:
    """Take a role that is free."""
    lease = leases.acquire(role)
    assert lease is not None
    return lease


def write(database: Database, leases: Leases, lease: Lease, name: str) -> None:
    """Write something as the holder of ``lease``."""
    guarded = database.guarded(lambda session: leases.check(session, lease))
    with guarded.transaction(lock="cohorts") as session:
        session.add(CohortRow(name=name, tags={}))


def names(database: Database) -> list[str]:
    """Return what was written."""
    with database.reading() as session:
        return sorted(session.exec(select(CohortRow.name)))


def test_the_database_s_clock_is_seconds_since_1970(database: Database) -> None:
    """It runs on the same machine here, so it agrees with this process's; to the part of a second."""
    before = time.time()
    with database.reading() as session:
        told = session.exec(select(database_time())).one()
    assert before - 1 < told < time.time() + 1
    assert told != int(told)


def test_one_of_two_holds_a_role(database: Database) -> None:
    """The other one gets another role, and this one when it is handed back."""
    first, second = (Leases(database, owner=owner, seconds=60.0) for owner in "ab")
    lease = take(first)
    assert second.acquire(Role.ROLLOUTS) is None
    take(second, Role.DRIFT)
    standing, now = first.standing()
    assert {Role.ROLLOUTS: "a", Role.DRIFT: "b"} == {role: one.owner for role, one in standing.items()}
    assert 50 < standing[Role.ROLLOUTS].expires_at - now <= 60
    first.release([lease])
    assert 2 == take(second).epoch


def test_what_is_prolonged_is_not_lost(database: Database) -> None:
    """Renewing moves the end; what was taken over meanwhile is not among what is kept."""
    first, second = (Leases(database, owner=owner, seconds=SHORT) for owner in "ab")
    mine, other = take(first), take(first, Role.DRIFT)
    pass_time(database, mine)
    taken = take(second)
    kept = first.renew([mine, other])
    assert {Role.DRIFT} == set(kept)
    assert kept[Role.DRIFT].expires_at > other.expires_at
    assert {Role.ROLLOUTS} == set(second.renew([taken]))


def test_who_lost_a_role_writes_nothing(database: Database) -> None:
    """Not before the successor has written, and not after; the message names who holds it."""
    first, second = (Leases(database, owner=owner, seconds=SHORT) for owner in "ab")
    mine = take(first)
    write(database, first, mine, "by a")
    pass_time(database, mine)
    write(database, first, mine, "late, but nobody else came")
    pass_time(database, mine)
    theirs = take(second)
    with pytest.raises(LeaseLostError, match=r"epoch 1\) is held by b"):
        write(database, first, mine, "stale")
    write(database, second, theirs, "by b")
    assert ["by a", "by b", "late, but nobody else came"] == names(database)


def test_a_role_is_not_taken_over_in_the_middle_of_its_transaction(database: Database) -> None:
    """Whoever wants it waits for the commit, so what was checked holds until then."""
    first, second = (Leases(database, owner=owner, seconds=SHORT) for owner in "ab")
    mine = take(first)
    guarded = database.guarded(lambda session: first.check(session, mine))
    taken: list[Lease | None] = []
    with guarded.transaction(lock="cohorts") as session:
        pass_time(database, mine)
        thief = threading.Thread(target=lambda: taken.append(second.acquire(Role.ROLLOUTS)))
        thief.start()
        thief.join(0.2)
        assert thief.is_alive(), "the role changed hands inside a transaction of its owner"
        session.add(CohortRow(name="whole", tags={}))
    thief.join(30)
    assert 2 == (taken[0] and taken[0].epoch)
    assert ["whole"] == names(database)


SLEEPER = """
import sys
from pathlib import Path
from edgeopt_fleet.leases import Role
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.leases import LeaseLostError, Leases
from edgeopt_fleet.store.tables import CohortRow

address, where = sys.argv[1:]
database = Database.open(address if "://" in address else Path(address))
leases = Leases(database, owner="paused", seconds=1.0)
lease = leases.acquire(Role.INGEST)
guarded = database.guarded(lambda session: leases.check(session, lease))
def stop():
    print("ready", flush=True)
    sys.stdin.readline()
try:
    if where == "before":
        stop()
    with guarded.transaction(lock="cohorts") as session:
        session.add(CohortRow(name="stale", tags={}))
        session.flush()
        if where == "inside":
            stop()
except LeaseLostError:
    print("lost")
except Exception as error:
    print(type(error).__name__)
else:
    print("written")
database.close()
"""


@contextlib.contextmanager
def paused(address: Address, where: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the role and was stopped (SIGSTOP) before or inside its transaction."""
    command = [sys.executable, "-c", SLEEPER, str(address), where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert "ready\n" == process.stdout.readline()
            os.kill(process.pid, signal.SIGSTOP)
            yield process
        finally:
            process.kill()


def wake(process: subprocess.Popen[str]) -> str:
    """Let a stopped process go on and return what it says of its write."""
    os.kill(process.pid, signal.SIGCONT)
    return process.communicate("\n", timeout=60)[0].strip()


def until_taken(leases: Leases, role: Role) -> Lease:
    """Ask for a role until it is given, as a standby does."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lease = leases.acquire(role)
        if lease is not None:
            return lease
        time.sleep(0.05)
    raise AssertionError("the role was never free")


def test_a_process_that_was_paused_and_replaced_writes_nothing(new_address: Callable[[], Address]) -> None:
    """It wakes up long after its lease was taken over, and its first write is refused."""
    address = new_address()
    with contextlib.closing(Database.open(address)) as database, paused(address, "before") as process:
        standby = Leases(database, owner="standby", seconds=60.0)
        theirs = until_taken(standby, Role.INGEST)
        write(database, standby, theirs, "by the standby")
        assert "lost" == wake(process)
        assert ["by the standby"] == names(database)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_process_that_was_paused_in_a_transaction_keeps_nobody_waiting(new_address: Callable[[], Address]) -> None:
    """PostgreSQL throws its connection out after the time of a lease; what it had written is gone.

    (SQLite's lock is the kernel's: a process stopped inside a transaction holds it until it goes on or ends.)
    """
    address = new_address()
    with contextlib.closing(Database.open(address)) as database, paused(address, "inside") as process:
        standby = Leases(database, owner="standby", seconds=60.0)
        theirs = until_taken(standby, Role.INGEST)
        write(database, standby, theirs, "by the standby")
        assert "StorageError" == wake(process)
        assert ["by the standby"] == names(database)


def test_leases_on_a_database_file_are_seen_by_other_processes(tmp_path: Path) -> None:
    """Two connections to one SQLite file, as two processes have them."""
    path = tmp_path / "fleet.db"
    with contextlib.closing(Database.create(path)) as one, contextlib.closing(Database.open(path)) as other:
        take(Leases(one, owner="a", seconds=60.0))
        assert Leases(other, owner="b", seconds=60.0).acquire(Role.ROLLOUTS) is None

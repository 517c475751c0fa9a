"""What users of other fleets' databases complained about: none of it happens here, with several processes at once.

``EDGEOPT_COMPLAINTS_REQUESTS`` sets how many transactions a test makes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from multiprocessing.connection import Connection
from typing import Any

import pytest
from sqlmodel import col, func, select

from edgeopt_fleet.store.database import Address, Database
from edgeopt_fleet.store.tables import DriftRow, SpoolRow
from tests.complaints.writers import DEVICES, PROCESSES, work

_PATIENCE_SECONDS = 120.0
pytestmark = pytest.mark.complaints

REQUESTS = int(os.environ.get("EDGEOPT_COMPLAINTS_REQUESTS", "240"))  # ovumcy-web#155 measured 4,247


def run_together(
    address: Address,
    works: Sequence[tuple[str, int, str]],
    meanwhile: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> tuple[list[str], float]:
    """Run these kinds of work at the same time, each in its process; return the failures, and the seconds it took."""
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(closing(_start(stack, str(address), *each))) for each in works]
        assert ["ready"] * len(pipes) == [_hear(pipe) for pipe in pipes]
        started = time.monotonic()
        with meanwhile():
            for pipe in pipes:
                pipe.send("go")
            answers = [_hear(pipe) for pipe in pipes]
        seconds = time.monotonic() - started
    return [f"{failed} times: {last}" for failed, last in answers if failed], seconds


def _start(stack: contextlib.ExitStack, address: str, kind: str, times: int, name: str) -> Connection:
    """Start a process that ends with the test; return the pipe to it."""
    mine, its = PROCESSES.Pipe()
    process = PROCESSES.Process(target=work, args=(address, kind, times, name, its), daemon=True)
    process.start()
    its.close()
    stack.callback(process.close)
    stack.callback(process.join)
    stack.callback(process.kill)
    return mine


def _hear(pipe: Connection) -> Any:
    assert pipe.poll(_PATIENCE_SECONDS), "a process neither answered nor ended"
    return pipe.recv()


def test_goosebit_counters_are_added_up_by_the_database(new_address: Callable[[], Address]) -> None:
    """GooseBit adds to counters in Python and saves them (``rollout.success_count += 1``): two at once count one.

    Here processes with different locks add to the same rows, and every one counts.
    """
    address = new_address()
    times = REQUESTS // 6
    assert [] == run_together(address, [("count", times, f"w{number}") for number in range(3)])[0]
    with closing(Database.open(address)) as database, database.reading() as session:
        counts = session.exec(select(SpoolRow.rows).order_by(col(SpoolRow.device))).all()
    print(f"\n3 processes, {3 * times} transactions: {sum(counts)} of {3 * times * DEVICES} counted")
    assert [3 * times] * DEVICES == list(counts)


@pytest.mark.parametrize("kinds", [("advance", "advance"), ("advance_alone", "advance"), ("advance_alone",) * 2])
def test_goosebit_rows_that_two_processes_advance_lose_no_step(
    new_address: Callable[[], Address], kinds: tuple[str, str]
) -> None:
    """Reading a row, deciding and writing it back is one step, whether the lock has a name or not."""
    address = new_address()
    with closing(Database.open(address)) as database, database.transaction() as session:
        session.add(DriftRow(cohort="all", bundle="bundle"))
    times = REQUESTS // 6
    assert [] == run_together(address, [(kind, times, f"w{number}") for number, kind in enumerate(kinds)])[0]
    with closing(Database.open(address)) as database, database.reading() as session:
        row = session.get_one(DriftRow, ("all", "bundle"))
    assert (2 * times, 2 * times) == (row.last_window, row.features["f"]["seen"])


def test_ovumcy_web_155_no_request_finds_the_database_locked(new_address: Callable[[], Address]) -> None:
    """There, 684 of 4,247 requests failed with SQLITE_BUSY: what begins by reading cannot become a writer.

    Here four processes read and write, two more only read, and none fails.
    """
    address = new_address()
    times = REQUESTS // 4
    writers = [("request", times, f"w{number}") for number in range(4)]
    failures, seconds = run_together(address, [*writers, ("read", times, "r0"), ("read", times, "r1")])
    with closing(Database.open(address)) as database, database.reading() as session:
        stored = session.exec(select(func.count()).select_from(SpoolRow)).one()
    print(f"\n{4 * times} requests of 4 processes and {2 * times} reads in {seconds:.1f} s: {len(failures)} failed")
    assert [] == failures
    assert 4 * times == stored


def test_flowfuse_5782_readers_do_not_wait_for_a_writer(new_address: Callable[[], Address]) -> None:
    """There, 40 devices were enough for contention on ``lastSeenAt``: here whoever reads waits for no transaction."""
    address = new_address()
    with closing(Database.open(address)) as database:

        @contextlib.contextmanager
        def writing() -> Iterator[None]:
            with database.transaction() as session:
                session.add(SpoolRow(device="a", session=1))
                session.flush()
                yield

        assert [] == run_together(address, [("read", 10, f"r{number}") for number in range(2)], writing)[0]

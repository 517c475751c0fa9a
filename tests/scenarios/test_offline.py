"""Weeks without a network: what a device keeps, in how many bytes, and what the fleet's own database makes of it."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlmodel import select

from edgeopt_agent.reports.spool import AHEAD, Spool
from edgeopt_contract.codec import decode
from edgeopt_contract.features import LATENCY_EDGES_US
from edgeopt_contract.messages import Ack, DeviceState, Reported, Telemetry
from edgeopt_contract.profile import merge_cells
from edgeopt_contract.topics import Channel
from edgeopt_fleet.narrow import widen
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.inbox import Inbox, Incoming
from edgeopt_fleet.store.tables import DeviceRow, WindowRow
from edgeopt_fleet.totals import LATENCY_CELLS

HOUR, DAY = 3600, 86_400
BEGIN = 1_795_300_000 // DAY * DAY
BUNDLES = ("aa" * 32, "bb" * 32)
FEATURES = 64
LIMIT = 3 << 20


class Months:
    """A device that counts ten inferences a second on 64 features of 32 bins, and has nobody to tell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool.open(path, now_ms=1)
        self.spool._connection.execute("PRAGMA synchronous=OFF")  # sizes are the same, and days pass faster
        self._random = np.random.default_rng(0)
        self._shares = self._random.dirichlet(np.full(32, 20.0), FEATURES)
        self.windows: list[Telemetry] = []

    def pass_hours(self, hours: int, bundle: str) -> None:
        """Keep a window an hour."""
        for _ in range(hours):
            at = BEGIN + HOUR * len(self.windows)
            window = self._window(bundle, at)
            self.windows.append(window)
            with self.spool.transaction():
                self.spool.append(Channel.TELEMETRY, lambda session, number, w=window: _numbered(w, session, number))

    def _window(self, bundle: str, start: int) -> Telemetry:
        counts = self._random.poisson(36_000 * self._shares)
        latency = [0] * (len(LATENCY_EDGES_US) + 1)
        for cell in self._random.integers(20, 26, 3):
            latency[cell] += int(self._random.integers(1, 12_000))
        return Telemetry(
            session=1, number=1, bundle=bundle, variant="int8", start=start, end=start + HOUR, rows=sum(latency),
            errors=int(self._random.integers(0, 3)), latency=tuple(latency),
            cells={f"feature-{i:02}": (0, *map(int, row), 0, 0, 0, 0) for i, row in enumerate(counts)},
            infrastructure={"temperature_celsius": 48.5, "disk_free_bytes": 1e9, "memory_bytes": 2e8},
        )  # fmt: skip

    def bytes(self) -> int:
        """What the spool takes on the disk, its write-ahead log included."""
        return sum(
            path.stat().st_size for path in self.path.parent.glob(f"{self.path.name}*") if "-shm" not in path.name
        )


def _numbered(window: Telemetry, session: int, number: int) -> Telemetry:
    return replace(window, session=session, number=number)


@pytest.fixture
def months(tmp_path: Path) -> Iterator[Months]:
    """A device without a network."""
    months = Months(tmp_path / "agent.db")
    yield months
    months.spool.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Database]:
    """The fleet's real database, with this device in it."""
    database = Database.create(tmp_path / "fleet.db")
    with database.transaction() as session:
        session.add(DeviceRow(id="cam", tags={}, capabilities={}, enrolled_at=1))
    yield database
    database.close()


def tell(spool: Spool, database: Database, seed: int = 0) -> list[Reported | Telemetry]:
    """Send until all is acknowledged, over a link that loses, doubles and reorders; return each message once."""
    inbox, chance, told = Inbox(database), random.Random(seed), {}
    while waiting := spool.unacknowledged(AHEAD):
        sent: list[Reported | Telemetry] = []
        for message in waiting:
            kind: Any = Reported if message.channel is Channel.REPORTED else Telemetry
            record = decode(kind, message.payload)
            assert record == told.setdefault(message.number, record), "a number was used for two messages"
            sent += [record] * chance.choice([0, 1, 1, 1, 1, 1, 1, 1, 1, 2])
        chance.shuffle(sent)
        acks = inbox.store([Incoming(device="cam", record=record) for record in sent], BEGIN)
        for ack in acks.get("cam", []):
            if chance.random() < 0.7:
                spool.acknowledge(ack, BEGIN)
    return list(told.values())


def assert_books_agree(months: Months, database: Database, told: list[Reported | Telemetry]) -> None:
    """What the device counted is what the database holds: rows, errors, latencies and every cell of each bundle."""
    windows = [record for record in told if isinstance(record, Telemetry)]
    with database.transaction() as session:
        rows = list(session.exec(select(WindowRow)))
        device = session.get(DeviceRow, "cam")
        assert device is not None
        assert len(windows) == device.windows == len(rows)
        assert sum(w.rows for w in months.windows) == device.rows
        assert sum(w.errors for w in months.windows) == device.errors
    for bundle in {w.bundle for w in months.windows}:
        counted = [w for w in months.windows if w.bundle == bundle]
        stored = [row for row in rows if row.bundle == bundle]
        latencies = [widen(row.counts, LATENCY_CELLS) for row in stored]
        assert _total([w.latency for w in counted]) == np.sum(latencies, axis=0).tolist()
        assert merge_cells(*(w.cells for w in counted)) == merge_cells(
            *(w.cells for w in windows if w.bundle == bundle)
        )
        assert min(w.start for w in counted) == min(row.start for row in stored)
        assert max(w.end for w in counted) == max(row.end for row in stored)


def _total(latencies: list[Any]) -> list[int]:
    return np.asarray(latencies).sum(axis=0).tolist()


@pytest.mark.parametrize("days", [30, 90])
def test_weeks_offline_fit_and_no_count_is_lost(
    days: int, months: Months, fleet: Database, record_property: Any
) -> None:
    """30 days stay hourly in 3 MiB; of 90 the older part becomes days. The fleet's books come to the same."""
    months.pass_hours(days * 12, BUNDLES[0])
    months.pass_hours(days * 12, BUNDLES[1])
    with months.spool.transaction():
        months.spool.append(Channel.REPORTED, _report)

    size = months.bytes()
    told = tell(months.spool, fleet)

    windows = [record for record in told if isinstance(record, Telemetry)]
    spans = [w.end - w.start for w in windows]
    print(f"{days} days offline: {size} bytes, {len(windows)} windows, the longest of {max(spans) // HOUR} hours")
    assert size <= LIMIT
    assert DAY >= max(spans)
    if days == 30:
        assert 720 == len(windows)
    else:
        assert len(windows) < 24 * days
        assert {HOUR} == {w.end - w.start for w in windows if w.end > max(x.end for x in windows) - 7 * DAY}
    assert_books_agree(months, fleet, told)
    assert 0 == months.spool.totals().unacknowledged


def test_fleet_that_comes_and_goes_gets_every_count_once(months: Months, fleet: Database) -> None:
    """Hours put together while some messages are under way: what was sent before is not in what is sent later."""
    months.spool._limit_bytes = 300_000
    told: dict[int, Reported | Telemetry] = {}
    inbox, chance = Inbox(fleet), random.Random(3)
    for day in range(12):
        months.pass_hours(24, BUNDLES[day % 3 == 0])
        waiting = months.spool.unacknowledged(AHEAD)
        sent = [decode(Telemetry, m.payload) for m in waiting if chance.random() < 0.5]
        told |= {record.number: record for record in sent}
        acks = inbox.store([Incoming(device="cam", record=record) for record in sent], BEGIN)
        if day % 2 and acks:  # every second time the answer is lost
            months.spool.acknowledge(acks["cam"][0], BEGIN)
    told |= {record.number: record for record in tell(months.spool, fleet, seed=4)}
    assert_books_agree(months, fleet, list(told.values()))
    assert len(told) < len(months.windows)


APPEND = """
import sys, pathlib
from edgeopt_agent.reports.spool import Spool
from edgeopt_contract.messages import Telemetry
from edgeopt_contract.topics import Channel
spool = Spool.open(pathlib.Path(sys.argv[1]), now_ms=1)
spool._limit_bytes = 0
def build(session, number):
    return Telemetry(session=session, number=number, bundle="aa" * 32, variant="int8", start=1, end=2, rows=5, errors=1,
                     cells={}, latency=(5,))
with spool.transaction():
    spool.append(Channel.TELEMETRY, build)
"""


def test_kill_in_the_middle_of_coarsening_loses_and_doubles_nothing(
    months: Months, tmp_path: Path, fleet: Database
) -> None:
    """SIGKILL at writes and fsyncs of the transaction that puts windows together: all of it happened, or none."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    months.pass_hours(AHEAD + 30, BUNDLES[0])
    before = months.spool.totals().rows
    months.spool.close()
    trace = tmp_path / "trace"
    _append_to_a_copy(tmp_path, strace, "-o", str(trace))
    calls = {name: len(re.findall(rf"{name}\(", trace.read_text())) for name in ("pwrite64", "fdatasync")}
    points = [(name, n) for name, most in calls.items() for n in sorted({*range(1, most + 1, max(1, most // 6)), most})]

    outcomes = set()
    for name, n in points:
        copy = _append_to_a_copy(tmp_path, strace, "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={n}")
        spool = Spool.open(copy, now_ms=1)
        rows = sum(decode(Telemetry, m.payload).rows for m in spool.unacknowledged(1000))
        rows += spool._connection.execute("SELECT SUM(rows) FROM windows").fetchone()[0]
        assert spool.totals().rows == rows
        outcomes.add((rows - before, len(spool._waiting)))
        spool.close()

    print(f"killed at {len(points)} of {sum(calls.values())} writes and syncs of one coarsening")
    assert len(points) >= 8
    assert outcomes <= {(0, 30), (5, 2)}
    assert (0, 30) in outcomes
    months.spool = Spool.open(months.path, now_ms=1)


def _append_to_a_copy(tmp_path: Path, *tracer: str) -> Path:
    """Append one window to a copy of the spool, in a process under strace."""
    target = tmp_path / "copy" / "agent.db"
    shutil.rmtree(target.parent, ignore_errors=True)
    target.parent.mkdir()
    for path in tmp_path.glob("agent.db*"):
        shutil.copy(path, target.parent / path.name)
    command = [tracer[0], "-f", "-e", "trace=pwrite64,fdatasync,fsync", *tracer[1:]]
    done = subprocess.run([*command, sys.executable, "-c", APPEND, target], capture_output=True, text=True, check=False)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip(f"this machine does not let us trace: {done.stderr.strip()[:100]}")
    assert done.returncode in (0, -9, 137), done.stderr
    return target


def _report(session: int, number: int) -> Reported:
    return Reported(
        session=session, number=number, at=BEGIN, job="j", bundle=BUNDLES[1], state=DeviceState.CONFIRMED, running=None
    )


def test_acks_of_another_session_number_nothing(months: Months) -> None:
    """A fleet that speaks of a spool before the disk was wiped moves nothing up."""
    months.pass_hours(AHEAD + 1, BUNDLES[0])
    months.spool.acknowledge(Ack(session=99, upto=AHEAD))
    assert (AHEAD, 1) == (months.spool.totals().last_number, len(months.spool._waiting))

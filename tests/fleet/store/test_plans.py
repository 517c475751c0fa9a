"""At fifteen thousand devices, what happens for every message, request and look asks an index, never a whole table."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from benchmarks.fleet.rig import enrol
from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.store.announcements import Announcements
from edgeopt_fleet.store.bearers import Bearers
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.feed import Feed, Topic
from edgeopt_fleet.store.growth import Group, measure
from edgeopt_fleet.store.inbox import Incoming
from edgeopt_fleet.totals import Layout
from tests.fleet.conftest import Kit, reference_profile, window
from tests.fleet.store.test_inbox import report

DEVICES = 15_000
LARGE = ("certificate", "device", "report", "served", "spool", "window")
Noted = list[tuple[str, Any]]


@pytest.fixture
def large(kit: Kit) -> tuple[Kit, str]:
    """Enrol the devices, each with what it served, and let PostgreSQL count them."""
    digest = kit.publish("1")
    enrol(kit.database, DEVICES, digest)
    names = [f"sim-{number:05}" for number in range(DEVICES)]
    for start in range(0, DEVICES, 1000):
        for record in (window(digest, 1), report(2, DeviceState.OFFERED)):
            kit.inbox.store([Incoming(device=name, record=record) for name in names[start : start + 1000]], kit.now)
    if not kit.database.is_sqlite:  # which nobody tells how rows are spread; PostgreSQL looks by itself
        with kit.database.transaction() as session:
            session.execute(text("ANALYZE"))
    return kit, digest


@contextlib.contextmanager
def noting() -> Iterator[Noted]:
    """Note all statements, with what they were given."""
    noted: Noted = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_others: Any) -> None:
        if re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", statement):
            noted.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def scanned(database: Database, noted: Noted) -> set[tuple[str, str]]:
    """Return the large tables that a statement reads from end to end, with the statement."""
    found = set()
    with database.transaction() as session:
        connection = session.connection()
        whole = _whole_of_sqlite if database.is_sqlite else _whole_of_postgres
        for statement, parameters in noted:
            found |= {(table, statement[:300]) for table in whole(connection, statement, parameters) if table in LARGE}
    return found


def _whole_of_sqlite(connection: Connection, statement: str, parameters: Any) -> Iterator[str]:
    for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
        scan = re.match(r"SCAN (\w+)(.*)", row[3])
        if scan and "INDEX" not in scan[2]:
            yield _named(statement, scan[1])


def _whole_of_postgres(connection: Connection, statement: str, parameters: Any) -> Iterator[str]:
    (plans,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).one()
    waiting = [plan["Plan"] for plan in (json.loads(plans) if isinstance(plans, str) else plans)]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", ())
        if node["Node Type"] == "Seq Scan":
            yield node["Relation Name"]


def _named(statement: str, alias: str) -> str:
    """Return the table that ``alias`` stands for."""
    found = re.search(rf'"?(\w+)"? AS {alias}\b', statement)
    return found[1] if found else alias


def _ingest(kit: Kit, digest: str) -> None:
    batch = [Incoming(device=f"sim-{number:05}", record=window(digest, 3)) for number in range(0, 5000, 10)]
    batch += [Incoming(device="sim-00007", record=report(4, DeviceState.OFFERED))]
    kit.inbox.store(batch, kit.now)


def _status(kit: Kit, digest: str) -> None:
    kit.status("sim-00042", running=digest, boot=3)


def _read(kit: Kit, _digest: str) -> None:
    Bearers(kit.database).whose("nobody's", int(kit.now))
    Bearers(kit.database).since(0)
    kit.metadata.numbered()


def _publish(kit: Kit, _digest: str) -> None:
    Announcements(kit.database).waiting()


def _show(kit: Kit, _digest: str) -> None:
    kit.registry.detail("sim-00042")
    kit.registry.windows("sim-00042", None, 20)
    kit.registry.reports("sim-00042", None, 20)
    kit.registry.spools("sim-00042")


def _follow(kit: Kit, _digest: str) -> None:
    feed = Feed(kit.database)
    feed.since(feed.position(), [Topic.DEVICES], 50)


def _drift(kit: Kit, digest: str) -> None:
    with kit.database.reading() as session:
        (growth,) = measure(session, digest, Layout.of(reference_profile()), [Group((), {"sim-00042"}, b"")])
    assert growth.total.sum() > 0


def test_what_happens_all_the_time_reads_no_large_table_whole(large: tuple[Kit, str]) -> None:
    """Cost per message, request and publication is flat from a thousand devices to fifteen thousand."""
    kit, digest = large
    for work in (_ingest, _status, _read, _publish, _show, _follow, _drift):
        with noting() as noted:
            work(kit, digest)
        assert noted
        assert (work.__name__, set()) == (work.__name__, scanned(kit.database, noted))
    with noting() as noted, kit.database.reading() as session:  # such a one would be found
        for table in ("served", "spool"):
            session.connection().exec_driver_sql(f'SELECT "rows" FROM "{table}" WHERE "errors" = 12345')
    assert {"served", "spool"} == {table for table, _ in scanned(kit.database, noted)}

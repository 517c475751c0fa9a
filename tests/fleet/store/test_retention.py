from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from sqlmodel import SQLModel, col, func, select, update

from edgeopt_contract.codec import decode
from edgeopt_contract.messages import DeviceState
from edgeopt_contract.profile import ReferenceProfile
from edgeopt_fleet.narrow import widen
from edgeopt_fleet.retention import DAY, HOUR, Keep
from edgeopt_fleet.store import retention as module
from edgeopt_fleet.store.retention import Retention
from edgeopt_fleet.store.tables import (
    AuditRow,
    BlockRow,
    BundleRow,
    DriftRow,
    EvidenceRow,
    MemberRow,
    ReportRow,
    RolloutRow,
    RollupRow,
    ServedRow,
    VerdictRow,
    WindowRow,
)
from edgeopt_fleet.totals import Layout
from tests.fleet.conftest import Kit, reference_profile, stored_blocks, window

T0 = 20_000 * DAY  # midnight
KEEP = Keep(window_days=1, hour_days=10, day_days=100, report_days=30, verdict_days=50, bundle_days=60)


def tidy(kit: Kit, days: float, keep: Keep = KEEP) -> dict[str, int]:
    """Do what is due ``days`` after the beginning; return how many rows of what."""
    done: Counter[str] = Counter()
    for step in Retention(kit.database, kit.directory / "blocks", keep).steps(T0 + days * DAY):
        done[step.what] += step.rows
    return dict(done)


def all_rows(kit: Kit, row_class: type[SQLModel]) -> list[Any]:
    """Return a table."""
    with kit.database.reading() as session:
        return list(session.exec(select(row_class)).all())


def serve(kit: Kit, device: str, bundle: str, hours: list[float], rows: int = 60) -> None:
    """Store one window that ends at each of these hours after the beginning."""
    from edgeopt_fleet.store.inbox import Incoming

    for hour in hours:
        record = window(bundle, kit.next_number(device), rows=rows)
        end = T0 + int(hour * HOUR)
        record = dataclasses.replace(record, start=end - 60, end=end)
        kit.inbox.store([Incoming(device=device, record=record)], end + 5.0)


def totals(kit: Kit) -> tuple[int, int, list[int]]:
    """Return what all windows, hours and days add up to: windows, rows, counts."""
    size = Layout.of(reference_profile()).size
    parts = [(1, row.rows, row.counts) for row in all_rows(kit, WindowRow)]
    parts += [(row.windows, row.rows, row.counts) for row in all_rows(kit, RollupRow)]
    counts = sum((widen(blob, size) for _, _, blob in parts), np.zeros(size, dtype=np.int64))
    return sum(part[0] for part in parts), sum(part[1] for part in parts), counts.tolist()


@pytest.fixture
def bundle(kit: Kit) -> str:
    """Return the bundle of a fleet of two devices."""
    kit.now = T0
    digest = kit.publish("1")
    kit.enrol("a", "b")
    return digest


def test_windows_become_hours_and_days_and_nothing_is_lost(kit: Kit, bundle: str) -> None:
    """At every age all that was served is there once: as windows, hours, days; then not at all."""
    serve(kit, "a", bundle, [0.1, 0.5, 1.5, 30, 60])
    serve(kit, "b", bundle, [0.2])
    before = totals(kit)
    assert (6, 360) == before[:2]
    assert {} == tidy(kit, 0.9)
    assert {"windows": 4} == tidy(kit, 1.5)
    assert before == totals(kit)
    assert [("a", 0, 2), ("a", HOUR, 1), ("b", 0, 1)] == sorted(
        (row.device, row.start - T0, row.windows) for row in all_rows(kit, RollupRow)
    )
    serve(kit, "a", bundle, [1.6])  # late: it is added to its hour
    assert {"windows": 3} == tidy(kit, 9)
    assert before[1] + 60 == totals(kit)[1]
    assert {"hours": 5} == tidy(kit, 40)
    assert (7, 420) == totals(kit)[:2]
    assert {(DAY, 0), (DAY, DAY), (DAY, 2 * DAY)} == {(row.seconds, row.start - T0) for row in all_rows(kit, RollupRow)}
    assert {"days": 4} == tidy(kit, 150, dataclasses.replace(KEEP, bundle_days=1000))
    assert (0, 0) == totals(kit)[:2]


def test_small_transactions_add_up(kit: Kit, bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of one hour that are rolled up in different transactions make one hour; a kill loses none."""
    serve(kit, "a", bundle, [0.1 + 0.01 * number for number in range(7)])
    before = totals(kit)
    monkeypatch.setattr(module, "_ROWS", 2)
    steps = Retention(kit.database, kit.directory / "blocks", KEEP).steps(T0 + 2.0 * DAY)
    assert 2 == next(steps).rows
    assert before == totals(kit)
    steps.close()
    assert {"windows": 5} == tidy(kit, 2)
    assert before == totals(kit)
    assert [7] == [row.windows for row in all_rows(kit, RollupRow)]


def test_a_drift_look_finds_the_windows_it_has_not_seen(kit: Kit, bundle: str) -> None:
    """Windows stay, however old, until every cohort that watches their bundle has looked at them."""
    kit.status("a", running=bundle, boot=2)
    kit.alerts.look(T0)  # from now on it is watched
    serve(kit, "a", bundle, [1, 2], rows=3)  # too few rows for a look
    kit.alerts.look(T0 + HOUR * 3.0)
    assert {} == tidy(kit, 50)
    serve(kit, "a", bundle, [3, 4, 5, 6], rows=5000)
    kit.alerts.look(T0 + HOUR * 7.0)
    assert 6 == tidy(kit, 50)["windows"]


def test_a_bundle_that_nobody_runs_keeps_no_window(kit: Kit, bundle: str) -> None:
    """A look of long ago at a bundle that is gone from the devices holds nothing back."""
    kit.status("a", running=bundle, boot=2)
    kit.alerts.look(T0)
    serve(kit, "a", bundle, [1], rows=3)
    kit.status("a", running=None, boot=3)
    assert 1 == tidy(kit, 50)["windows"]


def test_reports_go_and_the_device_s_state_stays(kit: Kit, bundle: str) -> None:
    """What a device said last is in its own row."""
    kit.report("a", DeviceState.CONFIRMED, bundle)
    kit.now = T0 + 20.0 * DAY
    kit.report("a", DeviceState.CONFIRMED, bundle)
    assert {"reports": 1} == tidy(kit, 31)
    assert 1 == len(all_rows(kit, ReportRow))
    assert {"reports": 1} == tidy(kit, 55)
    assert "confirmed" == kit.registry.device("a").state


def add_rollout(kit: Kit, name: str, *, settled: bool, bundle: str, previous: str | None = None) -> None:
    """Store a rollout of device a with a verdict and its evidence, as its tables have it."""

    def filled(row_class: type[SQLModel], **values: Any) -> SQLModel:
        kinds = {"VARCHAR": "", "FLOAT": 0.0, "BOOLEAN": False, "JSON": {}, "BLOB": b""}
        defaults = {}
        for column in row_class.__table__.columns:
            defaults[column.key] = None if column.nullable else kinds.get(str(column.type), 0)
        mapped = {prop.columns[0].key: prop.key for prop in row_class.__mapper__.column_attrs}
        given = {mapped[key]: value for key, value in defaults.items()} | values
        return row_class(**given)

    with kit.database.transaction() as session:
        session.add(filled(RolloutRow, name=name, bundle=bundle, settled=settled, updated_at=float(T0), waves=[]))
        session.add(filled(MemberRow, rollout=name, device="a", bundle=bundle, previous=previous))
        session.add(filled(VerdictRow, id=None, rollout=name, reasons=[], key=[]))
        session.add(filled(EvidenceRow, id=None, rollout=name))


def test_evidence_of_ended_rollouts_goes_after_its_time(kit: Kit, bundle: str) -> None:
    """A rollout that may still be judged keeps everything; the record of one that ended stays."""
    add_rollout(kit, "ended", settled=True, bundle=bundle)
    add_rollout(kit, "runs", settled=False, bundle=bundle)
    assert {} == tidy(kit, 49)
    assert {"verdicts": 2} == tidy(kit, 51)
    for row_class in (VerdictRow, EvidenceRow):
        assert ["runs"] == [row.rollout for row in all_rows(kit, row_class)]
    assert {"ended", "runs"} == {row.name for row in all_rows(kit, RolloutRow)}


def blocks(kit: Kit) -> set[str]:
    """Return the names of the blocks that are here."""
    return set(stored_blocks(kit.database, kit.directory / "blocks"))


def age(kit: Kit, seconds: float) -> None:
    """Let all blocks have been written so long before the beginning."""
    import os

    for path in (kit.directory / "blocks").iterdir():
        os.utime(path, (T0 - seconds, T0 - seconds))
    with kit.database.transaction() as session:
        session.execute(update(BlockRow).values(stored_at=T0 - seconds))


def test_a_bundle_that_nobody_needs_gives_its_blocks_back(kit: Kit, bundle: str) -> None:
    """What devices run, shall run or may go back to stays; publishing the other again brings it back."""
    running, wanted, new, old = (kit.publish(version) for version in "2345")
    kit.status("a", running=running, boot=2)
    add_rollout(kit, "runs", settled=False, bundle=new, previous=wanted)
    serve(kit, "b", old, [1])
    before = blocks(kit)
    age(kit, 2.0 * DAY)
    done = tidy(kit, 61)
    assert 2 == done["bundles"]  # the first and the last
    left = {row.digest for row in all_rows(kit, BundleRow) if row.complete}
    assert {running, wanted, new} == left
    assert set() == {row.bundle for row in all_rows(kit, ServedRow)} - left
    assert done["blocks"] == len(before - blocks(kit)) > 0
    for digest in left:
        for block in kit.bundles.delivery(digest).blocks:
            assert kit.bundles.block(block)
    assert ["bundle.prune"] * 2 == [row.operation for row in all_rows(kit, AuditRow) if row.operation == "bundle.prune"]
    counter = {row.digest: row.counter for row in all_rows(kit, BundleRow)}[old]
    restore_bundle(kit, "5")
    again = next(row for row in all_rows(kit, BundleRow) if row.digest == old)
    assert (True, counter) == (again.complete, again.counter)


def restore_bundle(kit: Kit, version: str) -> None:
    """Publish a bundle again from where it was built."""
    import shutil

    shutil.rmtree(kit.directory / f"bundle-{version}")
    kit.publish(version)


def test_blocks_that_are_being_uploaded_stay(kit: Kit, bundle: str) -> None:
    """Young blocks that belong to nothing yet are not swept away under a publisher."""
    from edgeopt_contract.values import digest_of

    kit.bundles.put_block(digest_of(b"uploading"), b"uploading")
    assert digest_of(b"uploading") in blocks(kit)
    tidy(kit, 0.5)
    assert digest_of(b"uploading") in blocks(kit)


def test_what_the_gate_compares_with_stays(kit: Kit, bundle: str) -> None:
    """Totals of bundles in use are no windows: no age takes them."""
    kit.status("a", running=bundle, boot=2)
    serve(kit, "a", bundle, [1, 2])
    kit.alerts.look(T0)
    kit.alerts.look(T0 + 1.0)
    tidy(kit, 90)
    (served,) = all_rows(kit, ServedRow)
    assert 120 == served.rows
    assert 2 == served.windows


def test_nothing_is_due_in_a_new_fleet(kit: Kit, bundle: str) -> None:
    """And doing nothing twice is nothing."""
    assert {} == tidy(kit, 1)
    assert {} == tidy(kit, 1)
    with kit.database.reading() as session:
        assert 0 == session.exec(select(func.count()).select_from(DriftRow).where(col(DriftRow.bundle) == "")).one()
    assert decode(ReferenceProfile, all_rows(kit, BundleRow)[0].profile)

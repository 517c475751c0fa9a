from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect

from edgeopt_contract.messages import DeviceState, Reported, Telemetry
from edgeopt_fleet.herd import reconnect_window_seconds
from edgeopt_fleet.narrow import widen
from edgeopt_fleet.store.inbox import Incoming
from edgeopt_fleet.store.tables import ServedRow, WindowRow
from edgeopt_fleet.totals import LARGEST_COUNT, Layout, confidence_moments
from tests.fleet.conftest import Kit, reference_profile, window


def report(number: int, state: DeviceState, session: int = 1, runs: str | None = None) -> Reported:
    """Return a numbered report on some job."""
    return Reported(session=session, number=number, at=5, job="v1.1.cam", bundle="1" * 64, state=state, running=runs)


def incoming(*records: Reported | Telemetry) -> list[Incoming]:
    """Return messages of the device ``cam``."""
    return [Incoming(device="cam", record=record) for record in records]


def test_a_message_is_stored_once_however_often_it_comes(kit: Kit) -> None:
    """Duplicates are acknowledged again and counted once, within a batch and across batches."""
    kit.enrol("cam")
    digest = kit.publish("1")
    batch = incoming(window(digest, 1), window(digest, 1), window(digest, 2))

    for _ in range(3):
        (ack,) = kit.inbox.store(batch, kit.now)["cam"]
        assert (1, 2, ()) == (ack.session, ack.upto, ack.beyond)

    device = kit.registry.device("cam")
    assert (2, 120, 0) == (device.windows, device.rows, device.errors)
    (spool,) = kit.registry.spools("cam")
    assert (2, 120) == (spool.upto, spool.rows)


def test_windows_of_a_device_are_a_chain_among_those_of_all(kit: Kit) -> None:
    """Newest first, a page at a time, whatever others sent in between; what became part of an hour ends it."""
    for name in ("cam", "door"):
        kit.enrol(name)
    digest = kit.publish("1")
    for first in (1, 3, 5):
        batch = [Incoming(device=n, record=window(digest, first + i)) for i in range(2) for n in ("door", "cam")]
        kit.inbox.store(batch, kit.now)
    pages, before = [], None
    while rows := kit.registry.windows("cam", before, 4):
        assert {"cam"} == {row.device for row in rows}
        pages.append([row.number for row in rows])
        before = rows[-1].id
    assert [[6, 5, 4, 3], [2, 1]] == pages
    (third, second) = kit.registry.windows("cam", None, 5)[3:]
    with kit.database.transaction() as session:
        session.delete(session.get_one(WindowRow, second.id))
    assert [6, 5, 4, 3] == [row.number for row in kit.registry.windows("cam", None, 100)]
    assert [] == kit.registry.windows("cam", third.id, 100)
    assert [] == kit.registry.windows("door", third.id, 100)  # it is another's


def test_a_window_costs_no_more_in_a_large_table(kit: Kit) -> None:
    """Rows are put behind the others: an index by device is written in as many places as devices sent."""
    with kit.database.reading() as session:
        assert [] == inspect(session.connection()).get_indexes(WindowRow.__tablename__)


def test_numbers_beyond_a_gap_are_acknowledged_one_by_one(kit: Kit) -> None:
    """Acknowledging the highest number seen would lose what is still on its way."""
    kit.enrol("cam")
    digest = kit.publish("1")
    (ack,) = kit.inbox.store(incoming(window(digest, 1), window(digest, 4)), kit.now)["cam"]
    assert (1, (4,)) == (ack.upto, ack.beyond)
    assert not ack.covers(2)
    (ack,) = kit.inbox.store(incoming(window(digest, 3), window(digest, 2)), kit.now)["cam"]
    assert (4, ()) == (ack.upto, ack.beyond)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**16), duplicates=st.integers(0, 10), batch=st.integers(1, 7))
def test_order_and_repetition_change_nothing(kit: Kit, seed: int, duplicates: int, batch: int) -> None:
    """Any order, any batches, any duplicates: the same totals, newest report and acknowledgement."""
    device = f"cam-{kit.next_number('device')}"
    kit.enrol(device)
    digest = "1" * 64
    states = [DeviceState.OFFERED, DeviceState.DOWNLOADING, DeviceState.BAKING, DeviceState.CONFIRMED]
    records: list[Reported | Telemetry] = [report(number, state) for number, state in enumerate(states, 1)]
    records += [window(digest, number) for number in range(5, 9)]
    shuffled = records + random.Random(seed).choices(records, k=duplicates)
    random.Random(seed + 1).shuffle(shuffled)

    for start in range(0, len(shuffled), batch):
        part = [Incoming(device=device, record=record) for record in shuffled[start : start + batch]]
        (ack,) = kit.inbox.store(part, kit.now)[device]

    row = kit.registry.device(device)
    assert (8, ()) == (ack.upto, ack.beyond)
    assert (4, 240) == (row.windows, row.rows)
    assert ("confirmed", 4) == (row.state, row.report_number)


def test_an_older_report_does_not_replace_a_newer_one(kit: Kit) -> None:
    """Reordered: ``rolled_back`` (3) came before ``confirmed`` (2)."""
    kit.enrol("cam")
    kit.inbox.store(incoming(report(3, DeviceState.ROLLED_BACK, runs="0" * 64)), kit.now)
    kit.inbox.store(incoming(report(2, DeviceState.CONFIRMED, runs="1" * 64)), kit.now)
    row = kit.registry.device("cam")
    assert ("rolled_back", "0" * 64) == (row.state, row.running)


def test_a_new_spool_counts_as_newer_whatever_its_clock_says(kit: Kit) -> None:
    """A device without a clock battery begins a new spool in 1970; its reports are still the newest."""
    kit.enrol("cam")
    kit.inbox.store(incoming(report(9, DeviceState.CONFIRMED, session=1_764_000_000_000)), kit.now)
    kit.inbox.store(incoming(report(1, DeviceState.FAILED, session=12)), kit.now)
    assert "failed" == kit.registry.device("cam").state
    assert [1_764_000_000_000, 12] == [spool.session for spool in kit.registry.spools("cam")]


def test_messages_of_strangers_are_dropped(kit: Kit) -> None:
    """Who is not enrolled gets no row and no acknowledgement."""
    assert {} == kit.inbox.store(incoming(window("1" * 64, 1)), kit.now)


def test_cells_that_do_not_fit_the_profile_are_left_out(kit: Kit) -> None:
    """The window counts, is acknowledged (else it would come for ever), and cannot spoil a merge."""
    kit.enrol("cam")
    digest = kit.publish("1")
    good = window(digest, 1)
    cells = {"brightness": (1, 2, 3), "stranger": (60,), "confidence": good.cells["confidence"]}
    bad = replace(good, cells=cells)
    (ack,) = kit.inbox.store(incoming(bad), kit.now)["cam"]
    assert 1 == ack.upto
    with kit.database.transaction() as session:
        row = session.get(WindowRow, 1)
        assert row is not None
        layout = Layout.of(reference_profile())
        counts = widen(row.counts, layout.size)
        assert list(good.cells["confidence"]) == layout.cells_of(counts, "confidence").tolist()
        assert 0 == layout.cells_of(counts, "brightness").sum()


def test_confidences_that_are_no_number_count_as_zero(kit: Kit) -> None:
    """A model that answers NaN must not look as confident as before."""
    kit.enrol("cam")
    digest = kit.publish("1")
    good = window(digest, 1)
    counts = [0] * len(good.cells["confidence"])
    counts[-3] = 60  # missing
    bad = replace(good, cells={"confidence": tuple(counts)})
    kit.inbox.store(incoming(bad), kit.now)
    with kit.database.transaction() as session:
        served = session.get(ServedRow, {"device": "cam", "bundle": digest})
        assert served is not None
        layout = Layout.of(reference_profile())
        n, mean, _ = confidence_moments(layout, layout.unpack(served.counts))
        assert (60, 0.0) == (n, mean)


def test_a_retained_birth_does_not_undo_a_report(kit: Kit) -> None:
    """After a reconnection the broker repeats the birth, which names what ran then; the report is newer."""
    kit.enrol("cam")
    kit.status("cam", running="0" * 64, boot=2)
    kit.inbox.store(incoming(report(1, DeviceState.CONFIRMED, runs="1" * 64)), kit.now)
    kit.status("cam", running="0" * 64, boot=2)
    assert "1" * 64 == kit.registry.device("cam").running
    kit.status("cam", running="0" * 64, boot=3)
    assert "0" * 64 == kit.registry.device("cam").running


@pytest.mark.parametrize(("boot", "online"), [(4, True), (5, False), (6, False)])
def test_a_will_of_an_earlier_start_is_ignored(kit: Kit, *, boot: int, online: bool) -> None:
    """The broker may deliver the death of the old process after the birth of the new one."""
    kit.enrol("cam")
    kit.status("cam", boot=5)
    kit.status("cam", boot=boot, online=False)
    assert online == kit.registry.device("cam").online


def test_devices_are_told_how_slowly_to_come_back(kit: Kit) -> None:
    """With every acknowledgement, by the size that the fleet has now: hundreds come back within seconds."""
    kit.enrol(*(f"cam-{number}" for number in range(3)), "cam")
    (ack,) = kit.inbox.store(incoming(window("1" * 64, 1)), kit.now)["cam"]
    assert 1.0 == ack.reconnect_window_seconds
    assert [1.0, 8.0, 77.0, 90.0] == [reconnect_window_seconds(devices) for devices in (4, 500, 5000, 15_000)]


def test_a_count_that_is_none_spoils_nothing(kit: Kit) -> None:
    """A device that claims more than any window holds: the feature is left out, the window and the others stay."""
    kit.enrol("cam")
    digest = kit.publish("1")
    good = window(digest, 1)
    absurd = (LARGEST_COUNT + 1, *good.cells["brightness"][1:])
    bad = replace(good, number=2, cells={**good.cells, "brightness": absurd})
    kit.inbox.store(incoming(good, bad), kit.now)
    with kit.database.reading() as session:
        served = session.get(ServedRow, {"device": "cam", "bundle": digest})
        assert served is not None
    layout = Layout.of(reference_profile())
    counts = layout.unpack(served.counts)
    assert [list(good.cells["brightness"]), [2 * n for n in good.cells["confidence"]]] == [
        layout.cells_of(counts, name).tolist() for name in ("brightness", "confidence")
    ]
    assert 2 == served.windows

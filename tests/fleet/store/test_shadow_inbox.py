"""What devices say of shadows goes to the shadows' own tables, once; nothing takes it for serving."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import SQLModel, select

from edgeopt_contract.agreement import AGREEMENT, AGREEMENT_CELLS, CLASS_AGREED, DIFFERENCES, INCOMPARABLE
from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.decoding import Incoming
from edgeopt_fleet.gate import Decision, Policy
from edgeopt_fleet.rollout import Event, Wave
from edgeopt_fleet.store.rollouts import Plan
from edgeopt_fleet.store.tables import ReportRow, ServedRow, ShadowServedRow, WindowRow
from tests.fleet.conftest import Kit, window
from tests.fleet.shadow_world import World, shadow_window


@pytest.fixture
def world(kit: Kit) -> World:
    """Two devices that run a champion."""
    made = World(kit)
    kit.enrol("cam-1", "cam-2")
    made.champion("cam-1", "cam-2")
    return made


def rows_of(world: World, table: type[SQLModel]) -> list[Any]:
    """Return all rows of a table."""
    with world.kit.database.reading() as session:
        return list(session.exec(select(table)).all())


def sums(world: World) -> dict[str, tuple[int, ...]]:
    """Return what each device compared: windows, rows, agreed, incomparable, errors."""
    names = ("windows", "compared", "agreed", "incomparable", "errors")
    return {row.device: tuple(getattr(row, name) for name in names) for row in rows_of(world, ShadowServedRow)}


def test_windows_are_added_up_once_however_often_they_come(world: World) -> None:
    """In one batch, in a later one, out of order: as ordinary windows are; and their numbers are acknowledged."""
    bundle = world.create()
    first, second = (shadow_window(bundle, number, "next", agreed=40, disagreed=9, incomparable=1) for number in (1, 2))
    world.store("cam-1", second, first, first)
    world.store("cam-1", first, second)
    acks = world.kit.inbox.store([Incoming(device="cam-1", record=second)], world.kit.now)
    assert [2] == [ack.upto for ack in acks["cam-1"]]
    assert {"cam-1": (2, 100, 80, 2, 0)} == sums(world)
    (row,) = rows_of(world, ShadowServedRow)
    assert (2 * 50**2, bundle) == (row.squares, row.bundle)


def test_two_devices_and_two_shadows_are_kept_apart(world: World) -> None:
    """A late window of a shadow that is over still finds it by its job."""
    one = world.create("one")
    world.shadows.end("one", world.kit.now)
    two = world.create("two", version="other")
    world.compare("cam-1", one, "one", agreed=10)
    world.compare("cam-1", two, "two", agreed=20)
    world.compare("cam-2", two, "two", agreed=30, errors=3)
    found = {(row.shadow, row.device): (row.agreed, row.errors) for row in rows_of(world, ShadowServedRow)}
    assert {("one", "cam-1"): (10, 0), ("two", "cam-1"): (20, 0), ("two", "cam-2"): (30, 3)} == found


def test_what_nobody_asked_for_counts_nothing(world: World) -> None:
    """Another's shadow, an unknown one, another bundle, a job that is no text: taken, acknowledged, dropped."""
    bundle = world.create(at_once=1)
    (asked,) = world.running()
    (other,) = {"cam-1", "cam-2"} - {asked}
    world.compare(other, bundle)
    world.compare(asked, bundle, "unknown")
    world.compare(asked, "ab" * 32)
    made = world.compare(asked, bundle, job=True)
    assert made.extra == {"shadow": True}
    world.say(other, DeviceState.DONE)
    assert {} == sums(world)
    assert {None} == set(world.states().values())


def test_counts_that_cannot_be_count_nothing(world: World) -> None:
    """Arrays of another size or with numbers that no window has; the rest of the batch is taken."""
    bundle = world.create()
    wrong = shadow_window(bundle, world.kit.next_number("cam-1"), "next", agreed=5)
    for cells in ((1, 2, 3), (2**50, *[0] * (AGREEMENT_CELLS - 1))):
        wrong.cells[AGREEMENT] = cells
        wrong.cells[CLASS_AGREED] = tuple([1] * 5000)
        world.store("cam-1", wrong)
        wrong = shadow_window(bundle, world.kit.next_number("cam-1"), "next", agreed=5)
    assert {"cam-1": (0, 0, 0, 0, 0)} == sums(world)
    world.store("cam-1", wrong)
    assert {"cam-1": (1, 5, 5, 0, 0)} == sums(world)


def test_without_classes_a_row_agrees_that_differs_by_less_than_a_tenth_of_a_deviation(world: World) -> None:
    """Cells of the mean difference: seven below 0.1, then those beyond; what cannot be compared does not agree."""
    bundle = world.create()
    made = shadow_window(bundle, world.kit.next_number("cam-1"), "next", agreed=0)
    cells = [0] * AGREEMENT_CELLS
    cells[INCOMPARABLE] = 1
    for place in range(DIFFERENCES, AGREEMENT_CELLS):
        cells[place] = 10
    made.cells[AGREEMENT] = tuple(cells)
    world.store("cam-1", made)
    assert {"cam-1": (1, 161, 70, 1, 0)} == sums(world)


# --- nobody takes it for serving --------------------------------------------------------------------------------------


def test_the_registry_counts_nothing_of_it(world: World) -> None:
    """Neither windows, rows and errors of the device nor its update, reports, gauges and spools show it."""
    bundle = world.create()
    before = world.kit.registry.device("cam-1")
    world.compare("cam-1", bundle, agreed=30, errors=2)
    world.say("cam-1", DeviceState.FAILED, detail="no room")
    after = world.kit.registry.device("cam-1")
    names = ("windows", "rows", "errors", "job", "state", "detail", "running", "gauges", "report_number")
    assert [getattr(before, name) for name in names] == [getattr(after, name) for name in names]
    (spool,) = world.kit.registry.spools("cam-1")
    assert (2, 0, 0) == (spool.upto, spool.rows, spool.errors)
    assert [] == [*rows_of(world, WindowRow), *rows_of(world, ServedRow), *rows_of(world, ReportRow)]
    assert "failed" == world.states()["cam-1"]


def test_drift_does_not_look_at_it(world: World) -> None:
    """Windows that raise an alert when they were served raise none when a shadow counted them."""
    bundle = world.create()
    world.kit.status("cam-1", running=bundle, boot=3)  # its windows of this bundle are watched from now on
    world.kit.alerts.look(world.kit.now)

    def look(*, shadow: bool) -> int:
        for _ in range(5):
            number = world.kit.next_number("cam-1")
            bright = window(bundle, number, brightness=0.8)
            made = shadow_window(bundle, number, "next", agreed=60)
            world.store("cam-1", replace(made, cells=made.cells | bright.cells) if shadow else bright)
        world.kit.now += 1
        world.kit.alerts.look(world.kit.now)
        return len(world.kit.alerts.list(state="open"))

    assert [0, 0, 0] == [look(shadow=True) for _ in range(3)]
    assert 1 == [look(shadow=False) for _ in range(3)][-1]


def test_the_gate_and_the_rollout_do_not_count_it(world: World) -> None:
    """A rollout of the very bundle waits for rows that were served, and for the report of its own job."""
    bundle = world.create()
    world.shadows.end("next", world.kit.now)
    policy = Policy(minimum_rows=50, bake_seconds=0.0)
    world.kit.rollouts.create(
        Plan(name="v2", bundle=bundle, cohort="all", waves=(Wave.parse("100%"),), policy=policy), world.kit.now
    )
    world.kit.rollouts.apply("v2", Event.STARTED, world.kit.now)
    job = world.kit.outbox.desired()["cam-1"]
    assert job is not None
    world.say("cam-1", DeviceState.CONFIRMED, job.job, bundle=bundle)
    world.kit.rollouts.advance("v2", world.kit.now)
    assert {None} == {member.state for member in world.kit.rollouts.report("v2").members.values()}
    for device in ("cam-1", "cam-2"):
        world.kit.report(device, DeviceState.CONFIRMED, bundle)
        world.compare(device, bundle, agreed=500)
    world.kit.now += 60
    world.kit.rollouts.advance("v2", world.kit.now)
    (verdict, *_) = reversed(world.kit.rollouts.report("v2").verdicts)
    assert Decision.HOLD == verdict.verdict
    for device in ("cam-1", "cam-2"):
        world.kit.serve(device, bundle, rows=60)
    world.kit.now += 60
    world.kit.rollouts.advance("v2", world.kit.now)
    assert "succeeded" == world.kit.rollouts.report("v2").rollout.state


def test_the_newest_report_counts_in_whatever_order_they_come(world: World) -> None:
    """As for updates: the spool's number decides."""
    world.create()
    early, late = (world.say("cam-2", state) for state in (DeviceState.DOWNLOADING, DeviceState.SHADOWING))
    assert "shadowing" == world.states()["cam-2"]
    world.store("cam-1", replace(late, number=7), replace(early, number=3))
    world.store("cam-1", replace(early, number=5))
    assert {"cam-1": "shadowing", "cam-2": "shadowing"} == world.states()

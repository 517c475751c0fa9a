"""What is kept of shadows, and for how long."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest
from sqlmodel import select

from edgeopt_fleet.retention import DAY, Keep
from edgeopt_fleet.store.database import Address, Database
from edgeopt_fleet.store.dump import all_tables, dump_table, load_table
from edgeopt_fleet.store.retention import Retention
from edgeopt_fleet.store.shadow_looks import ShadowLooks
from edgeopt_fleet.store.shadow_outbox import ShadowOutbox
from edgeopt_fleet.store.tables import BundleRow, ShadowLookRow, ShadowRow, ShadowServedRow
from tests.fleet.conftest import Kit
from tests.fleet.shadow_world import World

KEEP = Keep(verdict_days=50, bundle_days=1)


@pytest.fixture
def world(kit: Kit) -> World:
    """One device that runs a champion."""
    made = World(kit)
    kit.enrol("cam-1")
    made.champion("cam-1")
    return made


def tidy(world: World, days: float) -> dict[str, int]:
    """Do what is due so long after the present; return how many rows of what."""
    done: dict[str, int] = {}
    retention = Retention(world.kit.database, world.kit.directory / "blocks", KEEP)
    for step in retention.steps(world.kit.now + days * DAY):
        done[step.what] = done.get(step.what, 0) + step.rows
    return done


def test_what_was_compared_goes_long_after_the_end(world: World) -> None:
    """Sums and looks of a shadow that ended; the shadow stays, and one that runs keeps everything."""
    for name in ("ended", "runs"):
        bundle = world.create(name, version=name, until=int(world.kit.now) + 80 * DAY)
        world.compare("cam-1", bundle, name, agreed=60)
        world.advance(name)
        if name == "ended":
            world.shadows.end("ended", world.kit.now)
    assert "shadows" not in tidy(world, 49)
    assert 2 == tidy(world, 51)["shadows"]
    with world.kit.database.reading() as session:
        assert ["runs"] == list(session.exec(select(ShadowServedRow.shadow)))
        assert ["runs"] == list(session.exec(select(ShadowLookRow.shadow)))
        assert {"ended", "runs"} == set(session.exec(select(ShadowRow.name)))


def test_a_back_up_holds_everything_of_a_shadow(world: World, new_address: Callable[[], Address]) -> None:
    """Every row of the four tables, on either kind of database; published from there it is the same order."""
    bundle = world.create()
    world.compare("cam-1", bundle, agreed=60, classes=((30, 30, 0), (0, 0, 0)))
    world.advance()
    other = Database.open(new_address())
    with world.kit.database.reading() as old, other.transaction() as new:
        for table in all_tables():
            file = io.BytesIO()
            dumped = dump_table(old, table, file)
            file.seek(0)
            assert dumped == load_table(new, table, file)
            assert dumped or not table.name.startswith("shadow")
    assert world.outbox.orders() == ShadowOutbox(other).orders() != {}
    assert [True] == [look.same for look in ShadowLooks(other).explain("next", 9)]
    other.close()


def test_a_challenger_keeps_its_blocks_while_it_may_be_asked_for(world: World) -> None:
    """A draft and a running shadow need the bundle as much as a rollout does."""
    bundle = world.create(start=False, until=int(world.kit.now) + 80 * DAY)
    for path in (world.kit.directory / "blocks").iterdir():
        os.utime(path, (0, 0))
    assert "bundles" not in tidy(world, 10)
    world.shadows.start("next", world.kit.now)
    world.shadows.end("next", world.kit.now)
    assert 1 == tidy(world, 10)["bundles"]
    with world.kit.database.reading() as session:
        assert [False] == list(session.exec(select(BundleRow.complete).where(BundleRow.digest == bundle)))

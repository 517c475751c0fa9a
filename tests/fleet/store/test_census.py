from __future__ import annotations

import pytest
from sqlmodel import update

from edgeopt_fleet.leases import Role
from edgeopt_fleet.store.census import certificates, count, expiries
from edgeopt_fleet.store.leases import Leases
from edgeopt_fleet.store.tables import CertificateRow, DeviceRow, RolloutRow
from tests.fleet.conftest import Kit
from tests.fleet.shadow_world import World
from tests.identity import DeviceKey, issue

DAY = 86400.0


def test_a_new_fleet_has_nothing(kit: Kit) -> None:
    """Nobody, nothing that runs, nothing that waits, no role that is held."""
    found = count(kit.database)
    assert ({}, {}, {}, {}, 0, 0.0) == (
        found.devices, found.rollouts, found.alerts, found.verdicts, found.unpublished, found.slowest_wave_seconds
    )  # fmt: skip
    assert ({}, 0, {}) == (found.shadows, found.shadow_devices, found.agreements)
    assert [None] * len(Role) == [found.holder(role) for role in Role]


def test_devices_are_counted_by_their_state(kit: Kit) -> None:
    """A revoked one is neither online nor offline; what waits to be published is counted."""
    kit.enrol("a", "b", "c", "d")
    with kit.database.transaction() as session:
        session.execute(update(DeviceRow).where(DeviceRow.id == "b").values(online=False, desired_pending=True))
        session.execute(update(DeviceRow).where(DeviceRow.id == "c").values(revoked_at=5))
    found = count(kit.database)
    assert {"online": 2, "offline": 1, "revoked": 1} == found.devices
    assert 1 == found.unpublished


def test_a_role_is_held_while_its_lease_lasts(kit: Kit) -> None:
    """By the database's clock; one that was handed back is vacant at once, and how often it changed hands stays."""
    leases = Leases(kit.database, owner="one", seconds=60.0)
    lease = leases.acquire(Role.DRIFT)
    assert lease is not None
    holder = count(kit.database).holder(Role.DRIFT)
    assert holder is not None
    assert ("one", 1) == (holder.owner, holder.epoch)
    leases.release([lease])
    assert count(kit.database).holder(Role.DRIFT) is None
    Leases(kit.database, owner="two", seconds=-1.0).acquire(Role.DRIFT)
    found = count(kit.database)
    assert found.holder(Role.DRIFT) is None, "it has run out"
    assert 2 == found.leases[Role.DRIFT].epoch


def test_shadows_are_counted_and_a_running_one_says_how_it_agrees(kit: Kit) -> None:
    """Of its newest look; before one, and after its end, there is nothing to say."""
    world = World(kit)
    kit.enrol("a", "b", "c")
    world.champion("a", "b", "c")
    world.create("idle", start=False)
    bundle = world.create("next")
    found = count(kit.database)
    assert ({"draft": 1, "running": 1}, 3, {}) == (found.shadows, found.shadow_devices, found.agreements)
    for agreed in (60, 80):
        world.compare("a", bundle, agreed=agreed, disagreed=100 - agreed)
        world.advance()
    found = count(kit.database)
    assert ["next"] == list(found.agreements)
    mean, lower = found.agreements["next"]
    assert pytest.approx(0.7) == mean
    assert 0 <= lower < mean
    world.shadows.end("next", kit.now)
    found = count(kit.database)
    assert ({"draft": 1, "ended": 1}, 0, {}) == (found.shadows, found.shadow_devices, found.agreements)


@pytest.mark.parametrize(("state", "expected"), [("running", True), ("rolling_back", True), ("paused", False)])
def test_the_slowest_wave_is_that_of_a_rollout_that_moves(kit: Kit, state: str, expected: bool) -> None:  # noqa: FBT001 - a column of the table
    """One that somebody has paused waits for that somebody, and has an alert of its own."""
    kit.enrol("a", "b")
    digest = kit.publish("1")
    for name in ("old", "young"):
        create(kit, name, digest)
    now = count(kit.database).now
    with kit.database.transaction() as session:
        session.execute(update(RolloutRow).values(state="running", wave_started_at=now - 60))
        session.execute(
            update(RolloutRow).where(RolloutRow.name == "old").values(state=state, wave_started_at=now - 7200)
        )
    age = count(kit.database).slowest_wave_seconds
    assert expected == (age >= 7200)
    assert age >= 60


def create(kit: Kit, name: str, bundle: str) -> None:
    """Add a rollout as a row alone: no test here moves it."""
    from tests.fleet.store.test_retention import add_rollout

    add_rollout(kit, name, settled=False, bundle=bundle)


def test_certificates_change_with_every_enrolment_and_revocation(kit: Kit) -> None:
    """A broker's node that compares them hears of each; of nothing else."""
    seen = [certificates(kit.database)]
    kit.enrol("a")
    seen.append(certificates(kit.database))
    kit.enrol("b")
    seen.append(certificates(kit.database))
    kit.identities.revoke("a", 2000)
    seen.append(certificates(kit.database))
    assert len(set(seen)) == len(seen)
    kit.status("b", boot=2)
    assert seen[-1] == certificates(kit.database)


def test_only_devices_that_are_late_to_renew_are_counted(kit: Kit) -> None:
    """The newest certificate counts, of devices that are not revoked; renewal is due at two thirds, and late at 5/6."""
    kit.enrol("fresh", "late", "renewed", "gone")
    now = int(count(kit.database).now)

    def set_validity(device: str, begin: float, end: float) -> None:
        with kit.database.transaction() as session:
            dates = {"valid_from": int(now + begin * DAY), "valid_until": int(now + end * DAY)}
            session.execute(update(CertificateRow).where(CertificateRow.device == device).values(**dates))

    set_validity("fresh", -60, 30)  # it renews now
    for device in ("late", "renewed", "gone"):
        set_validity(device, -80, 10)
    newer = issue(kit.authority, "renewed", DeviceKey(), now=float(now))
    with kit.database.transaction() as session:
        session.add(
            CertificateRow(
                serial=newer.serial, device="renewed", public_key=newer.public_key, public_key_sha256="1" * 64,
                pem=newer.pem, valid_from=now, valid_until=now + 90 * 86400, bearer_sha256="0" * 64,
                token_sha256=None, replaces=None,
            )
        )  # fmt: skip
        session.execute(update(DeviceRow).where(DeviceRow.id == "gone").values(revoked_at=now))
    assert 1 == expiries(kit.database).certificates
    set_validity("late", -91, -1)
    assert 1 == expiries(kit.database).certificates, "what has expired is late, too"


def test_when_metadata_expire_is_what_the_repository_says(kit: Kit) -> None:
    """Of each role the newest version."""
    kit.publish("1")
    kit.publish("2")
    assert {view.role: view.expires for view in kit.metadata.roles()} == expiries(kit.database).metadata

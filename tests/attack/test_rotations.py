"""Key rotation reaches devices that slept through several of them, and takes the old keys' power away."""

from __future__ import annotations

import pytest

from edgeopt_agent.trust.question import Outcome
from edgeopt_contract.tuf import MAX_ROOTS
from tests.attack.conftest import EVIL, NEW, Attack, Victim
from tests.metadata import DAY, MetadataFleet

pytestmark = pytest.mark.attack


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_device_that_slept_through_rotations_of(fleet: MetadataFleet, victim: Victim, role: str) -> None:
    """Three rotations of one role at once: root by root, each signed by the keys before it."""
    for _ in range(3):
        fleet.rotate(role)
        fleet.now += 20 * DAY
        fleet.publish()
    victim.wait(61 * DAY)
    assert Outcome.TRUSTED == victim.ask(NEW, fleet.message()).outcome


def test_rotations_of_all_roles_in_turn(fleet: MetadataFleet, victim: Victim) -> None:
    """Twelve roots on, and then one more after the device has caught up."""
    for _ in range(3):
        for role in ("root", "targets", "snapshot", "timestamp"):
            fleet.rotate(role)
    assert Outcome.TRUSTED == victim.ask(NEW, fleet.message()).outcome
    fleet.rotate("root")
    message = fleet.message(roots=tuple(f for f in _texts(fleet)[-2:]))  # what it has verified need not come again
    assert Outcome.TRUSTED == victim.ask(NEW, message).outcome


def test_one_root_missing_in_the_chain(attack: Attack) -> None:
    """A gap cannot be jumped: the device stays at the last root that it could verify."""
    for _ in range(3):
        attack.fleet.rotate("timestamp")
    roots = _texts(attack.fleet)
    attack.refused(attack.fleet.message(roots=(*roots[:2], *roots[3:])), "not signed by enough")


def test_partial_rotation_keeps_the_threshold(attack: Attack) -> None:
    """One of three keys is replaced; the replaced one and a valid one are not two of three."""
    old = attack.fleet.rotate("targets", keep=2)
    forged = attack.fleet.copy()
    forged.keys["targets"] = [old[2], forged.keys["targets"][0]]
    forged.add(EVIL)
    attack.refused(forged.message(), "signed by 1/2 keys", bundle=EVIL, by="thief", rotate=True)


def test_rotation_to_one_key_is_the_offline_keys_choice(fleet: MetadataFleet, victim: Victim) -> None:
    """A threshold may change with a root that enough old keys signed."""
    root = fleet.draft_root()
    root.signed.roles["targets"].threshold = 1
    fleet.roots.append(fleet.sign(root, fleet.keys["root"]))
    fleet.keys["targets"] = fleet.keys["targets"][:1]
    fleet.add(EVIL)
    assert Outcome.TRUSTED == victim.ask(EVIL, fleet.message()).outcome


def test_longest_sleep() -> None:
    """A message holds this many roots; that is how many rotations a device may sleep through."""
    assert 64 == MAX_ROOTS


def _texts(fleet: MetadataFleet) -> list[str]:
    from tests.metadata import text

    return [text(root) for root in fleet.roots]

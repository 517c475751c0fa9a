"""The fleet server as the attacker: it holds the keys of snapshot and timestamp, and the broker too.

It can withhold, delay and choose among what the offline keys have signed; it cannot make a device install anything
else, nor anything older than what the running bundle permits. What it breaks is mended by a new root with other online
keys.
"""

from __future__ import annotations

import pytest

from edgeopt_agent.trust.question import Outcome
from edgeopt_contract.tuf import SIGNED_AT
from tests.attack.conftest import EVIL, NEW, OLD, Attack, Victim
from tests.metadata import DAY, MetadataFleet, date, text

pytestmark = pytest.mark.attack
BY = "fleet server"


def test_arbitrary_software_with_online_keys(attack: Attack) -> None:
    """Targets signed by the online keys it holds, pinned by its own snapshot."""
    forged = attack.fleet.copy()
    forged.keys["targets"] = [*forged.keys["snapshot"], *forged.keys["timestamp"]]
    forged.add(EVIL)
    attack.refused(forged.message(), "not signed by enough", bundle=EVIL, by=BY, rotate=True)


def test_new_root_with_online_keys(attack: Attack) -> None:
    """A root of its own needs the offline root keys."""
    forged = attack.fleet.copy()
    forged.rotate("targets", signers=[*forged.keys["snapshot"], *forged.keys["timestamp"]])
    forged.add(EVIL)
    attack.refused(forged.message(), "root was signed by 0/2 keys", bundle=EVIL, by=BY)


def test_rollback_of_targets(attack: Attack) -> None:
    """A fresh snapshot over older targets: the device knows that there were newer ones."""
    earlier = attack.fleet.copy()
    attack.fleet.add("cc" * 32)
    assert Outcome.TRUSTED == attack.victim.ask("cc" * 32, attack.fleet.message()).outcome
    forged = attack.fleet.copy()
    forged.targets = earlier.targets
    forged.publish()
    attack.refused(forged.message(), "older", by=BY, rotate=True)


def test_disappearing_targets(attack: Attack) -> None:
    """A snapshot that does not mention the targets any more."""
    forged = attack.fleet.copy()
    forged.snapshot.signed.version += 1
    forged.snapshot.signed.meta = {"other.json": forged.pin(forged.targets)}
    forged.sign_snapshot()
    forged.tick()
    assert Outcome.TRUSTED == attack.victim.ask(NEW, attack.fleet.message()).outcome
    attack.refused(forged.message(), "missing info for 'targets.json'", by=BY, rotate=True)


def test_freeze_ends_with_the_targets(attack: Attack) -> None:
    """It can sign timestamps for ever, but the targets' own expiry is beyond it."""
    frozen = attack.fleet.copy()
    for _ in range(3):
        attack.victim.wait(150 * DAY)
        frozen.now += 150 * DAY
        frozen.publish()
    attack.fleet.now = frozen.now
    root = attack.fleet.draft_root()
    root.signed.expires = date(attack.fleet.now + 365 * DAY)
    attack.fleet.roots.append(attack.fleet.sign(root, attack.fleet.keys["root"]))
    attack.fleet.targets.signed.expires = date(attack.fleet.now + 365 * DAY)
    attack.fleet.targets.signed.version += 1
    attack.fleet.sign(attack.fleet.targets, attack.fleet.keys["targets"])
    frozen.roots = attack.fleet.roots  # the newest root does not help it
    attack.fleet.snapshot.signed.version = attack.fleet.timestamp.signed.version = 50
    attack.fleet.publish()
    attack.refused(frozen.message(), "targets is expired", by=BY)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_fast_forward_and_recovery(attack: Attack, role: str) -> None:
    """Versions pushed to the end of the numbers block the device only until the online keys are replaced."""
    forged = attack.fleet.copy()
    if role == "targets":
        forged.snapshot.signed.meta["targets.json"].version = 2**31 - 1
        forged.snapshot.signed.version += 1
        forged.sign_snapshot()
        forged.tick()
    elif role == "snapshot":
        forged.snapshot.signed.version = 2**31 - 1
        forged.sign_snapshot()
        forged.tick()
    else:
        forged.timestamp.signed.version = 2**31 - 1
        forged.sign(forged.timestamp, forged.keys["timestamp"])
    attack.victim.ask(NEW, forged.message())
    attack.fleet.publish()
    attack.fleet.publish()
    attack.refused(attack.fleet.message(), "older", by=BY, rotate=True)


def test_poisoned_time_and_recovery(attack: Attack) -> None:
    """A stated time far ahead makes honest metadata look expired, until the timestamp's key is replaced."""
    forged = attack.fleet.copy()
    forged.timestamp.signed.version += 1
    forged.timestamp.signed.unrecognized_fields[SIGNED_AT] = int(forged.now + 80 * 365 * DAY)
    forged.timestamp.signed.expires = date(forged.now + 81 * 365 * DAY)
    forged.sign(forged.timestamp, forged.keys["timestamp"])
    attack.victim.ask(OLD, forged.message())
    attack.fleet.publish()
    attack.fleet.publish()
    attack.refused(attack.fleet.message(), "expired", by=BY, rotate=True)


def test_time_poisoned_by_a_little_is_forgotten_with_the_key(attack: Attack) -> None:
    """Also a statement that does not expire anything at once ends with the key that made it."""
    forged = attack.fleet.copy()
    forged.timestamp.signed.version += 1
    forged.timestamp.signed.unrecognized_fields[SIGNED_AT] = int(forged.now + 6 * DAY)
    forged.sign(forged.timestamp, forged.keys["timestamp"])
    assert Outcome.TRUSTED == attack.victim.ask(NEW, forged.message()).outcome
    attack.fleet.publish()
    attack.fleet.publish()
    attack.fleet.rotate("timestamp")
    assert Outcome.TRUSTED == attack.victim.ask(NEW, attack.fleet.message()).outcome
    attack.fleet.now += 3 * DAY
    attack.victim.wait(3 * DAY)
    attack.fleet.tick()
    attack.fleet.timestamp.signed.expires = date(attack.fleet.now + DAY)  # six days ahead would be too late
    attack.fleet.sign(attack.fleet.timestamp, attack.fleet.keys["timestamp"])
    assert Outcome.TRUSTED == attack.victim.ask(NEW, attack.fleet.message()).outcome
    attack.held("the statement of a replaced key is forgotten", BY)


def test_downgrade_by_recall(attack: Attack) -> None:
    """A recall to a bundle that the running one does not permit: the recall is the server's, the permission is not."""
    third = "cc" * 32
    attack.fleet.add(third, rollback=[NEW])
    attack.victim.running = third
    assert Outcome.TRUSTED == attack.victim.ask(NEW, attack.fleet.message()).outcome
    attack.refused(attack.fleet.message(), "downgrade", bundle=OLD, outcome=Outcome.REFUSED, by=BY)


def test_two_histories(attack: Attack) -> None:
    """Two files of the same version: the one that was pinned first is the only one that fits."""
    other = attack.fleet.copy()
    attack.fleet.add("cc" * 32)
    other.keys["targets"] = [*other.keys["snapshot"], *other.keys["timestamp"]]
    other.add(EVIL)
    assert Outcome.TRUSTED == attack.victim.ask("cc" * 32, attack.fleet.message()).outcome
    attack.refused(attack.fleet.message(targets=text(other.targets)), "", bundle=EVIL, by=BY, recovers=False)


def test_enrolment_root_cannot_be_replaced(attack: Attack, victim: Victim) -> None:
    """Another root under the same device starts a trust of its own and forgets nothing of the old one's bundles."""
    other = MetadataFleet()
    other.add(EVIL)
    attack.refused(other.message(), "not signed by enough", bundle=EVIL, by=BY)

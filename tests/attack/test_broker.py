"""The broker as the attacker: it holds no key, but decides which bytes a device gets, and when."""

from __future__ import annotations

import copy
import json

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import TargetFile

from edgeopt_agent.trust.question import Outcome
from edgeopt_contract.errors import SignatureError
from edgeopt_contract.tuf import MAX_ROOT_BYTES, BundleTarget, TufMetadata, target_path
from tests.attack.conftest import EVIL, NEW, OLD, Attack, Victim
from tests.metadata import DAY, MetadataFleet, date, text

pytestmark = pytest.mark.attack


def stranger() -> list[CryptoSigner]:
    """Keys that the fleet does not know."""
    return [CryptoSigner.generate_ed25519() for _ in range(3)]


# --- arbitrary software, wrong keys -----------------------------------------------------------------------------------


def test_arbitrary_software_a_fleet_of_its_own(attack: Attack) -> None:
    """Everything signed, but by another fleet: the chain to the root of the enrolment is missing."""
    other = MetadataFleet()
    other.add(EVIL)
    attack.refused(other.message(), "not signed by enough", bundle=EVIL)


def test_arbitrary_software_not_signed_at_all(attack: Attack) -> None:
    """Honest metadata, and a desired state that names a bundle that nobody signed."""
    attack.refused(attack.fleet.message(), "is not among the signed targets", bundle=EVIL)


def test_targets_signed_by_strangers(attack: Attack) -> None:
    """A bundle added to the targets and signed by keys that no root names."""
    forged = attack.fleet.copy()
    forged.keys["targets"] = stranger()
    forged.add(EVIL)
    attack.refused(attack.fleet.message(targets=text(forged.targets)), "longer than this device takes", bundle=EVIL)


def test_unsigned_metadata(attack: Attack) -> None:
    """All signatures taken off the timestamp."""
    bare = copy.deepcopy(attack.fleet.timestamp)
    bare.signatures.clear()
    attack.refused(attack.fleet.message(timestamp=text(bare)), "not signed by enough")


def test_tampered_target_length_and_hash(attack: Attack) -> None:
    """One digit changed inside the signed targets."""
    for old, new in ((f'"{NEW}"', f'"{EVIL}"'), ('"length":1000', '"length":9999')):
        changed = text(attack.fleet.targets).replace(old, new)
        assert changed != text(attack.fleet.targets)
        answer = attack.victim.ask(NEW, attack.fleet.message(targets=changed))
        assert Outcome.WAITING == answer.outcome
    attack.refused(attack.fleet.message(targets=changed), "not what the metadata above")


def test_signature_moved_to_another_role(attack: Attack) -> None:
    """The snapshot offered as timestamp: right keys perhaps, wrong role."""
    attack.refused(attack.fleet.message(timestamp=text(attack.fleet.snapshot)), "not valid")


def test_key_of_another_role_signs_targets(attack: Attack) -> None:
    """Snapshot and timestamp keys have no say about bundles; here with everything above re-signed."""
    forged = attack.fleet.copy()
    forged.keys["targets"] = [*forged.keys["timestamp"], *forged.keys["snapshot"]]
    forged.add(EVIL)
    attack.refused(forged.message(), "not signed by enough", bundle=EVIL, by="fleet server", rotate=True)


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_key_compromise_below_the_threshold_of_targets(attack: Attack) -> None:
    """One of three targets keys stolen, and the online keys too: two would be needed."""
    forged = attack.fleet.copy()
    forged.keys["targets"] = forged.keys["targets"][:1]
    forged.add(EVIL)
    attack.refused(forged.message(), "signed by 1/2 keys", bundle=EVIL, by="thief", rotate=True)


def test_key_compromise_below_the_threshold_of_root(attack: Attack) -> None:
    """One of three root keys stolen: no new root comes of it."""
    forged = attack.fleet.copy()
    forged.rotate("targets", signers=forged.keys["root"][:1])
    forged.add(EVIL)
    attack.refused(forged.message(), "signed by 1/2 keys", bundle=EVIL, by="thief")


def test_duplicate_signatures_towards_the_threshold(attack: Attack) -> None:
    """The same signature listed twice is no second key: TUF refuses the file as a whole."""
    forged = attack.fleet.copy()
    forged.keys["targets"] = forged.keys["targets"][:1]
    forged.add(EVIL)
    plain = json.loads(text(forged.targets))
    plain["signatures"] *= 2
    doubled = json.dumps(plain, separators=(",", ":"), sort_keys=True)
    forged.targets = type(forged.targets).from_bytes(text(forged.targets).encode())
    forged.snapshot.signed.meta["targets.json"].length = len(doubled)
    forged.snapshot.signed.meta["targets.json"].hashes = None
    forged.sign_snapshot()
    forged.tick()
    attack.refused(forged.message(targets=doubled), "not valid", bundle=EVIL, by="thief", rotate=True)


def test_one_key_under_two_names_towards_the_threshold(attack: Attack) -> None:
    """A stolen key under a second key id does not count twice, for only the root says which ids there are."""
    forged = attack.fleet.copy()
    stolen = forged.keys["targets"][0]
    alias = SSlibKey.from_dict("f" * 64, stolen.public_key.to_dict())
    forged.keys["targets"] = [stolen, CryptoSigner(stolen._private_key, alias)]
    forged.add(EVIL)
    attack.refused(forged.message(), "signed by 1/2 keys", bundle=EVIL, by="thief", rotate=True)


def test_new_root_signed_by_its_own_keys_only(attack: Attack) -> None:
    """A root with the attacker's keys must carry the signatures of the root before it."""
    forged = attack.fleet.copy()
    root = forged.draft_root()
    forged.keys["root"] = stranger()
    root.signed.roles["root"].keyids.clear()
    for key in forged.keys["root"]:
        root.signed.add_key(key.public_key, "root")
    forged.roots.append(forged.sign(root, forged.keys["root"]))
    attack.refused(forged.message(), "not signed by enough", bundle=EVIL)


def test_new_root_not_signed_by_itself(attack: Attack) -> None:
    """The old keys alone cannot name new ones that do not hold their private halves."""
    forged = attack.fleet.copy()
    old = forged.keys["root"]
    forged.rotate("root", signers=old)
    attack.refused(forged.message(), "not signed by enough", by="thief")


def test_revoked_key_signs_targets(attack: Attack) -> None:
    """After a rotation the old targets keys are worth nothing, even all three of them."""
    fleet = attack.fleet
    old = fleet.rotate("targets")
    forged = fleet.copy()
    forged.keys["targets"] = old
    forged.add(EVIL)
    attack.refused(forged.message(), "not signed by enough", bundle=EVIL, by="thief", rotate=True)


# --- rollback, freeze, mix and match ----------------------------------------------------------------------------------


def test_rollback_of_the_timestamp(attack: Attack) -> None:
    """A recording of the whole message, played again after newer metadata were seen."""
    recording = attack.fleet.message()
    attack.fleet.add("cc" * 32)
    assert Outcome.TRUSTED == attack.victim.ask("cc" * 32, attack.fleet.message()).outcome
    attack.refused(recording, "older")


def test_rollback_of_the_root(attack: Attack) -> None:
    """Old roots come again after a rotation: the newest that was verified stays, and replaced keys stay revoked."""
    recording = attack.fleet.copy()
    attack.fleet.rotate("timestamp")
    assert Outcome.TRUSTED == attack.victim.ask(NEW, attack.fleet.message()).outcome
    recording.tick()
    attack.refused(recording.message(), "not signed by enough", by="thief")


def test_root_that_skips_a_version(attack: Attack) -> None:
    """Version 3 offered as the successor of 1, signed by enough keys."""
    forged = attack.fleet.copy()
    root = forged.draft_root()
    root.signed.version = 3
    forged.sign(root, forged.keys["root"])
    message = forged.message(roots=(text(root).replace('"version":3', '"version":2'),))
    attack.refused(message, "not signed by enough")


def test_indefinite_freeze(attack: Attack) -> None:
    """The same good metadata for ever: refused as expired after the timestamp's week, with the time that it is."""
    recording = attack.fleet.message()
    assert Outcome.TRUSTED == attack.victim.ask(NEW, recording).outcome
    attack.victim.wait(8 * DAY)
    attack.fleet.now += 8 * DAY
    attack.fleet.tick()
    answer = attack.refused(recording, "expired")
    assert "it is " in answer.reason
    assert "is its clock right" in answer.reason


def test_drop_request_and_slow_retrieval(attack: Attack) -> None:
    """Nothing comes at all: what was verified before still decides, until it expires; nothing new is trusted."""
    assert Outcome.TRUSTED == attack.victim.ask(OLD, b"").outcome
    attack.refused(b"", "is not among the signed targets")
    attack.victim.wait(8 * DAY)
    attack.fleet.now += 8 * DAY
    attack.fleet.publish()
    attack.refused(b"", "expired", bundle=OLD)


def test_mix_and_match_old_targets_under_new_snapshot(attack: Attack) -> None:
    """Files of different times, each good by itself, do not go together."""
    earlier = text(attack.fleet.targets)
    attack.fleet.add("cc" * 32)
    attack.refused(attack.fleet.message(targets=earlier), "not what the metadata above", bundle="cc" * 32)


def test_mix_and_match_old_snapshot_under_new_timestamp(attack: Attack) -> None:
    """An earlier snapshot under the newest timestamp."""
    earlier = text(attack.fleet.snapshot)
    attack.fleet.add("cc" * 32)
    attack.refused(attack.fleet.message(snapshot=earlier), "not what the metadata above", bundle="cc" * 32)


# --- endless data, damage, nonsense -----------------------------------------------------------------------------------


def test_endless_data_message(attack: Attack) -> None:
    """A message beyond the limit is refused before it is parsed."""
    attack.refused(attack.fleet.message() + b" " * TufMetadata.MAX_BYTES, "at most")


def test_endless_data_root(attack: Attack) -> None:
    """A root beyond its own limit, inside a message that is small enough."""
    plain = json.loads(attack.fleet.message())
    plain["roots"].append("{" + " " * MAX_ROOT_BYTES + "}")
    attack.refused(json.dumps(plain).encode(), "roots of at most")


def test_endless_data_timestamp(attack: Attack) -> None:
    """A timestamp that is padded beyond what a device takes."""
    padded = text(attack.fleet.timestamp) + " " * 20_000
    attack.refused(attack.fleet.message(timestamp=padded), "longer than this device takes")


def test_endless_data_targets(attack: Attack) -> None:
    """Targets that are longer than the snapshot states."""
    attack.refused(attack.fleet.message(targets=text(attack.fleet.targets) + " "), "longer than this device takes")


def test_deep_nesting(attack: Attack) -> None:
    """Brackets that would exhaust a parser's stack."""
    attack.refused(attack.fleet.message(timestamp="[" * 10_000), "not valid")


@pytest.mark.parametrize("field", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("nonsense", ["", "{}", "null", "not json", '{"signed": {}, "signatures": []}'])
def test_nonsense_instead_of(attack: Attack, field: str, nonsense: str) -> None:
    """Whatever stands where a file should be."""
    attack.refused(attack.fleet.message(**{field: nonsense}), "refused")


@pytest.mark.parametrize("payload", [b"\x00", b"{}", b"[]", b"\xff\xfe", b'{"schema": 2}'])
def test_message_that_is_none(attack: Attack, payload: bytes) -> None:
    """A retained message that is not one."""
    attack.refused(payload, "TufMetadata")


def test_metadata_of_a_later_major_specification(attack: Attack) -> None:
    """What this client cannot understand it does not trust."""
    attack.fleet.timestamp.signed.spec_version = "2.0.0"
    attack.fleet.sign(attack.fleet.timestamp, attack.fleet.keys["timestamp"])
    message = attack.fleet.message()
    attack.fleet.timestamp.signed.spec_version = "1.0.31"
    attack.fleet.tick()
    attack.refused(message, "not valid")


# --- extraneous targets and delegations -------------------------------------------------------------------------------


def test_extraneous_targets_touch_nothing(attack: Attack, victim: Victim) -> None:
    """Targets with hostile names are never looked up, and no file is made of them."""
    fleet = attack.fleet
    for path in ("../../etc/passwd", "%2e%2e/x", "/absolute", "a b?c#d", "bundles/" + "A" * 64 + "/manifest.json"):
        fleet.targets.signed.targets[path] = TargetFile(4, {"sha256": EVIL}, path)
    fleet.targets.signed.version += 1
    fleet.sign(fleet.targets, fleet.keys["targets"])
    fleet.publish()
    assert Outcome.TRUSTED == victim.ask(NEW, fleet.message()).outcome
    attack.refused(fleet.message(), "is not among the signed targets", bundle=EVIL, by="signer")
    assert {"state.json", "lock"} == {path.name for path in victim.directory.iterdir()}


def test_target_under_a_name_of_another_bundle(attack: Attack) -> None:
    """A path that names one digest and signs another is refused, also when enough keys signed it."""
    fleet = attack.fleet
    custom = {"custom": {"name": "x", "version": "1", "counter": 9, "rollback": []}}
    fleet.targets.signed.targets[target_path(EVIL)] = TargetFile(10, {"sha256": OLD}, target_path(EVIL), custom)
    fleet.targets.signed.version += 1
    fleet.sign(fleet.targets, fleet.keys["targets"])
    fleet.publish()
    attack.refused(fleet.message(), "differ", bundle=EVIL, outcome=Outcome.REFUSED, by="signer")


@pytest.mark.parametrize(
    "custom", [None, {}, {"counter": 0, "name": "x", "version": "1", "rollback": []}, {"counter": "9"}, [1]]
)
def test_target_without_what_this_device_needs(attack: Attack, custom: object) -> None:
    """A signed target without counter or permissions is not guessed at."""
    fleet = attack.fleet
    target = TargetFile(10, {"sha256": EVIL}, target_path(EVIL), {} if custom is None else {"custom": custom})
    fleet.targets.signed.targets[target.path] = target
    fleet.targets.signed.version += 1
    fleet.sign(fleet.targets, fleet.keys["targets"])
    fleet.publish()
    attack.refused(fleet.message(), "cannot be used", bundle=EVIL, outcome=Outcome.REFUSED, by="signer")


def test_delegations_are_not_followed(attack: Attack) -> None:
    """A role that targets delegate to has no say, even if it signs the bundle."""
    from tuf.api.metadata import DelegatedRole, Delegations

    fleet, key = attack.fleet, stranger()[0]
    role = DelegatedRole("helper", [key.public_key.keyid], 1, terminating=False, paths=["bundles/*/manifest.json"])
    fleet.targets.signed.delegations = Delegations({key.public_key.keyid: key.public_key}, {"helper": role})
    fleet.targets.signed.version += 1
    fleet.sign(fleet.targets, fleet.keys["targets"])
    fleet.publish()
    attack.refused(fleet.message(), "is not among the signed targets", bundle=EVIL, by="delegate")


# --- downgrade --------------------------------------------------------------------------------------------------------


def test_downgrade_without_signed_roll_back(attack: Attack) -> None:
    """A signed bundle that is older than what runs, without permission of what runs: refused for good."""
    third = "cc" * 32
    attack.fleet.add(third, rollback=[])
    attack.victim.running = third
    attack.refused(
        attack.fleet.message(), "downgrade", bundle=OLD, outcome=Outcome.REFUSED, by="broker", recovers=False
    )
    assert Outcome.TRUSTED == attack.victim.ask(third, attack.fleet.message()).outcome


def test_downgrade_while_nothing_runs(attack: Attack) -> None:
    """A runner that was made to crash does not make the device forget what it ran."""
    third = "cc" * 32
    attack.fleet.add(third, rollback=[])
    attack.victim.running = third
    assert Outcome.TRUSTED == attack.victim.ask(third, attack.fleet.message()).outcome
    attack.victim.running = None
    attack.refused(attack.fleet.message(), "downgrade", bundle=OLD, outcome=Outcome.REFUSED, recovers=False)


def test_downgrade_after_the_running_bundle_was_retired(attack: Attack) -> None:
    """What was signed about the running bundle is remembered when it disappears from the targets."""
    third = "cc" * 32
    attack.fleet.add(third, rollback=[])
    assert Outcome.TRUSTED == attack.victim.ask(third, attack.fleet.message()).outcome
    attack.victim.running = third
    del attack.fleet.targets.signed.targets[target_path(third)]
    attack.fleet.targets.signed.version += 1
    attack.fleet.sign(attack.fleet.targets, attack.fleet.keys["targets"])
    attack.fleet.publish()
    attack.refused(attack.fleet.message(), "downgrade", bundle=OLD, outcome=Outcome.REFUSED, recovers=False)


def test_signed_roll_back_is_no_attack(fleet: MetadataFleet, victim: Victim) -> None:
    """The permission in the running bundle's metadata lets the device go back, without any new signature."""
    assert Outcome.TRUSTED == victim.ask(NEW, fleet.message()).outcome
    victim.running = NEW
    assert Outcome.TRUSTED == victim.ask(OLD, fleet.message()).outcome


def test_later_permission_lets_it_go_back(fleet: MetadataFleet, victim: Victim) -> None:
    """Newer targets may say that the running bundle may be left for an older one after all."""
    third = "cc" * 32
    fleet.add(third, rollback=[])
    victim.running = third
    assert Outcome.REFUSED == victim.ask(OLD, fleet.message()).outcome
    fleet.add(third, rollback=[OLD], counter=3)
    assert Outcome.TRUSTED == victim.ask(OLD, fleet.message()).outcome


def test_bundle_target_refuses_what_cannot_be() -> None:
    """Lengths, counters and permissions have limits."""
    good = {"digest": OLD, "length": 10, "name": "x", "version": "1", "counter": 1}
    for wrong in ({"length": 0}, {"length": 2**21}, {"counter": 0}, {"digest": "x"}, {"rollback": (OLD,) * 33}):
        with pytest.raises(ValueError, match="expected"):
            BundleTarget(**{**good, **wrong})
    with pytest.raises(SignatureError, match="sign it again"):
        BundleTarget.from_custom(OLD, 10, {"counter": 1})


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root"])
def test_expired(attack: Attack, role: str) -> None:
    """Metadata of any role whose time is over, properly signed, are refused by name; newer ones are accepted."""
    fleet, yesterday = attack.fleet, date(attack.fleet.now - DAY)
    stale = fleet.copy()
    if role == "root":
        root = stale.draft_root()
        root.signed.expires = yesterday
        fleet.roots.append(stale.sign(root, stale.keys["root"]))
        stale.roots = list(fleet.roots)
        later = fleet.draft_root()
        later.signed.expires = date(fleet.now + 300 * DAY)
        fleet.roots.append(fleet.sign(later, fleet.keys["root"]))  # an expired root in between does no harm (5.3.10)
    elif role == "targets":
        stale.targets.signed.expires, stale.targets.signed.version = yesterday, stale.targets.signed.version + 1
        stale.sign(stale.targets, stale.keys["targets"])
        stale.publish()
        fleet.targets.signed.version = stale.targets.signed.version + 1
        fleet.sign(fleet.targets, fleet.keys["targets"])
    elif role == "snapshot":
        stale.snapshot.signed.expires, stale.snapshot.signed.version = yesterday, stale.snapshot.signed.version + 1
        stale.sign_snapshot()
        stale.tick()
    else:
        stale.timestamp.signed.expires, stale.timestamp.signed.version = yesterday, 40
        stale.sign(stale.timestamp, stale.keys["timestamp"])
    fleet.snapshot.signed.version = fleet.timestamp.signed.version = 50
    fleet.publish()
    answer = attack.refused(stale.message(), "expired")
    assert role in answer.reason.lower()

"""The fleet's own repository: for trying out, with offline keys, before anything expires, and after a crash."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlmodel import func, select
from tuf.api.metadata import Root, Targets, Timestamp

from edgeopt.signing.drafts import Additions, Desk, Facts, Seen, draft_targets, explain, read_metadata
from edgeopt.signing.keys import OfflineKey
from edgeopt_agent.trust.answering import answer_question
from edgeopt_agent.trust.floor import Reading
from edgeopt_agent.trust.question import Answer, Outcome, Question
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import UsageError
from edgeopt_contract.tuf import TufMetadata
from edgeopt_fleet.cli import group
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.problems import ConflictError, InvalidError
from edgeopt_fleet.rollout import Wave
from edgeopt_fleet.store.database import Database
from edgeopt_fleet.store.rollouts import Plan
from edgeopt_fleet.store.tables import MetadataRow
from edgeopt_fleet.tuf.keys import create_key, load_signer, read_public
from edgeopt_fleet.tuf.metadata import Change, parse, render
from edgeopt_fleet.tuf.repository import Repository
from tests.fleet.conftest import Kit

DAY = 86400.0
NOW = 1_795_400_000.0


@pytest.fixture
def now(kit: Kit) -> float:
    """A kit whose clock is one that devices accept."""
    kit.now = NOW
    kit.metadata.renew(NOW)
    return NOW


def device(kit: Kit, directory: Path, bundle: str, *, root: str, running: str | None = None) -> Answer:
    """Ask as a device would."""
    return answer_question(
        Question(
            bundle=bundle, running=running, root=root, directory=str(directory),
            reading=Reading(wall=kit.now, boot="b", uptime=1.0), metadata=kit.metadata.message(),
        )
    )  # fmt: skip


def offline_keys(directory: Path, count: int = 3) -> list[Path]:
    """Make keys as people do on their laptops."""
    directory.mkdir()
    paths = [directory / f"{number}.pem" for number in range(count)]
    for path in paths:
        create_key(path)
    return paths


def move_offline(kit: Kit, paths: list[Path], roles: tuple[str, ...] = ("targets", "root"), threshold: int = 2) -> None:
    """Replace the server's keys of ``roles`` by keys elsewhere, and sign what that needs."""
    for view in kit.metadata.roles():
        if view.role in roles:
            add = tuple(read_public(path.with_suffix(".pub")) for path in paths)
            change = Change(role=view.role, add=add, remove=tuple(view.keys), threshold=threshold)
            kit.metadata.change_keys((change,), kit.now)
    sign_waiting(kit, paths)


def sign_waiting(kit: Kit, paths: list[Path]) -> None:
    """Sign all that waits with the keys at ``paths``."""
    unsigned = kit.metadata.unsigned()
    for role, text in (("root", unsigned.root_draft), ("targets", unsigned.targets_draft)):
        if text is not None:
            metadata = read_metadata(text)
            for path in paths:
                OfflineKey.load(path, None).sign(metadata)
            kit.metadata.accept(role, render(metadata), kit.now)


def desk(kit: Kit) -> Desk:
    """What a laptop sees."""
    unsigned = kit.metadata.unsigned()
    return Desk(
        root=unsigned.root,
        targets=unsigned.targets,
        root_draft=unsigned.root_draft,
        targets_draft=unsigned.targets_draft,
    )


def versions(kit: Kit) -> list[int]:
    """The versions of root and targets that are in force."""
    return [view.version for view in kit.metadata.roles()][:2]


def facts(kit: Kit, digest: str) -> Facts:
    """A published bundle as it lies on a laptop."""
    row = kit.bundles.find(digest)
    return Facts(digest=digest, length=len(row.manifest), name=row.name, version=row.version)


def test_fleet_for_trying_out_signs_by_itself(kit: Kit, now: float, tmp_path: Path) -> None:
    """What is published is trusted by a device, and the newer bundle may be left for the older one."""
    root = kit.metadata.root()
    first, second = kit.publish("1"), kit.publish("2")
    assert Outcome.TRUSTED == device(kit, tmp_path / "d", second, root=root).outcome
    assert Outcome.TRUSTED == device(kit, tmp_path / "d", first, root=root, running=second).outcome


def test_server_without_targets_keys_signs_no_bundle(kit: Kit, now: float, tmp_path: Path) -> None:
    """After the move to offline keys a published bundle waits: nothing rolls it out, no device takes it."""
    root = kit.metadata.root()
    first = kit.publish("1")
    move_offline(kit, offline_keys(tmp_path / "laptop"))
    assert [] == kit.metadata.standing()
    second = kit.publish("2")
    assert (True, None) == (kit.bundles.find(second).complete, kit.bundles.find(second).counter)
    assert Outcome.TRUSTED == device(kit, tmp_path / "d", first, root=root).outcome
    assert Outcome.WAITING == device(kit, tmp_path / "d", second, root=root, running=first).outcome
    kit.enrol("cam-1")
    plan = Plan(name="r", bundle=second, cohort="all", waves=(Wave.parse("100%"),), policy=Policy())
    with pytest.raises(ConflictError, match="is not signed"):
        kit.rollouts.create(plan, kit.now)


def test_two_of_three_sign_a_bundle_and_its_way_back(kit: Kit, now: float, tmp_path: Path) -> None:
    """One signature waits, two are in force; the permission to go back is what they signed."""
    root = kit.metadata.root()
    first = kit.publish("1")
    paths = offline_keys(tmp_path / "laptop")
    move_offline(kit, paths)
    second = kit.publish("2")
    draft = draft_targets(desk(kit), Additions(bundles=(facts(kit, second),)), kit.now)
    OfflineKey.load(paths[0], None).sign(draft)
    standing = kit.metadata.accept("targets", render(draft), kit.now)
    assert (1, 2, False) == (standing.signatures, standing.threshold, standing.in_force)
    assert kit.bundles.find(second).counter is None

    waiting = read_metadata(desk(kit).targets_draft or "")
    OfflineKey.load(paths[2], None).sign(waiting)
    standing = kit.metadata.accept("targets", render(waiting), kit.now)

    assert (2, True) == (standing.signatures, standing.in_force)
    before = kit.bundles.find(first).counter
    assert before is not None
    assert before + 1 == kit.bundles.find(second).counter
    assert Outcome.TRUSTED == device(kit, tmp_path / "d", second, root=root, running=first).outcome
    assert Outcome.TRUSTED == device(kit, tmp_path / "d", first, root=root, running=second).outcome


def test_no_way_back_when_none_was_signed(kit: Kit, now: float, tmp_path: Path) -> None:
    """``--no-rollback``: the server cannot recall the bundle to an older one."""
    root, first = kit.metadata.root(), kit.publish("1")
    paths = offline_keys(tmp_path / "laptop")
    move_offline(kit, paths)
    second = kit.publish("2")
    draft = draft_targets(desk(kit), Additions(bundles=(facts(kit, second),), rollback=()), kit.now)
    for path in paths[:2]:
        OfflineKey.load(path, None).sign(draft)
    kit.metadata.accept("targets", render(draft), kit.now)
    assert Outcome.REFUSED == device(kit, tmp_path / "d", first, root=root, running=second).outcome


def test_targets_wait_for_the_keys_of_a_new_root(kit: Kit, now: float, tmp_path: Path) -> None:
    """Root and targets of a rotation come into force together, never one without the other."""
    paths = offline_keys(tmp_path / "laptop")
    add = tuple(read_public(path.with_suffix(".pub")) for path in paths)
    (old,) = next(view for view in kit.metadata.roles() if view.role == "targets").keys
    before = versions(kit)
    waiting = kit.metadata.change_keys((Change(role="targets", add=add, remove=(old,), threshold=2),), kit.now)
    assert {("root", 1, 1), ("targets", 0, 2)} == {(one.role, one.signatures, one.threshold) for one in waiting}
    assert before == versions(kit)
    sign_waiting(kit, paths[:1])
    assert before == versions(kit)
    sign_waiting(kit, paths[1:2])
    assert [] == kit.metadata.standing()
    assert [version + 1 for version in before] == versions(kit)
    assert [old] == kit.metadata.remove_unused_keys()


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_rotation_on_the_server_reaches_a_device_of_the_first_day(
    kit: Kit, now: float, tmp_path: Path, role: str
) -> None:
    """A fleet that holds all keys replaces any of them by itself, three times, and devices follow."""
    from edgeopt_fleet.tuf.keys import create_server_key

    root, bundle = kit.metadata.root(), kit.publish("1")
    before = versions(kit)[0]
    for _ in range(3):
        old = tuple(next(view for view in kit.metadata.roles() if view.role == role).keys)
        new = create_server_key(tmp_path / "keys")
        assert [] == kit.metadata.change_keys((Change(role=role, add=(new,), remove=old),), kit.now)
        assert list(old) == kit.metadata.remove_unused_keys()
    assert before + 3 == versions(kit)[0]
    assert Outcome.TRUSTED == device(kit, tmp_path / "d", bundle, root=root).outcome


def test_several_changes_wait_in_one_root(kit: Kit, now: float, tmp_path: Path) -> None:
    """A second change before the first is signed does not undo it."""
    paths, before = offline_keys(tmp_path / "laptop"), versions(kit)[0]
    move_offline(kit, paths)
    views = {view.role: view for view in kit.metadata.roles()}
    assert (3, 2) == (len(views["root"].keys), views["root"].threshold)
    assert (3, 2) == (len(views["targets"].keys), views["targets"].threshold)
    assert not any([*views["root"].keys.values(), *views["targets"].keys.values()])
    assert before + 1 == views["root"].version


def test_everything_is_signed_again_before_it_expires(kit: Kit, now: float, tmp_path: Path) -> None:
    """A year of looks: at every one a device that knows the first root accepts what is published."""
    root, bundle = kit.metadata.root(), kit.publish("1")
    versions = set()
    for day in range(0, 400, 3):
        kit.now = now + day * DAY
        versions.add(kit.metadata.renew(kit.now))
        if day % 60 == 0:
            assert Outcome.TRUSTED == device(kit, tmp_path / "d", bundle, root=root).outcome, day
    assert 100 < len(versions)
    assert kit.metadata.renew(kit.now + 60.0) == kit.metadata.renew(kit.now + 120.0)  # nothing is due a minute later


def test_timestamp_states_the_time(kit: Kit, now: float) -> None:
    """Devices without a clock learn it: it is never more than a day old."""
    for day in range(4):
        kit.metadata.renew(now + day * DAY + 1)
        timestamp = parse(Timestamp, decode(TufMetadata, kit.metadata.message()).timestamp)
        stated = timestamp.signed.unrecognized_fields["x-edgeopt-signed-at"]
        assert now + day * DAY - DAY <= stated <= now + day * DAY + 1


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"signatures": [], "signed": {"_type": "snapshot"}}'])
@pytest.mark.parametrize("role", ["root", "targets"])
def test_what_is_no_metadata_is_refused(kit: Kit, role: str, data: bytes) -> None:
    """Nothing of it is kept."""
    with pytest.raises(InvalidError):
        kit.metadata.accept(role, data, kit.now)
    assert [] == kit.metadata.standing()


def test_what_strangers_signed_is_refused(kit: Kit, now: float, tmp_path: Path) -> None:
    """An operator's key alone does not make a draft, let alone a target."""
    move_offline(kit, offline_keys(tmp_path / "laptop"))
    (stranger,) = offline_keys(tmp_path / "other", 1)
    bundle = kit.publish("1")
    draft = draft_targets(desk(kit), Additions(bundles=(facts(kit, bundle),)), kit.now)
    OfflineKey.load(stranger, None).sign(draft)
    with pytest.raises(InvalidError, match="none that verifies"):
        kit.metadata.accept("targets", render(draft), kit.now)


def test_a_version_that_is_not_the_next_is_a_conflict(kit: Kit, now: float, tmp_path: Path) -> None:
    """Two people who began at the same version: the second is told to look again."""
    paths = offline_keys(tmp_path / "laptop")
    move_offline(kit, paths)
    first, second = kit.publish("1"), kit.publish("2")
    drafts = [draft_targets(desk(kit), Additions(bundles=(facts(kit, one),)), kit.now) for one in (first, second)]
    for draft in drafts:
        for path in paths[:2]:
            OfflineKey.load(path, None).sign(draft)
    assert kit.metadata.accept("targets", render(drafts[0]), kit.now).in_force
    with pytest.raises(ConflictError, match="sign again"):
        kit.metadata.accept("targets", render(drafts[1]), kit.now)


def test_a_threshold_without_enough_keys_is_refused(kit: Kit, now: float) -> None:
    """No root is drafted that nobody could ever sign under."""
    (old,) = next(view for view in kit.metadata.roles() if view.role == "root").keys
    for change in (
        Change(role="root", remove=(old,)),
        Change(role="root", threshold=2),
        Change(role="root", remove=("x",)),
    ):
        with pytest.raises(InvalidError):
            kit.metadata.change_keys((change,), kit.now)
    assert [] == kit.metadata.standing()


def test_a_crash_between_two_steps_leaves_the_old_set(kit: Kit, now: float, tmp_path: Path) -> None:
    """All rows of a change are written in one transaction: a failure after any of them leaves none."""
    before = kit.metadata.message()
    broken = Repository(kit.database, tmp_path / "keys")
    broken._sign_online = lambda *_: (_ for _ in ()).throw(RuntimeError("power cut"))  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        broken.change_keys((Change(role="root", threshold=1),), now)
    assert before == kit.metadata.message()
    assert [] == kit.metadata.standing()


def test_metadata_survive_another_process(kit: Kit, now: float, tmp_path: Path) -> None:
    """What was committed is what the next server publishes."""
    kit.publish("1")
    message = kit.metadata.message()
    kit.database.close()
    with contextlib.closing(Database.open(kit.address)) as database:
        assert message == Repository(database, tmp_path / "keys").message()
        with database.reading() as session:
            counts = session.exec(select(MetadataRow.role, func.count()).group_by(MetadataRow.role)).all()
    assert {("root", 2), ("snapshot", 1), ("targets", 1), ("timestamp", 1)} == {tuple(row) for row in counts}


# --- keys -----------------------------------------------------------------------------------------------------------


def test_private_keys_are_the_owner_s_only(tmp_path: Path) -> None:
    """Mode 0600 from the start; a name that is taken is not overwritten; the public half names its own id."""
    key = create_key(tmp_path / "a.pem")
    assert 0o600 == (tmp_path / "a.pem").stat().st_mode & 0o777
    assert key.keyid == read_public(tmp_path / "a.pub").keyid == load_signer(tmp_path / "a.pem").public_key.keyid
    with pytest.raises(UsageError, match="never overwritten"):
        create_key(tmp_path / "a.pem")


def test_passphrase_is_needed_where_there_is_one(tmp_path: Path) -> None:
    """Neither without it nor with another one."""
    create_key(tmp_path / "a.pem", "correct horse")
    assert b"ENCRYPTED" in (tmp_path / "a.pem").read_bytes()
    load_signer(tmp_path / "a.pem", "correct horse")
    for wrong in (None, "battery"):
        with pytest.raises(UsageError, match="passphrase"):
            load_signer(tmp_path / "a.pem", wrong)
        with pytest.raises(UsageError, match="passphrase"):
            OfflineKey.load(tmp_path / "a.pem", wrong)


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_named_without_showing_it(tmp_path: Path, content: bytes) -> None:
    """The message names the file and not its content."""
    (tmp_path / "a.pem").write_bytes(content)
    (tmp_path / "a.pem").chmod(0o600)
    with pytest.raises(UsageError, match=r"a\.pem: expected an Ed25519"):
        load_signer(tmp_path / "a.pem")
    with pytest.raises(UsageError, match=r"a\.pem: expected an Ed25519"):
        OfflineKey.load(tmp_path / "a.pem", None)


def test_a_public_file_under_another_id_is_refused(tmp_path: Path) -> None:
    """One key cannot count twice under two names."""
    create_key(tmp_path / "a.pem")
    plain = json.loads((tmp_path / "a.pub").read_text())
    for change in ({"keyid": "f" * 64}, {"keyval": {"public": "zz"}}, {"keytype": "rsa"}):
        (tmp_path / "b.pub").write_text(json.dumps(plain | change))
        with pytest.raises(UsageError):
            read_public(tmp_path / "b.pub")


def test_key_that_others_can_read_does_not_sign(tmp_path: Path) -> None:
    """As ssh does it."""
    create_key(tmp_path / "a.pem")
    (tmp_path / "a.pem").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        OfflineKey.load(tmp_path / "a.pem", None)


# --- what a signature would mean ------------------------------------------------------------------------------------


def test_explanation_is_against_what_this_key_signed_last(kit: Kit, now: float, tmp_path: Path) -> None:
    """A bundle that the server slipped in is new to the key, whatever the server says is in force."""
    first = kit.publish("1")
    metadata = read_metadata(desk(kit).targets)
    assert any(line.startswith("+ ") and first in line for line in explain(metadata, Seen()))
    (path,) = offline_keys(tmp_path / "k", 1)
    OfflineKey.load(path, None).sign(metadata)
    seen = OfflineKey.load(path, None).seen
    assert not any(line.startswith(("+ ", "~ ", "- ")) for line in explain(metadata, seen))
    slipped_in = kit.publish("slipped in")
    later = read_metadata(desk(kit).targets)
    assert any(line.startswith("+ ") and slipped_in in line for line in explain(later, seen))
    with pytest.raises(UsageError, match="shows old metadata; do not sign"):
        explain(metadata, Seen(versions={"targets": later.signed.version}))


def test_explanation_of_a_root_names_every_key(kit: Kit, now: float) -> None:
    """New and removed keys, and thresholds, by role."""
    from tests.metadata import MetadataFleet, text

    root = read_metadata(kit.metadata.root())
    lines = explain(root, Seen())
    for view in kit.metadata.roles():
        assert any(f"{view.role}: 1 of 1 keys" in line for line in lines)
        assert all(any(keyid in line and "+" in line for line in lines) for keyid in view.keys)
    assert isinstance(parse(Root, text(MetadataFleet(now=now).roots[0])).signed, Root)
    assert isinstance(parse(Targets, desk(kit).targets).signed, Targets)


def test_digest_beginnings_must_be_unique(kit: Kit, now: float) -> None:
    """``--allow-rollback`` and ``--retire`` name bundles that are there."""
    first = kit.publish("1")
    new = Facts(digest="ab" * 32, length=10, name="digits", version="9")
    draft = draft_targets(desk(kit), Additions(bundles=(new,), rollback=(first[:8],)), now)
    assert [first] == draft.signed.targets[f"bundles/{'ab' * 32}/manifest.json"].custom["rollback"]
    gone = draft_targets(desk(kit), Additions(retire=(first[:8],)), now)
    assert {} == gone.signed.targets
    for wrong in ("", "abc", "ffffffff", "zz"):
        with pytest.raises(UsageError, match="beginning of one signed bundle"):
            draft_targets(desk(kit), Additions(bundles=(new,), rollback=(wrong,)), now)


# --- the command ----------------------------------------------------------------------------------------------------


def run(*arguments: str | Path, **options: str) -> str:
    """Run ``edgeopt-fleet`` and expect it to work."""
    done = CliRunner().invoke(group, [str(argument) for argument in arguments], catch_exceptions=False, **options)
    assert 0 == done.exit_code, done.output
    return done.output


def test_keys_by_hand(tmp_path: Path) -> None:
    """From a fleet for trying out to offline keys through files only, as on a machine without a network."""
    from edgeopt.cli import group as edgeopt

    home, keys = tmp_path / "fleet", tmp_path / "keys"
    keys.mkdir()
    run("init", home)
    assert "all keys are on this server" in run("keys", "list", home)
    for name in ("a", "b", "c"):
        run("keys", "make", keys / f"{name}.pem")
    added = [part for name in ("a", "b", "c") for part in ("--add", keys / f"{name}.pub")]
    for role in ("targets", "root"):
        run("keys", "rotate", home, role, *added, "--threshold", "2", "--drop-server-keys")
    run("keys", "export", home, "--output", tmp_path / "unsigned.json")
    sign = ["sign", "--input", tmp_path / "unsigned.json", "--output", tmp_path / "signed.json", "--yes"]
    for name in ("a", "c"):
        sign += ["--key", keys / f"{name}.pem"]
    done = CliRunner().invoke(edgeopt, [str(part) for part in sign], catch_exceptions=False)
    assert 0 == done.exit_code, done.output
    assert "root: 2 of 3 keys" in done.output
    accepted = run("keys", "accept", home, tmp_path / "signed.json")
    assert "in force" in accepted
    assert 2 == accepted.count("removed the private key")
    listed = run("keys", "list", home)
    assert 6 == listed.count("elsewhere")
    assert 2 == listed.count("on this server")
    (stolen,) = (line.split()[0] for line in listed.splitlines()[1:2])
    assert "waits" in run("keys", "revoke", home, stolen[:16])
    run("keys", "discard", home)
    assert "waits" not in run("keys", "list", home)
    assert "in force" in run("keys", "rotate", home, "timestamp") or "waits" in run("keys", "list", home)


def test_passphrase_is_asked_for_twice(tmp_path: Path) -> None:
    """And the file is encrypted with it."""
    run("keys", "make", tmp_path / "a.pem", "--passphrase", input="correct\ncorrect\n")
    load_signer(tmp_path / "a.pem", "correct")

from __future__ import annotations

import pytest
from tuf.api.metadata import Targets

from edgeopt_contract.codec import decode
from edgeopt_contract.manifest import Role
from edgeopt_contract.tuf import TufMetadata
from edgeopt_contract.values import digest_of
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError, TooLargeError
from edgeopt_fleet.store.bundles import BundleFilter
from edgeopt_fleet.tuf.metadata import bundles_of, parse
from tests.fleet.conftest import Kit, make_bundle


def test_a_bundle_is_signed_once_all_blocks_are_here(kit: Kit) -> None:
    """First what is missing, then the blocks, then a target with length, counter and permissions."""
    bundle = make_bundle(kit.directory / "bundle", "1")
    manifest = (bundle.directory / "manifest.json").read_bytes()
    missing = kit.bundles.post(manifest, 1.0).missing
    assert {block.sha256 for entry in bundle.manifest.files for block in entry.blocks} == set(missing)
    assert (False, None) == (kit.bundles.find(bundle.digest).complete, kit.bundles.find(bundle.digest).counter)

    first, second = kit.publish("1"), kit.publish("2")

    assert bundle.digest == first
    assert [1, 2] == [kit.bundles.find(digest).counter for digest in (first, second)]
    targets = bundles_of(parse(Targets, decode(TufMetadata, kit.metadata.message()).targets))
    assert ((), (first,)) == (targets[first].rollback, targets[second].rollback)
    assert len(manifest) == targets[first].length
    assert manifest == kit.bundles.delivery(bundle.digest).manifest


def test_evidence_is_kept_but_not_delivered(kit: Kit) -> None:
    """Devices never fetch reports."""
    digest = kit.publish("1")
    manifest = make_bundle(kit.directory / "again", "1").manifest
    evidence = {block.sha256 for entry in manifest.files if entry.role is Role.EVIDENCE for block in entry.blocks}
    assert evidence
    assert not evidence & set(kit.bundles.delivery(digest).blocks)
    for sha256 in evidence:
        assert sha256 == digest_of(kit.bundles.block(sha256))


def test_a_block_must_be_what_its_name_says(kit: Kit) -> None:
    """Wrong bytes, an empty or oversized block, and a name that leaves the folder are refused."""
    with pytest.raises(InvalidError, match="expected a block with"):
        kit.bundles.put_block("0" * 64, b"x")
    with pytest.raises(InvalidError, match="got none"):
        kit.bundles.put_block(digest_of(b""), b"")
    large = bytes(128 * 1024 + 1)
    with pytest.raises(TooLargeError):
        kit.bundles.put_block(digest_of(large), large)
    with pytest.raises(InvalidError, match="SHA-256"):
        kit.bundles.put_block("../fleet.toml", b"x")


@pytest.mark.parametrize("manifest", [b"", b"{}", b"[]", b'{"schema": 99}'])
def test_a_manifest_that_breaks_the_contract_is_refused(kit: Kit, manifest: bytes) -> None:
    """Nothing of it is kept."""
    with pytest.raises(InvalidError):
        kit.bundles.post(manifest, 1.0)
    assert [] == list(kit.bundles.page(BundleFilter(), None, 10))


def test_prefixes(kit: Kit) -> None:
    """A unique prefix is enough; anything else is told apart."""
    digest = kit.publish("1")
    assert digest == kit.bundles.find(digest[:8]).digest
    with pytest.raises(NotFoundError, match="edgeopt publish"):
        kit.bundles.find("0" * 8 if not digest.startswith("0" * 8) else "1" * 8)
    for wrong in ("", "abc", "%", "xyzw", "A" * 8):
        with pytest.raises(InvalidError):
            kit.bundles.find(wrong)


def test_an_ambiguous_prefix_is_a_conflict(kit: Kit) -> None:
    """Two bundles whose digests begin alike."""
    by_start: dict[str, str] = {}
    for number in range(2000):
        digest = f"{number:064x}"
        by_start[digest] = digest
    from edgeopt_fleet.store.tables import BundleRow

    with kit.database.transaction() as session:
        for digest in list(by_start)[:2]:
            session.add(BundleRow(digest=digest, name="n", version="1", manifest=b"", created_at=0.0))
    with pytest.raises(ConflictError, match="several"):
        kit.bundles.find("0000")

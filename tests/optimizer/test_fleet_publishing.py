"""Publishing a bundle: what is sent, what is sent again, and what is found to be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from edgeopt.fleet_access import FleetAccess
from edgeopt.fleet_client import FleetClient
from edgeopt.fleet_publishing import publish_bundle
from edgeopt_contract.bundle import Bundle, BundleContents, write_bundle
from edgeopt_contract.errors import BundleError, MessageError
from edgeopt_contract.values import digest_of
from tests.contract.conftest import contents  # noqa: F401  # the fixture
from tests.optimizer.operate_fake import KEY, FakeFleet, transport

ACCESS = FleetAccess("http://fleet.test:8080", KEY)


def client(fleet: FakeFleet) -> FleetClient:
    """A client of a fleet in memory."""
    return FleetClient(ACCESS, transport(fleet))


@pytest.fixture
def bundle(tmp_path: Path, contents: BundleContents) -> Bundle:  # noqa: F811  # the fixture
    """A bundle on disk."""
    return write_bundle(tmp_path / "bundle", contents)


class TestPublish:
    """Uploading a bundle."""

    def test_every_block_arrives(self, bundle: Bundle) -> None:
        """The fleet can put every file together again, and the digest is that of the manifest."""
        fleet = FakeFleet()
        assert bundle.digest == publish_bundle(client(fleet), bundle)
        assert {bundle.digest} == set(fleet.manifests)
        for entry in bundle.manifest.files:
            data = b"".join(fleet.blocks[block.sha256] for block in entry.blocks)
            assert entry.sha256 == digest_of(data)

    def test_only_missing_blocks_are_sent(self, bundle: Bundle) -> None:
        """What an older version brought, or an interrupted upload, is not sent again."""
        fleet = FakeFleet()
        publish_bundle(client(fleet), bundle)
        lost = next(iter(fleet.blocks))
        size = len(fleet.blocks.pop(lost))
        seen: list[tuple[int, int]] = []
        publish_bundle(client(fleet), bundle, lambda sent, total: seen.append((sent, total)))
        assert [(0, size), (size, size)] == seen
        seen.clear()
        publish_bundle(client(fleet), bundle, lambda sent, total: seen.append((sent, total)))
        assert [] == seen

    def test_a_block_lost_meanwhile_is_sent_once_more(self, bundle: Bundle) -> None:
        """The bundle is published when the fleet says that nothing is missing, not when all was sent."""
        fleet = FakeFleet()
        lossy = client(fleet)
        first = bundle.manifest.files[0].blocks[0].sha256
        real, seen = lossy.put_block, []

        def put(sha256: str, data: bytes) -> None:
            seen.append(sha256)
            real(sha256, data)
            if seen.count(first) == 1:
                fleet.blocks.pop(first, None)

        lossy.put_block = put  # type: ignore[method-assign]  # a fault, injected
        assert bundle.digest == publish_bundle(lossy, bundle)
        assert 2 == seen.count(first)

    def test_a_fleet_that_never_keeps_a_block_is_given_up(self, bundle: Bundle) -> None:
        """There is no endless loop."""
        fleet = FakeFleet()
        useless = client(fleet)
        useless.put_block = lambda *_: None  # type: ignore[method-assign, assignment]  # a fault, injected
        with pytest.raises(MessageError, match="still lacks blocks that it accepted"):
            publish_bundle(useless, bundle)

    def test_a_file_changed_after_it_was_verified_is_found(self, bundle: Bundle) -> None:
        """Every block is checked as it is read: what is sent is what the manifest lists."""
        path = bundle.directory / "fp32.onnx"
        path.write_bytes(b"X" + path.read_bytes()[1:])
        with pytest.raises(BundleError, match=r"fp32\.onnx: bytes 0-\d+ are not the block"):
            publish_bundle(client(FakeFleet()), bundle)

    def test_a_file_removed_meanwhile_is_found(self, bundle: Bundle) -> None:
        """So is one that is gone."""
        (bundle.directory / "fp32.onnx").unlink()
        with pytest.raises(BundleError, match=r"fp32\.onnx cannot be read any more"):
            publish_bundle(client(FakeFleet()), bundle)

    def test_a_manifest_changed_meanwhile_is_found(self, bundle: Bundle) -> None:
        """The digest that is printed is the digest that was published."""
        path = bundle.directory / "manifest.json"
        path.write_bytes(path.read_bytes() + b" ")
        with pytest.raises(BundleError, match="the manifest changed while it was being published"):
            publish_bundle(client(FakeFleet()), bundle)

    @pytest.mark.parametrize("missing", [None, ["0" * 64], [7], "all"])
    def test_a_fleet_that_asks_for_nonsense_is_refused(self, bundle: Bundle, missing: Any) -> None:
        """Only blocks of the bundle are read and sent."""
        answer = {"digest": bundle.digest, "missing_blocks": missing}
        confused = FleetClient(ACCESS, httpx.MockTransport(lambda _request: httpx.Response(200, json=answer)))
        with pytest.raises(MessageError, match=r"which blocks it lacks|does not have"):
            publish_bundle(confused, bundle)

"""The same with a real agent and a real broker: refused, reported with the reason, and the old model serves on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeopt_contract.bundle import MANIFEST_NAME, Bundle
from edgeopt_contract.codec import encode
from edgeopt_contract.messages import Reported
from edgeopt_contract.topics import Topics
from tests.agent.conftest import (  # noqa: F401  # fixtures
    DEVICE,
    Device,
    FakeFleet,
    blocks_of,
    broker,
    device,
    fleet,
    wait_until,
)
from tests.attack.conftest import ROWS
from tests.metadata import MetadataFleet
from tests.tiny import Recipe, tiny_bundle

pytestmark = [pytest.mark.attack, pytest.mark.timeout(120)]


class Scene:
    """A device that serves version 1, and an attacker in the broker who offers version 2."""

    def __init__(self, fleet: FakeFleet, device: Device, directory: Path) -> None:  # noqa: F811  # a fixture's name
        self.fleet, self.device = fleet, device
        self.old, self.new = tiny_bundle(directory / "1"), tiny_bundle(directory / "2", Recipe(version="2"))
        fleet.publish_bundle(self.old)
        device.start()
        fleet.desire(self.old, "job-old")
        fleet.wait_for("confirmed", "job-old", 60)

    def offer(self, bundle: Bundle, job: str, metadata: bytes, seconds: int = 600) -> None:
        """Publish blocks, metadata and a desired state as the attacker likes them."""
        for sha256, data in blocks_of(bundle).items():
            self.fleet.publish(Topics.block(sha256), data)
        self.fleet.publish(Topics.TUF, metadata)
        self.desire(bundle, job, seconds)

    def desire(self, bundle: Bundle, job: str, seconds: int) -> None:
        """Publish a desired state alone; again with few seconds it brings an offer that waits to its deadline."""
        desired = self.fleet.signer.desired(bundle.digest, job, deadline=int(time.time()) + seconds)
        self.fleet.publish(Topics.desired(DEVICE), encode(desired))

    def sign(self, bundle: Bundle, **options: object) -> None:
        """Let the fleet sign a bundle."""
        length = (bundle.directory / MANIFEST_NAME).stat().st_size
        self.fleet.signer.metadata.add(bundle.digest, length, **options)  # type: ignore[arg-type]

    def reason(self, job: str, words: str) -> Reported:
        """Wait for a report about ``job`` that says ``words``; nothing of it may ever have been fetched."""
        found = self.reason_said(job, words)
        assert not {"downloading", "verifying", "staged", "activating"} & set(self.fleet.states(job))
        assert self.old.digest == found.running
        return found

    def reason_said(self, job: str, words: str) -> Reported:
        """Wait for a report about ``job`` that says ``words``."""
        return wait_until(
            f"a report with {words!r}",
            lambda: next((r for r in self.fleet.reports(job) if words in r.detail), None),
            60,
        )

    def serves(self, bundle: Bundle) -> None:
        """Check that ``bundle`` goes on answering."""
        before = sum(window.rows for window in self.fleet.telemetry(bundle.digest))
        wait_until("rows", lambda: sum(w.rows for w in self.fleet.telemetry(bundle.digest)) > before + 20)


@pytest.fixture
def scene(request: pytest.FixtureRequest, fleet: FakeFleet, device: Device, tmp_path: Path) -> Iterator[Scene]:  # noqa: F811  # fixtures
    """The scene; at its end the old model still serves, and the row of the table is written."""
    scene = Scene(fleet, device, tmp_path)
    yield scene
    scene.serves(scene.old)
    name = request.node.name.removeprefix("test_").replace("_", " ")
    said = next(report for report in fleet.reports("attack") if report.detail)
    request.config.stash.setdefault(ROWS, []).append((f"real agent: {name}", "broker", str(said.state), said.detail))


def test_bundle_of_another_fleet(scene: Scene) -> None:
    """Metadata, desired state and blocks of a fleet that this device does not know: rejected at the deadline."""
    other = MetadataFleet()
    other.add(scene.new.digest)
    scene.offer(scene.new, "attack", other.message())
    scene.reason("attack", "not signed by enough")
    scene.desire(scene.new, "attack", seconds=2)
    rejected = wait_until("the end", lambda: next((r for r in scene.fleet.reports("attack") if r.result), None), 60)
    assert "runs_old_untouched" == rejected.result


def test_bundle_that_nobody_signed_then_signed(scene: Scene) -> None:
    """It waits, says why, and goes on by itself when the signature comes."""
    scene.offer(scene.new, "attack", scene.fleet.signer.metadata.message(), seconds=90)
    scene.reason("attack", "not among the signed targets")
    scene.serves(scene.old)
    scene.sign(scene.new)
    scene.fleet.publish_metadata()
    scene.fleet.wait_for("confirmed", "attack", 60)
    scene.fleet.desire(scene.old, "job-recall")  # the way back was signed with the bundle
    assert scene.old.digest == scene.fleet.wait_for("confirmed", "job-recall", 60).running


def test_downgrade_that_is_not_permitted(scene: Scene, tmp_path: Path) -> None:
    """An older signed bundle that what runs does not permit is rejected at once, and the device stays."""
    third = tiny_bundle(tmp_path / "3", Recipe(version="3"))
    scene.fleet.publish_bundle(scene.new)
    scene.sign(third, rollback=[])
    for sha256, data in blocks_of(third).items():
        scene.fleet.publish(Topics.block(sha256), data)
    scene.fleet.desire(third, "job-third")
    scene.fleet.wait_for("confirmed", "job-third", 60)
    scene.offer(scene.old, "attack", scene.fleet.signer.metadata.message())
    rejected = scene.fleet.wait_for("rejected", "attack", 60)
    assert "downgrade" in rejected.detail
    assert third.digest == rejected.running
    scene.old = third


def test_replayed_metadata_after_a_restart(scene: Scene) -> None:
    """What was verified survives kill -9 of the agent: a recording of earlier metadata is refused."""
    recording = scene.fleet.signer.metadata.message()
    scene.sign(scene.new)
    scene.fleet.publish_metadata()
    scene.fleet.publish(Topics.desired(DEVICE), encode(scene.fleet.signer.desired(scene.new.digest, "job-seen")))
    wait_until("the verified metadata", lambda: "downloading" in scene.fleet.states("job-seen"), 60)
    scene.fleet.publish(Topics.desired(DEVICE), b"")
    scene.fleet.wait_for("superseded", "job-seen", 60)
    scene.device.kill()
    scene.device.start()
    scene.offer(scene.new, "attack", recording)
    scene.reason("attack", "older")


def test_forged_offer_does_not_disturb_an_update_that_bakes(scene: Scene, tmp_path: Path) -> None:
    """What strangers signed is offered in the middle of a bake: refused once, and the bake goes on to its end."""
    third = tiny_bundle(tmp_path / "3", Recipe(version="3"))
    scene.fleet.publish_bundle(scene.new)
    scene.fleet.desire(scene.new, "job-new", bake_seconds=20)
    baking = scene.fleet.wait_for("baking", "job-new", 60)
    strangers = MetadataFleet()
    strangers.add(third.digest)
    scene.offer(third, "attack", strangers.message())
    scene.reason_said("attack", "not signed by enough")
    scene.desire(third, "attack", seconds=2)
    rejected = scene.fleet.wait_for("rejected", "attack", 60)
    assert (scene.new.digest, "runs_old_untouched") == (rejected.running, rejected.result)
    assert {"offered", "rejected"} == set(scene.fleet.states("attack"))
    assert 1 == scene.fleet.states("attack").count("rejected")
    confirmed = scene.fleet.wait_for("confirmed", "job-new", 60)
    assert baking.number < rejected.number < confirmed.number
    assert "superseded" not in scene.fleet.states("job-new")
    scene.old = scene.new


def test_endless_metadata(scene: Scene) -> None:
    """More bytes than a device takes: named, not parsed."""
    scene.sign(scene.new)
    scene.offer(scene.new, "attack", scene.fleet.signer.metadata.message() + b" " * 600_000)
    scene.reason("attack", "more than 524288")

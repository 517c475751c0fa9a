"""Kills, damaged blocks and brokers that die while a bundle is on its way: what each costs, counted at a relay."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgeopt_contract.blocks import MAX_BLOCK_BYTES
from tests.agent.conftest import Broker, Device, FakeFleet, wait_until
from tests.badlink.conftest import blocks_on_disk, needed_bytes
from tests.badlink.relay import PUBLISH, Packet, Relay
from tests.tiny import Recipe, tiny_bundle

pytestmark = pytest.mark.badlink

MakeDevice = Callable[[Relay], Device]
Figures = Callable[[str], None]
_LIFE_SECONDS = 0.2


@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_killed_every_200_ms_while_it_downloads(
    broker: Broker, fleet: FakeFleet, make_device: MakeDevice, tmp_path: Path, figures: Figures
) -> None:
    """Each kill costs at most one block, however fast the machine is; the share follows from its speed.

    Below 2 % from about 15 MB/s on; HTTP wastes a few KiB a kill (``test_http_goes_on_where_each_kill_stopped_it``).
    """
    bundle = tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=36_000_000))
    fleet.publish_bundle(bundle)
    fleet.desire(bundle)
    with Relay(broker.port) as relay:
        device, kills = make_device(relay), 0
        while True:
            before = blocks_on_disk(device)
            device.start()
            arrived = wait_until(
                "a block or the end",
                lambda before=before: blocks_on_disk(device) != before or "confirmed" in fleet.states(),
            )
            assert arrived
            time.sleep(_LIFE_SECONDS)  # the experiment: this long it may download
            if "verifying" in fleet.states() or device.logged("state=verifying"):
                break
            device.kill()
            kills += 1
        fleet.wait_for("confirmed")
        needed, got = needed_bytes(bundle, fleet.signer.metadata.message()), relay.down_bytes
    twice = sum(times - 1 for times in relay.blocks.values())
    figures(
        f"killed every 200 ms ({kills} kills): needed {needed} bytes, got {got}, waste {got / needed - 1:.2%}, "
        f"{twice} blocks sent twice"
    )
    assert kills >= 3
    assert twice <= kills
    assert got - needed <= kills * MAX_BLOCK_BYTES + 0.01 * needed


class Corrupter:
    """Changes one byte of some blocks, the first time that they are sent."""

    def __init__(self, victims: Sequence[str]) -> None:
        self.left = set(victims)

    def __call__(self, direction: str, packet: Packet) -> tuple[Sequence[bytes], bytes | None]:
        """Return what to send on."""
        if direction == "down" and packet.kind == PUBLISH:
            sha256 = packet.topic.rpartition("/")[2]
            if sha256 in self.left:
                self.left.remove(sha256)
                return [packet.raw[:-1] + bytes([packet.raw[-1] ^ 1])], None
        return [packet.raw], None


def test_a_corrupted_block_costs_one_refetch(
    broker: Broker, fleet: FakeFleet, make_device: MakeDevice, tmp_path: Path, figures: Figures
) -> None:
    """Three of forty blocks, and the manifest, come damaged once: they are sent twice, everything else once."""
    bundle = tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=2_500_000))
    fleet.publish_bundle(bundle)
    model = max(bundle.manifest.files, key=lambda entry: entry.size)
    victims = {bundle.digest, *(model.blocks[index].sha256 for index in (0, 7, 20))}
    corrupter = Corrupter(sorted(victims))
    with Relay(broker.port, meddler=corrupter) as relay:
        make_device(relay).start()
        fleet.desire(bundle)
        fleet.wait_for("confirmed")
    assert not corrupter.left
    assert victims == {sha256 for sha256, times in relay.blocks.items() if times == 2}
    assert {1, 2} == set(relay.blocks.values())
    figures(f"{len(victims)} corrupted of {len(relay.blocks)}: {sum(relay.blocks.values())} sent")


def test_a_broker_killed_in_the_middle_stalls_nothing(
    broker: Broker, fleet: FakeFleet, make_device: MakeDevice, tmp_path: Path, figures: Figures
) -> None:
    """The broker is killed and starts anew, without its messages where it is Mosquitto: the rest arrives."""
    bundle = tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=5_000_000))
    fleet.publish_bundle(bundle)
    with Relay(broker.port, bytes_per_second=2_000_000) as relay:
        device = make_device(relay)
        device.start()
        fleet.desire(bundle)
        wait_until("a third of the blocks", lambda: blocks_on_disk(device) > 25)
        broker.kill()
        broker.start()
        fleet.republish()
        fleet.wait_for("confirmed", seconds=60)
        needed, got = needed_bytes(bundle, fleet.signer.metadata.message()), relay.down_bytes
    figures(f"broker killed in the middle: needed {needed} bytes, got {got}, waste {got / needed - 1:.2%}")
    assert got <= 1.02 * needed + 2 * 128 * 1024  # and what was under way when it died


@pytest.mark.parametrize(("broker", "kilobytes"), [("mosquitto", 48), ("nats", 500)], indirect=["broker"])
def test_impatience_fetches_nothing_twice(
    broker: Broker, fleet: FakeFleet, make_device: MakeDevice, tmp_path: Path, figures: Figures, kilobytes: int
) -> None:
    """On a link where a block takes longer than the device's patience (0.2 s) no block is sent twice."""
    bundle = tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=4_000 * kilobytes))
    fleet.publish_bundle(bundle)
    with Relay(broker.port, bytes_per_second=kilobytes * 1000) as relay:
        make_device(relay).start("--block-timeout", "0.2")
        fleet.desire(bundle)
        fleet.wait_for("confirmed", seconds=60)
        needed, got = needed_bytes(bundle, fleet.signer.metadata.message()), relay.down_bytes
    figures(f"{8 * kilobytes} kbit/s with 0.2 s of patience: waste {got / needed - 1:.2%}")
    assert {1} == set(relay.blocks.values())
    assert got <= 1.02 * needed

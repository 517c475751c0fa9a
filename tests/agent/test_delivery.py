"""Delivery against a source that loses, damages and delays."""

from __future__ import annotations

import asyncio
import errno
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from edgeopt_agent.delivery.errand import Errand
from edgeopt_agent.delivery.fetching import Carrier, Delivery, DeliveryCounts, DeliveryOptions
from edgeopt_agent.delivery.flow import Budget
from edgeopt_agent.delivery.over_mqtt import MqttCarrier, MqttOptions
from edgeopt_agent.delivery.store import Incoming
from edgeopt_agent.mqtt.link import Arrival
from edgeopt_agent.update.slots import Slots
from edgeopt_contract.blocks import MAX_BLOCK_BYTES
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.errors import BundleError, MessageError, StorageError, UnreachableError
from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.values import digest_of
from tests.agent.conftest import blocks_of, wait_until
from tests.tiny import Recipe, tiny_bundle


class FakeSource:
    """Answers from a dictionary; ``mishaps`` says how often each topic goes wrong first, and how."""

    def __init__(self, blocks: dict[str, bytes]) -> None:
        self.blocks = blocks
        self.mishaps: dict[str, list[bytes | Exception]] = {}
        self.asked: Counter[str] = Counter()
        self.at_once = 0
        self.most_at_once = 0
        self.round_trip = 0.0

    async def wait_until_connected(self) -> None:
        """Always is."""

    async def fetch(self, topic: str, patience_seconds: float) -> Arrival:
        """Return the block, or the next mishap."""
        payload, now = await self.answer(topic), time.monotonic()
        return Arrival(payload=payload, asked_at=now - self.round_trip, answered_at=now, arrived_at=now)

    async def answer(self, topic: str) -> bytes:
        """Return the bytes of the answer."""
        sha256 = topic.rpartition("/")[2]
        self.asked[sha256] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        mishaps = self.mishaps.get(sha256, [])
        if mishaps:
            mishap = mishaps.pop(0)
            if isinstance(mishap, Exception):
                raise mishap
            return mishap
        if sha256 not in self.blocks:
            raise UnreachableError("nothing came")
        return self.blocks[sha256]


class Setup:
    """Slots, a bundle and a delivery of it."""

    def __init__(self, root: Path, capabilities: Capabilities, recipe: Recipe) -> None:
        self.root = root
        self.slots = Slots(root / "slots", capabilities)
        self.slots.prepare()
        self.bundle = tiny_bundle(root / "bundle", recipe)
        self.source = FakeSource(blocks_of(self.bundle))
        self.capabilities = capabilities
        self.delivery = self.make()

    def carrier(self, *, give_up_seconds: float | None = None, budget: Budget | None = None) -> MqttCarrier:
        """A carrier from the source, with short pauses."""
        options = MqttOptions(retry_base_seconds=0.001, retry_cap_seconds=0.002, give_up_seconds=give_up_seconds)
        return MqttCarrier(self.source, options, budget or Budget(None), Random(1))

    def make(self, *carriers: Carrier, disk_reserve_bytes: int = 0) -> Delivery:
        """A new delivery, as after a restart."""
        options = DeliveryOptions(
            incoming=self.root / "incoming",
            disk_reserve_bytes=disk_reserve_bytes,
            retry_base_seconds=0.001,
            retry_cap_seconds=0.002,
        )
        return Delivery(carriers or (self.carrier(),), self.slots, options, self.capabilities, Random(1))

    def fill(self, slot: str = "a") -> None:
        """Put the fetched bundle together."""
        self.slots.fill(slot, self.delivery.manifest_bytes(self.bundle.digest), self.delivery.read)


@pytest.fixture
def setup(tmp_path: Path, capabilities: Capabilities) -> Setup:
    """A bundle of about twenty blocks."""
    return Setup(tmp_path, capabilities, Recipe(padding_bytes=1_200_000))


async def test_every_block_is_fetched_once_and_one_at_a_time_where_the_way_is_short(setup: Setup) -> None:
    """All blocks, each asked for once; the result is the bundle."""
    counts = await setup.delivery.fetch(setup.bundle.digest)
    assert {1} == set(setup.source.asked.values())
    assert set(setup.source.blocks) == set(setup.source.asked)
    assert 1 == setup.source.most_at_once  # nothing to wait for: more at once would only make a kill dearer
    total = sum(len(data) for data in setup.source.blocks.values())
    assert DeliveryCounts(fetched=len(setup.source.blocks), fetched_bytes=total) == counts
    setup.fill()
    assert setup.slots.holds("a", setup.bundle.digest)


async def test_damaged_and_missing_blocks_are_asked_for_again(setup: Setup) -> None:
    """Wrong bytes, too many bytes, silence and a refusal are counted and overcome."""
    first, second, *_ = (block.sha256 for block in setup.bundle.manifest.files[0].blocks)
    setup.source.mishaps = {
        first: [b"wrong", b"x" * 200_000, UnreachableError("refused")],
        second: [UnreachableError("timeout")],
        setup.bundle.digest: [b"{}"],
    }
    counts = await setup.delivery.fetch(setup.bundle.digest)
    assert (3, 2) == (counts.damaged, counts.unanswered)
    assert "refetched 3 damaged and 2 unanswered" in str(counts)
    setup.fill()


async def test_interrupted_delivery_asks_for_what_is_missing(setup: Setup) -> None:
    """What arrived before a cancellation is not asked for again; what was damaged on the disk is."""
    sha256 = setup.bundle.manifest.files[0].blocks[-1].sha256
    kept = setup.source.blocks.pop(sha256)
    task = asyncio.create_task(setup.delivery.fetch(setup.bundle.digest))
    await asyncio.to_thread(
        wait_until,
        "all blocks but one",
        lambda: len(list((setup.root / "incoming").glob("[0-9a-f]*"))) == len(setup.source.blocks),
    )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    setup.source.blocks[sha256] = kept
    damaged = setup.bundle.manifest.files[0].blocks[0].sha256
    (setup.root / "incoming" / damaged).write_bytes(b"half a bl")
    setup.source.asked.clear()

    counts = await setup.make().fetch(setup.bundle.digest)

    assert {sha256, damaged} == set(setup.source.asked)
    assert (2, len(setup.source.blocks) - 3) == (counts.fetched, counts.resumed)


async def test_blocks_of_the_slots_are_not_fetched(setup: Setup, tmp_path: Path) -> None:
    """A new version fetches only what changed; the rest is read out of the old slot's files."""
    await setup.delivery.fetch(setup.bundle.digest)
    setup.fill("a")
    setup.delivery.clear()
    new = tiny_bundle(tmp_path / "new", Recipe(version="2", padding_bytes=1_200_000, poisonable=True))
    setup.source.blocks = blocks_of(new)
    setup.source.asked.clear()
    setup.bundle, old = new, setup.bundle

    counts = await setup.delivery.fetch(new.digest)

    shared = set(blocks_of(old)) & set(blocks_of(new))
    assert (len(shared), set(blocks_of(new)) - shared) == (counts.reused, set(setup.source.asked))
    setup.fill("b")
    assert setup.slots.holds("b", new.digest)
    assert setup.slots.holds("a", old.digest)


async def test_damage_in_a_slot_is_not_copied(setup: Setup, tmp_path: Path) -> None:
    """A block that rotted in the old slot is fetched."""
    await setup.delivery.fetch(setup.bundle.digest)
    setup.fill("a")
    setup.delivery.clear()
    model = setup.root / "slots" / "a" / "fp32.onnx"
    model.write_bytes(b"\0" * model.stat().st_size)
    setup.source.asked.clear()

    counts = await setup.delivery.fetch(setup.bundle.digest)

    assert 2 == counts.reused  # golden inputs and profile
    setup.fill("b")


async def test_leftovers_of_another_bundle_are_removed(setup: Setup) -> None:
    """An abandoned download does not fill the disk."""
    (setup.root / "incoming").mkdir()
    (setup.root / "incoming" / ("0" * 64)).write_bytes(b"x")
    await setup.delivery.fetch(setup.bundle.digest)
    assert not (setup.root / "incoming" / ("0" * 64)).exists()
    setup.delivery.clear()
    setup.delivery.clear()
    assert not (setup.root / "incoming").exists()


async def test_small_disk_is_noticed_before_the_download(setup: Setup) -> None:
    """Download and new slot must fit; otherwise nothing but the manifest is fetched."""
    delivery = setup.make(disk_reserve_bytes=1 << 60)
    with pytest.raises(StorageError, match=r"got \d+, \d+ too few: free some space"):
        await delivery.fetch(setup.bundle.digest)
    assert [setup.bundle.digest] == list(setup.source.asked)
    assert not (setup.root / "incoming").exists()


async def test_full_disk_while_fetching_is_an_error_and_leaves_nothing(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC in the middle ends the delivery instead of being asked for ever, and gives back what it took."""
    written: list[Path] = []
    write_bytes = Path.write_bytes

    def fills_up(path: Path, data: bytes) -> int:
        if len(written) == 3:
            write_bytes(path, data[:100])
            raise OSError(errno.ENOSPC, "no space left on device")
        written.append(path)
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", fills_up)
    with pytest.raises(StorageError, match="disk is full"):
        await setup.delivery.fetch(setup.bundle.digest)
    assert 3 == len(written)
    assert not (setup.root / "incoming").exists()


async def test_a_long_way_has_more_questions_under_way(setup: Setup) -> None:
    """With a round trip of many block times, several are asked for at once, but never more than sixteen."""
    setup.source.round_trip = 0.9
    await setup.delivery.fetch(setup.bundle.digest)
    assert 2 <= setup.source.most_at_once <= 16


async def test_absent_block_does_not_hold_up_the_others(setup: Setup) -> None:
    """What the broker does not have is asked for again and again, while everything else arrives."""
    absent = setup.bundle.manifest.files[0].blocks[0].sha256
    kept = setup.source.blocks.pop(absent)
    task = asyncio.create_task(setup.delivery.fetch(setup.bundle.digest))
    incoming = setup.root / "incoming"
    await asyncio.to_thread(wait_until, "the others", lambda: len(list(incoming.glob("*"))) == len(setup.source.blocks))
    await asyncio.to_thread(wait_until, "repeated questions", lambda: setup.source.asked[absent] > 3)
    setup.source.blocks[absent] = kept
    counts = await task
    assert len(setup.source.blocks) == counts.fetched


async def test_the_other_way_is_taken_when_one_leads_nowhere(setup: Setup) -> None:
    """A carrier that gives up is followed by the next one, and that by the first again."""
    taken: list[str] = []

    class Broken:
        name = "broken"

        async def bring(self, errand: Errand) -> None:
            taken.append(f"broken misses {len(errand.missing)}")
            raise UnreachableError("no route to host")

    absent = setup.bundle.manifest.files[0].blocks[0].sha256
    kept = setup.source.blocks.pop(absent)
    delivery = setup.make(setup.carrier(give_up_seconds=0.2), Broken())
    task = asyncio.create_task(delivery.fetch(setup.bundle.digest))
    await asyncio.to_thread(wait_until, "both ways", lambda: len(taken) >= 2)
    setup.source.blocks[absent] = kept
    await task
    assert {"broken misses 1"} == set(taken)


async def test_budget_paces_the_questions(setup: Setup) -> None:
    """A cap on the rate holds over the whole download; one block may come ahead of it."""
    asked: list[float] = []

    class Recorded(Budget):
        def take(self, size: int, now: float) -> float:
            asked.append(super().take(size, 0.0))
            return 0.0

    await setup.make(setup.carrier(budget=Recorded(1e6))).fetch(setup.bundle.digest)
    total = sum(len(data) for data in setup.source.blocks.values())
    assert pytest.approx((total - MAX_BLOCK_BYTES) / 1e6) == asked[-1]


async def test_a_disk_that_fails_to_sync_is_an_error(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO of an fsync that runs beside the next block, also of the very last one, is not lost."""
    sync, last = Incoming.sync, setup.bundle.manifest.files_for(setup.bundle.manifest.variants[0])[-1].blocks[-1]

    def fails(incoming: Incoming, sha256: str) -> None:
        if sha256 == last.sha256:
            raise StorageError("cannot write: input/output error")
        sync(incoming, sha256)

    monkeypatch.setattr(Incoming, "sync", fails)
    with pytest.raises(StorageError, match="input/output"):
        await setup.delivery.fetch(setup.bundle.digest)


async def test_manifest_that_cannot_be_used_is_refused(tmp_path: Path, capabilities: Capabilities) -> None:
    """Signed nonsense, and a bundle for another kind of device."""
    setup = Setup(tmp_path / "1", capabilities, Recipe(features=("dotprod",)))
    with pytest.raises(BundleError, match="needs the CPU features dotprod"):
        await setup.delivery.fetch(setup.bundle.digest)
    nonsense = b'{"schema": 7}'
    setup.source.blocks[digest_of(nonsense)] = nonsense
    with pytest.raises(MessageError, match="schema 1, got 7"):
        await setup.delivery.fetch(digest_of(nonsense))


async def test_no_manifest_above_what_was_signed(setup: Setup) -> None:
    """One byte more than its limit is no manifest, whatever its hash; at the limit it is taken."""
    length = len(setup.source.blocks[setup.bundle.digest])
    task = asyncio.create_task(setup.delivery.fetch(setup.bundle.digest, length - 1))
    asked = setup.source.asked
    await asyncio.to_thread(wait_until, "repeated questions", lambda: asked[setup.bundle.digest] > 3)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {setup.bundle.digest} == set(setup.source.asked)
    await setup.delivery.fetch(setup.bundle.digest, length)


def test_missing_manifest_is_an_error(setup: Setup) -> None:
    """Nothing can be put together before the manifest is there."""
    with pytest.raises(BundleError, match="not on the disk"):
        setup.delivery.manifest_bytes(setup.bundle.digest)


def test_bundle_blocks_are_what_the_helper_says(setup: Setup) -> None:
    """The test's own blocks hash to their names."""
    bundle: Bundle = setup.bundle
    assert all(digest_of(data) == sha256 for sha256, data in blocks_of(bundle).items())

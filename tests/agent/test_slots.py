"""Slots and pointer on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeopt_agent.update.slots import Slots
from edgeopt_contract.blocks import Block
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.errors import BundleError
from edgeopt_contract.manifest import Capabilities, Role
from tests.agent.conftest import blocks_of
from tests.tiny import Recipe, tiny_bundle


@pytest.fixture
def slots(tmp_path: Path, capabilities: Capabilities) -> Slots:
    """Two empty slots."""
    slots = Slots(tmp_path / "slots", capabilities)
    slots.prepare()
    return slots


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle of several blocks."""
    return tiny_bundle(tmp_path / "bundle", Recipe(padding_bytes=400_000))


def fill(slots: Slots, slot: str, bundle: Bundle, **damage: bytes) -> None:
    """Put ``bundle`` into ``slot``; ``damage`` replaces blocks."""
    blocks = blocks_of(bundle) | damage

    def read(block: Block) -> bytes:
        return blocks[block.sha256]

    slots.fill(slot, blocks[bundle.digest], read)


def test_filled_slot_holds_what_a_device_needs(slots: Slots, bundle: Bundle, tmp_path: Path) -> None:
    """Variant, golden inputs and profile are there and verified; evidence is not fetched."""
    fill(slots, "b", bundle)
    installed = slots.open("b")
    assert (bundle.digest, "fp32.onnx") == (installed.digest, installed.model.path)
    assert installed.path_with(Role.GOLDEN).exists()
    assert not (tmp_path / "slots" / "b" / "report.json").exists()
    assert slots.holds("b", bundle.digest)
    assert not slots.holds("a", bundle.digest)
    assert not slots.holds("b", "00" * 32)


def test_damaged_block_leaves_the_slot_as_it_was(slots: Slots, bundle: Bundle, tmp_path: Path) -> None:
    """A bundle is put together completely or not at all."""
    old = tiny_bundle(tmp_path / "old")
    fill(slots, "a", old)
    victim = bundle.manifest.files[0].blocks[0].sha256
    with pytest.raises(BundleError, match="damaged or missing"):
        fill(slots, "a", bundle, **{victim: b"x"})
    assert slots.holds("a", old.digest)
    assert ["a"] == [path.name for path in (tmp_path / "slots").iterdir()]


def test_one_changed_byte_in_a_slot_is_noticed(slots: Slots, bundle: Bundle, tmp_path: Path) -> None:
    """A slot whose model was changed does not hold its bundle any more."""
    fill(slots, "a", bundle)
    model = tmp_path / "slots" / "a" / "fp32.onnx"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    assert not slots.holds("a", bundle.digest)
    with pytest.raises(BundleError, match="expected SHA-256"):
        slots.open("a")


def test_pointer_moves_in_one_step(slots: Slots, tmp_path: Path) -> None:
    """The pointer is a relative link that is replaced, set again without effect, and taken away."""
    assert slots.pointed_to is None
    for slot in ("a", "b", "b"):
        slots.point_to(slot)
        assert slot == slots.pointed_to
    assert "b" == (tmp_path / "slots" / "current").readlink().name
    slots.point_to(None)
    assert slots.pointed_to is None


def test_leftovers_of_an_interrupted_run_are_removed(slots: Slots, tmp_path: Path) -> None:
    """What kill -9 left half-written disappears at the next start; slots and pointer stay."""
    root = tmp_path / "slots"
    (root / ".a.x1").mkdir()
    (root / ".a.x1" / "part").write_bytes(b"x")
    (root / ".current.tmp").symlink_to("a")
    slots.point_to("b")
    slots.prepare()
    assert ["current"] == [path.name for path in root.iterdir()]


def test_blocks_are_found_where_they_lie(slots: Slots, bundle: Bundle) -> None:
    """Each block of a slot's files can be read at its place, and gives nothing once the file is gone."""
    fill(slots, "a", bundle)
    places = slots.block_places()
    for sha256, data in blocks_of(bundle).items():
        if sha256 != bundle.digest:
            assert data == places[sha256][0].read()
    place = places[bundle.manifest.files[0].blocks[0].sha256][0]
    place.path.unlink()
    assert b"" == place.read()


def test_pointer_that_names_no_slot_is_none(slots: Slots, tmp_path: Path) -> None:
    """A pointer somebody bent is not followed."""
    (tmp_path / "slots" / "current").symlink_to("../../elsewhere")
    assert slots.pointed_to is None


def test_slot_that_was_cut_off_between_its_renames_gets_its_blocks_back(
    slots: Slots, bundle: Bundle, tmp_path: Path
) -> None:
    """The old content stands again, so that no block in it is fetched a second time, and no litter stays."""
    fill(slots, "a", bundle)
    root = tmp_path / "slots"
    (root / "a").rename(root / ".a.x1y2.old")
    (root / ".a.x1y2").mkdir()
    slots.prepare()
    assert slots.holds("a", bundle.digest)
    assert ["a"] == [path.name for path in root.iterdir()]


def test_old_slot_is_litter_once_the_new_one_stands(slots: Slots, bundle: Bundle, tmp_path: Path) -> None:
    """After both renames the new content stays and the old one goes."""
    fill(slots, "a", bundle)
    (tmp_path / "slots" / ".a.x1y2.old").mkdir()
    slots.prepare()
    assert slots.holds("a", bundle.digest)
    assert ["a"] == [path.name for path in (tmp_path / "slots").iterdir()]

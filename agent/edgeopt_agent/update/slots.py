"""Two slots on disk and a pointer that is moved by rename; and a third place for a challenger, which never serves.

::

    DATA/slots/a/  DATA/slots/b/     a bundle each: manifest.json, the variant, golden inputs, the profile
    DATA/slots/shadow/               the challenger, while there is one
    DATA/slots/current -> a          what serves; moved in one step
    DATA/slots/unsuitable.json       variants that do not run on this board, once there is one

Blocking; the caller decides on which thread. It does not decide which slot is good: the life cycle does. Example::

    slots = Slots(Path("/var/lib/edgeopt/slots"), capabilities)
    slots.fill("b", manifest_bytes, lambda block: data)
    slots.point_to("b")
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeopt_agent.update.lifecycle import SLOTS
from edgeopt_agent.update.variants import Variants
from edgeopt_contract.blocks import Block
from edgeopt_contract.bundle import MANIFEST_NAME, open_bundle, read_manifest
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError
from edgeopt_contract.manifest import Capabilities, FileEntry, Manifest, Role, Variant
from edgeopt_contract.storage import (
    durable_file,
    make_directory,
    new_directory,
    point_to,
    storage_errors,
    write_durably,
)
from edgeopt_contract.values import digest_of

__all__ = ["SHADOW", "BlockPlace", "Installed", "Slots"]

SHADOW = "shadow"
_PLACES = (*SLOTS, SHADOW)
_POINTER = "current"
_UNSUITABLE = "unsuitable.json"


@dataclass(frozen=True, slots=True)
class Installed:
    """A verified bundle in a slot, and the variant of it that this device runs."""

    directory: Path
    digest: str
    manifest: Manifest
    variant: Variant

    def path_with(self, role: Role) -> Path:
        """Return the one file with ``role``: the golden inputs or the profile."""
        return self.directory / self.manifest.file_with(role).path

    @property
    def size_bytes(self) -> int:
        """How much of the disk it takes, but for the manifest."""
        return sum(entry.size for entry in self.manifest.files_for(self.variant))

    @property
    def model(self) -> FileEntry:
        """The manifest's entry of the variant's file."""
        return next(entry for entry in self.manifest.files if entry.path == self.variant.file)


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where a block lies inside a file that is already on the device."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes; fewer, or none, when the file is no longer what it was."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError:
            return b""


class Slots:
    """The directory that holds both slots."""

    def __init__(self, root: Path, capabilities: Capabilities) -> None:
        self._root = root
        self._variants = Variants(capabilities, root / _UNSUITABLE)

    def prepare(self) -> None:
        """Make the directory and remove what an interrupted run left behind. Raises :class:`StorageError`."""
        with storage_errors(self._root):
            make_directory(self._root)
            self._put_back()
        self.tidy()

    def tidy(self) -> None:
        """Remove what could not be removed when it became litter. Raises :class:`StorageError`."""
        with storage_errors(self._root):
            for leftover in self._root.glob(".*"):
                shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()

    def _put_back(self) -> None:
        """Give a slot that was cut off between its two renames its old content again, for the blocks in it."""
        for slot in _PLACES:
            for old in self._root.glob(f".{slot}.*.old"):
                if not (self._root / slot).exists():
                    old.replace(self._root / slot)

    @property
    def pointed_to(self) -> str | None:
        """The slot that the pointer names; ``None`` before the first bundle."""
        pointer = self._root / _POINTER
        name = pointer.readlink().name if pointer.is_symlink() else ""
        return name if name in SLOTS else None

    def point_to(self, slot: str | None) -> None:
        """Move the pointer in one step; ``None`` takes it away. Raises :class:`StorageError`."""
        if slot != self.pointed_to:
            point_to(self._root / _POINTER, slot)

    def variant_for(self, digest: str, manifest: Manifest) -> Variant:
        """Return the variant of the bundle ``digest`` that this device runs. Raises :class:`BundleError`."""
        return self._variants.choose(digest, manifest)

    def exclude(self, installed: Installed, reason: str) -> bool:
        """Note that the variant of ``installed`` does not run here; say whether there is another to fetch.

        Raises :class:`StorageError`.
        """
        return self._variants.exclude(installed.digest, installed.manifest, installed.variant.name, reason)

    def open(self, slot: str) -> Installed:
        """Verify the files that this device needs of the bundle in ``slot``. Raises :class:`BundleError`."""
        manifest, data = read_manifest(self._root / slot)
        variant = self.variant_for(digest_of(data), manifest)
        bundle = open_bundle(self._root / slot, only=[entry.path for entry in manifest.files_for(variant)])
        return Installed(bundle.directory, bundle.digest, manifest, variant)

    def holds(self, slot: str, digest: str) -> bool:
        """Say whether ``slot`` holds the bundle ``digest`` with every byte that this device needs."""
        try:
            _, data = read_manifest(self._root / slot)
            return digest_of(data) == digest and self.open(slot).digest == digest
        except BundleError:
            return False

    def block_places(self) -> dict[str, list[BlockPlace]]:
        """Return where blocks lie in any slot, manifests among them, by their SHA-256; only manifests are read."""
        places: dict[str, list[BlockPlace]] = {}
        for slot in _PLACES:
            try:
                manifest, data = read_manifest(self._root / slot)
            except BundleError:
                continue  # an empty slot
            whole = BlockPlace(self._root / slot / MANIFEST_NAME, 0, len(data))
            places.setdefault(digest_of(data), []).append(whole)
            for entry in manifest.files:
                offset = 0
                for block in entry.blocks:
                    place = BlockPlace(self._root / slot / entry.path, offset, block.size)
                    places.setdefault(block.sha256, []).append(place)
                    offset += block.size
        return places

    def fill(self, slot: str, manifest_bytes: bytes, read: Callable[[Block], bytes]) -> Installed:
        """Put a bundle together in ``slot`` out of blocks that ``read`` gives, and verify it.

        Raises :class:`BundleError` when a file does not come out as the manifest says, :class:`StorageError` when the
        disk fails; either way the slot is as it was.
        """
        manifest = decode(Manifest, manifest_bytes)
        variant = self.variant_for(digest_of(manifest_bytes), manifest)
        target = self._root / slot
        with new_directory(target) as temporary, storage_errors(target):
            for entry in manifest.files_for(variant):
                _write_file(temporary / entry.path, entry, read)
            write_durably(temporary / MANIFEST_NAME, manifest_bytes)
        return self.open(slot)

    def remove(self, slot: str) -> None:
        """Leave ``slot`` empty; what cannot be removed at once is litter. Raises :class:`StorageError`."""
        place = self._root / slot
        with storage_errors(place):
            if place.exists():
                litter = self._root / f".{slot}.ended"
                shutil.rmtree(litter, ignore_errors=True)
                place.replace(litter)
                shutil.rmtree(litter, ignore_errors=True)


def _write_file(path: Path, entry: FileEntry, read: Callable[[Block], bytes]) -> None:
    """Write ``entry`` block by block, so that a large model never stands in memory as a whole."""
    whole = hashlib.sha256()
    with durable_file(path) as file:
        for block in entry.blocks:
            data = read(block)
            if digest_of(data) != block.sha256:
                raise BundleError(f"{entry.path}: the block {block.sha256[:12]} is damaged or missing")
            whole.update(data)
            file.write(data)
    if whole.hexdigest() != entry.sha256:
        raise BundleError(
            f"{entry.path}: expected SHA-256 {entry.sha256[:12]}…, its blocks give {whole.hexdigest()[:12]}…: "
            "the manifest contradicts itself; build the bundle again"
        )

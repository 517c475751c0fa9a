"""A bundle on disk: a directory with ``manifest.json`` and the files that it lists.

Writing is all or nothing; opening checks every listed byte. Example::

    bundle = write_bundle(Path("out"), contents)
    bundle = open_bundle(Path("out"))                # raises BundleError when a byte was changed
    bundle.digest, bundle.manifest.name
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt_contract.codec import decode, encode
from edgeopt_contract.errors import BundleError, MessageError
from edgeopt_contract.manifest import MANIFEST_NAME, FileEntry, Manifest, Role, TensorSpec, Variant
from edgeopt_contract.storage import new_directory, storage_errors, write_durably
from edgeopt_contract.values import check_relative_path, digest_of

__all__ = [
    "CHECKSUM_NAME",
    "MANIFEST_NAME",
    "Bundle",
    "BundleContents",
    "check_file",
    "open_bundle",
    "read_manifest",
    "write_bundle",
]

CHECKSUM_NAME = "manifest.sha256"  # the digest beside the manifest, as sha256sum writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContents:
    """What goes into a bundle; ``files`` maps a plain file name to its role and bytes."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    variants: tuple[Variant, ...]
    lineage: Mapping[str, Any]
    files: Mapping[str, tuple[Role, bytes]]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle directory whose listed files were verified."""

    directory: Path
    manifest: Manifest
    digest: str

    def path_of(self, entry: FileEntry) -> Path:
        """Return where ``entry`` lies on disk."""
        return self.directory / entry.path


def write_bundle(directory: Path, contents: BundleContents, beside: Mapping[str, bytes] | None = None) -> Bundle:
    """Write ``contents`` as a bundle; equal contents give equal bytes. Raises :class:`StorageError`.

    The digest is written beside the manifest, so that damage to the manifest itself can be found. ``beside`` are files
    for people, by plain name, that lie in the same directory without being part of the bundle: the manifest does not
    list them. Raises ``ValueError`` when one has the name of a listed file.
    """
    from edgeopt_contract.cutting import cut  # NumPy: a device opens bundles and never writes one

    loose = {check_relative_path(name): data for name, data in (beside or {}).items()}
    if taken := sorted(set(loose) & {MANIFEST_NAME, CHECKSUM_NAME, *contents.files}):
        raise ValueError(f"{taken[0]} is part of the bundle, so it cannot stand beside it")
    entries = tuple(
        FileEntry(path=path, role=role, size=len(data), sha256=digest_of(data), blocks=cut(data))
        for path, (role, data) in sorted(contents.files.items())
    )
    manifest = Manifest(
        name=contents.name,
        version=contents.version,
        inputs=contents.inputs,
        outputs=contents.outputs,
        labels=contents.labels,
        variants=contents.variants,
        files=entries,
        lineage=dict(contents.lineage),
    )
    encoded = encode(manifest)
    with new_directory(directory) as temporary, storage_errors(directory):
        for path, (_, data) in contents.files.items():
            write_durably(temporary / path, data)
        for path, data in loose.items():
            write_durably(temporary / path, data)
        write_durably(temporary / CHECKSUM_NAME, f"{digest_of(encoded)}  {MANIFEST_NAME}\n".encode())
        write_durably(temporary / MANIFEST_NAME, encoded)
    return Bundle(directory, manifest, digest_of(encoded))


def read_manifest(directory: Path) -> tuple[Manifest, bytes]:
    """Return the manifest in ``directory`` and its exact bytes. Raises :class:`BundleError`."""
    path = directory / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{directory} is not a bundle: {path.name} cannot be read ({error.strerror}); "
            "give the directory that 'edgeopt quantize -o' wrote"
        ) from error
    try:
        return decode(Manifest, data), data
    except MessageError as error:
        raise BundleError(f"{path}: {error}") from error


def open_bundle(directory: Path, only: Iterable[str] | None = None) -> Bundle:
    """Open a bundle and verify its files.

    ``only`` names the files that must be there (a device holds one variant); by default all of them.
    Raises :class:`BundleError` for a missing or changed file.
    """
    manifest, data = read_manifest(directory)
    wanted = None if only is None else set(only)
    for entry in manifest.files:
        if wanted is None or entry.path in wanted:
            _verify_file(directory / entry.path, entry)
    return Bundle(directory, manifest, digest_of(data))


def check_file(path: Path, entry: FileEntry) -> bytes:
    """Return the bytes of ``path`` if they are those of ``entry``. Raises :class:`BundleError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if digest_of(data) != entry.sha256:
        raise _damaged(path, entry, digest_of(data), len(data))
    return data


def _verify_file(path: Path, entry: FileEntry) -> None:
    """Check ``path`` piece by piece: a device has no memory for a whole model beside the one that serves."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise _unreadable(path, error) from error
    if digest != entry.sha256:
        raise _damaged(path, entry, digest, size)


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError(f"{path}: the manifest lists it, but it cannot be read ({error.strerror})")


def _damaged(path: Path, entry: FileEntry, digest: str, size: int) -> BundleError:
    return BundleError(
        f"{path}: expected SHA-256 {entry.sha256[:12]}… ({entry.size} bytes), got {digest[:12]}… ({size} bytes): "
        "the file was changed or damaged; build or fetch the bundle again"
    )

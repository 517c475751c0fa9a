"""One file of many: a tar whose last member names every other one with its SHA-256, so that nothing can be missing.

It knows nothing of what the members mean. Example::

    with new_archive(Path("fleet.backup")) as archive:
        archive.add_file("files/fleet.toml", Path("fleet/fleet.toml"))
        archive.finish({"format": 1})
    with open_archive(Path("fleet.backup")) as archive:  # UsageError unless every byte is what was written
        archive.facts, archive.names()
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from edgeopt_contract.errors import UsageError
from edgeopt_contract.storage import durable_file, storage_errors, sync_directory

__all__ = ["ArchiveReader", "ArchiveWriter", "new_archive", "open_archive"]

_CONTENTS = "contents.json"
_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)*[A-Za-z0-9_][A-Za-z0-9._-]*")  # never outside, never hidden
_LARGEST_CONTENTS = 64 * 2**20
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class ArchiveWriter:
    """Takes members, then the facts."""

    tar: tarfile.TarFile
    members: dict[str, str] = field(default_factory=dict)  # name to SHA-256

    def add_file(self, name: str, path: Path) -> None:
        """Add a file as it is now. Raises :class:`OSError`."""
        with path.open("rb") as file:
            self.add(name, file, os.fstat(file.fileno()).st_size)

    def add(self, name: str, file: BinaryIO, size: int) -> None:
        """Add ``size`` bytes that are read from ``file``."""
        assert _NAME.fullmatch(name), name
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        hashed = _Hashed(file)
        self.tar.addfile(info, hashed)
        self.members[name] = hashed.sha256.hexdigest()

    def finish(self, facts: dict[str, Any]) -> None:
        """Add the list of members and what else is to be known; an archive without it is refused."""
        data = msgspec.json.encode({"facts": facts, "members": self.members})
        info = tarfile.TarInfo(_CONTENTS)
        info.size, info.mode = len(data), 0o600
        self.tar.addfile(info, io.BytesIO(data))


@contextlib.contextmanager
def new_archive(path: Path) -> Iterator[ArchiveWriter]:
    """Give a writer of ``path`` (mode 0600), which appears once all is on the disk. Raises :class:`StorageError`."""
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        try:
            temporary.unlink(missing_ok=True)
            with durable_file(temporary, 0o600) as file, tarfile.open(fileobj=file, mode="w") as tar:
                yield ArchiveWriter(tar)
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class ArchiveReader:
    """Members that were verified."""

    tar: tarfile.TarFile
    facts: dict[str, Any]
    members: dict[str, tarfile.TarInfo]

    def names(self, beginning: str = "") -> list[str]:
        """Return the members whose names begin so."""
        return sorted(name for name in self.members if name.startswith(beginning))

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Give a member to read."""
        file = self.tar.extractfile(self.members[name])
        assert file is not None  # members are regular files
        with file:
            yield file  # type: ignore[misc]  # a buffered reader over the tar


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[ArchiveReader]:
    """Verify all of ``path``, then give it to read. Raises :class:`UsageError` naming what is wrong with it."""
    try:
        with tarfile.open(path, mode="r:") as tar:
            yield _verified(path, tar)
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist") from error
    except tarfile.TarError as error:
        raise UsageError(f"{path} is no back-up, or was cut off: {error}") from error


def _verified(path: Path, tar: tarfile.TarFile) -> ArchiveReader:
    members = {info.name: info for info in tar if info.isreg() and _NAME.fullmatch(info.name)}
    if _CONTENTS not in members or members[_CONTENTS].size > _LARGEST_CONTENTS:
        raise UsageError(f"{path} is no back-up, or was cut off: it has no list of contents")
    file = tar.extractfile(members.pop(_CONTENTS))
    assert file is not None
    try:
        contents = msgspec.json.decode(file.read(), type=dict[str, dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: its list of contents cannot be read: {error}") from error
    expected = contents.get("members", {})
    if missing := sorted(set(expected) ^ set(members)):
        raise UsageError(f"{path}: {missing[0]} is missing, or is not listed; the back-up was changed")
    for name, info in members.items():
        stored = tar.extractfile(info)
        assert stored is not None
        if _sha256(stored) != expected[name]:
            raise UsageError(f"{path}: {name} is not what was backed up; take another back-up")
    return ArchiveReader(tar, contents.get("facts", {}), members)


def _sha256(file: Any) -> str:
    whole = hashlib.sha256()
    while piece := file.read(_PIECE):
        whole.update(piece)
    return whole.hexdigest()


class _Hashed:
    """Reads a file and hashes what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self.sha256.update(piece)
        return piece

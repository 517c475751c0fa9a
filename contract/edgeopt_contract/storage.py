"""Writing to disk so that a power cut leaves either the old or the new content, never a mixture.

The order is always: write to a temporary name, fsync it, rename it over the target, fsync the directory.
An ``OSError`` leaves as :class:`StorageError` with the path and what to do. Everything that must survive a power cut
is written here, but for databases, which see to it themselves. Example::

    write_atomically(Path("state.json"), b"{}")
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgeopt_contract.errors import StorageError

__all__ = [
    "durable_file",
    "make_directory",
    "new_directory",
    "point_to",
    "storage_advice",
    "storage_errors",
    "sync_directory",
    "write_atomically",
    "write_durably",
]

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and try again",
    errno.EDQUOT: "the disk quota is used up: free some space and try again",
    errno.EROFS: "the file system is read-only: choose another place or remount it",
    errno.EACCES: "permission denied: choose another place or change its owner",
    errno.EPERM: "permission denied: choose another place or change its owner",
    errno.EIO: "the disk reports an error: look into the kernel's log (dmesg) and replace the disk or card",
}


def storage_advice(error: OSError) -> str:
    """Return what ``error`` means and what to do about it, in words."""
    return _ADVICE.get(error.errno or 0, f"{error.strerror or error}")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` raised inside into a :class:`StorageError` that names ``path`` and says what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {storage_advice(error)}") from error


def sync_directory(directory: Path) -> None:
    """Make renames and new names inside ``directory`` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make ``directory`` and those above it, if they are not there, so that a power cut does not take them."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


@contextlib.contextmanager
def durable_file(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Give a new file to write to, and fsync it at the end; the caller makes it visible by renaming its directory."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_durably(path: Path, data: bytes | memoryview, mode: int = 0o644) -> None:
    """Write a new file and fsync it; the caller makes it visible by renaming its directory."""
    with durable_file(path, mode) as file:
        file.write(data)


def point_to(link: Path, target: str | None) -> None:
    """Let the symbolic link ``link`` name ``target`` in one step; None takes it away. Raises :class:`StorageError`."""
    temporary = link.with_name(f".{link.name}.tmp")
    with storage_errors(link):
        if target is None:
            link.unlink(missing_ok=True)
        else:
            temporary.unlink(missing_ok=True)  # left over by a power cut
            temporary.symlink_to(target)
            temporary.replace(link)
        sync_directory(link.parent)


def write_atomically(path: Path, data: bytes | memoryview, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data`` in one step. Raises :class:`StorageError`; then the old content stands."""
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        try:
            temporary.unlink(missing_ok=True)  # left over by a power cut, perhaps with a wider mode
            write_durably(temporary, data, mode)
            temporary.replace(path)
            sync_directory(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Give an empty directory that becomes ``target`` on success and vanishes on any error.

    An existing ``target`` is replaced as a whole, and only at the end: it is renamed away before the new one takes its
    name. A power cut between the two renames leaves no ``target``, and both under names that begin with
    ``.<target>.``; never a mixture.
    """
    with storage_errors(target):
        make_directory(target.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with storage_errors(target):
            temporary.chmod(0o755)
        yield temporary
        with storage_errors(target):
            sync_directory(temporary)
            _replace_directory(target, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _replace_directory(target: Path, new: Path) -> None:
    """Let ``new`` take the place of ``target``; the old one stands again when that fails."""
    if not target.exists():
        new.replace(target)
        sync_directory(target.parent)
        return
    if not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    old = new.with_name(f"{new.name}.old")
    target.replace(old)
    try:
        new.replace(target)
    except OSError:
        old.replace(target)
        raise
    sync_directory(target.parent)
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)  # what cannot be removed is litter: the new content stands

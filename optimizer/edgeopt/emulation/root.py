"""A small system of another architecture: Python, NumPy and ONNX Runtime, for QEMU's user mode. Where it lies.

:mod:`edgeopt.emulation.building` makes one; here it is found and described, without network. A root holds
``root/`` (the system), ``cpus/<name>/`` (the same through links, with what that CPU's kernel would say of it) and
``edgeopt-root.json`` (this record). Roots lie in one folder, named after their architectures: the one that is given,
or ``$EDGEOPT_EMULATOR``, or ``$XDG_CACHE_HOME/edgeopt/emulator``. Example::

    root = find_root("aarch64", roots_folder())
    root.python("cortex-a72")                  # the path of its Python, None if it does not know that CPU
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeopt_contract.errors import UsageError

__all__ = ["RECORD", "VARIABLE", "Root", "RootRecord", "cache_folder", "find_root", "roots_folder"]

RECORD = "edgeopt-root.json"
VARIABLE = "EDGEOPT_EMULATOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class RootRecord:
    """What a root is made of: ``python`` is like ``3.11``; ``packages`` maps names to versions."""

    arch: str
    python: str
    packages: dict[str, str]


@dataclass(frozen=True, slots=True)
class Root:
    """A root that was found."""

    path: Path
    record: RootRecord

    def prefix(self, cpu: str) -> Path | None:
        """Return what QEMU shall take for ``/``, or ``None`` if the root does not know ``cpu``."""
        folder = self.path / "cpus" / cpu
        return folder if folder.is_dir() else None

    def python(self, cpu: str) -> Path | None:
        """Return the Python to start."""
        prefix = self.prefix(cpu)
        return None if prefix is None else prefix / "usr" / "bin" / f"python{self.record.python}"


def roots_folder(given: Path | None = None) -> Path:
    """Return where roots lie: ``given``, or what the environment says, or the cache directory."""
    if given is not None:
        return given
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    return cache_folder() / "emulator"


def cache_folder() -> Path:
    """Return edgeopt's folder in the user's cache (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "edgeopt"


def find_root(arch: str, folder: Path) -> Root | None:
    """Return the root for ``arch`` in ``folder``, if there is one. Raises :class:`UsageError` for a bad one."""
    record = folder / arch / RECORD
    if not record.is_file():
        return None
    try:
        return Root(record.parent, msgspec.json.decode(record.read_bytes(), type=RootRecord))
    except msgspec.MsgspecError as error:
        raise UsageError(f"{record} is not what 'edgeopt emulator build' writes ({error}): build it again") from error

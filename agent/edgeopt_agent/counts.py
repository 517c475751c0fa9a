"""The counts of one served bundle, in a file that outlives both processes: cumulative 64-bit integers.

The runner maps the file and adds rows, latencies and profile cells; the agent adds errors and reads. Nobody else
writes, and nothing is ever set back. So neither a runner that crashes nor an agent that is killed loses a count: the
next one finds the cells where they were. The agent does not map it: a disk that fails under a mapping kills the one who
mapped it (SIGBUS), which may happen to a runner and not to the agent. Nothing is synced: after a power cut (another
boot of the machine) the file begins again at zero. It imports no NumPy and decides nothing. In native byte order::

    int64: length of the description | description: JSON, padded to 8 bytes | int64 cells: RUNS ROWS NONFINITE ERRORS,
    the latency cells, then each feature's cells in the order of the profile

Example::

    counts = Counts.open(path, Layout(bundle=digest, variant="int8", features=(("brightness", 37),)), boot="…")
    counts.add_errors(1)
    counts.snapshot()[ROWS]
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from array import array
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeopt_contract.errors import StorageError
from edgeopt_contract.features import LATENCY_EDGES_US
from edgeopt_contract.storage import storage_errors

__all__ = ["ERRORS", "FEATURES", "LATENCY", "NONFINITE", "ROWS", "RUNS", "Counts", "Layout", "boot_id", "map_cells"]

RUNS = 0  # every run of the model, counted or not: a sign of life while a long request is worked on
ROWS = 1  # inferences that answered; the features of the last request may be counted a moment later
NONFINITE = 2  # of these, those whose outputs held NaN or infinity
ERRORS = 3  # inferences that got no answer; the agent's
LATENCY = 4  # where the latency cells begin
FEATURES = LATENCY + len(LATENCY_EDGES_US) + 1  # where the features' cells begin

_WORD = 8
_MAX_DESCRIPTION_BYTES = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Whose counts these are, and the name and number of cells of each feature of its profile."""

    bundle: str
    variant: str
    features: tuple[tuple[str, int], ...]

    @property
    def cells(self) -> int:
        """How many cells there are in all."""
        return FEATURES + sum(cells for _, cells in self.features)


class _Description(msgspec.Struct, frozen=True):
    layout: Layout
    boot: str
    epoch: str  # drawn when the file is made: tells it from an earlier file of the same name
    made: int  # seconds since 1970


class Counts:
    """The file as the agent sees it."""

    def __init__(self, path: Path, description: _Description, offset: int) -> None:
        self.path = path
        self.layout = description.layout
        self.boot = description.boot
        self.epoch = description.epoch
        self.made = description.made
        self._offset = offset
        with storage_errors(path):
            self._file = path.open("r+b", buffering=0)
        self._errors = self._read()[ERRORS]

    @classmethod
    def open(cls, path: Path, layout: Layout, boot: str) -> Counts:
        """Take up the counts in ``path``; begin again at zero when they are not those of ``layout`` and this boot.

        Raises :class:`StorageError`.
        """
        try:
            found = cls.look_into(path)
        except StorageError:
            found = None  # none yet, or damaged
        if found is not None:
            if (found.layout, found.boot) == (layout, boot):
                return found
            found.close()
        description = msgspec.json.encode(_Description(layout, boot, os.urandom(8).hex(), int(time.time())))
        padded = description.ljust(-(-len(description) // _WORD) * _WORD)
        temporary = path.with_name(f".{path.name}.tmp")
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(len(padded).to_bytes(_WORD, sys.byteorder) + padded + bytes(_WORD * layout.cells))
            temporary.replace(path)
        return cls.look_into(path)

    @classmethod
    def look_into(cls, path: Path) -> Counts:
        """Open the counts that lie in ``path``, whatever they count. Raises :class:`StorageError`."""
        description, offset = _describe(path)
        return cls(path, description, offset)

    def add_errors(self, count: int) -> None:
        """Count inferences that got no answer. Raises :class:`StorageError`; then they are counted until the end."""
        self._errors += count
        with storage_errors(self.path):
            os.pwrite(self._file.fileno(), array("q", [self._errors]).tobytes(), self._offset + _WORD * ERRORS)

    def snapshot(self) -> array[int]:
        """Return all cells as they are now. Raises :class:`StorageError`.

        In the middle of a request that may be a part of it; the rest is in the next snapshot.
        """
        cells = self._read()
        cells[ERRORS] = self._errors
        return cells

    def cell(self, index: int) -> int:
        """Return one cell as it is now. Raises :class:`StorageError`."""
        with storage_errors(self.path):
            data = os.pread(self._file.fileno(), _WORD, self._offset + _WORD * index)
        return int.from_bytes(data, sys.byteorder)

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def _read(self) -> array[int]:
        cells = array("q")
        with storage_errors(self.path):
            cells.frombytes(os.pread(self._file.fileno(), _WORD * self.layout.cells, self._offset))
        return cells


def map_cells(path: Path) -> memoryview:
    """Map the cells in ``path`` as the runner does. Raises :class:`StorageError`."""
    _, offset = _describe(path)
    with storage_errors(path), path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    return memoryview(mapped)[offset:].cast("q")


def boot_id(path: Path = _BOOT_ID) -> str:
    """Return the kernel's id of this boot; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _describe(path: Path) -> tuple[_Description, int]:
    """Return the description of the counts in ``path`` and where the cells begin."""
    with storage_errors(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_WORD), sys.byteorder)
        text = file.read(min(length, _MAX_DESCRIPTION_BYTES))
    try:
        description = msgspec.json.decode(text, type=_Description)
    except msgspec.MsgspecError as error:
        raise StorageError(f"{path}: expected counts, got something else ({error}); remove it") from error
    if size != _WORD + length + _WORD * description.layout.cells:
        raise StorageError(f"{path}: expected {description.layout.cells} cells, the file has another length; remove it")
    return description, _WORD + length

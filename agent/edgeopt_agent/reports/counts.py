"""The counts of one served bundle, in a file that outlives both processes: cumulative 64-bit integers.

The runner maps the file and adds rows, latencies and profile cells; the agent adds errors and reads. Nobody else
writes, and nothing is ever set back. So neither a runner that crashes nor an agent that is killed loses a count: the
next one finds the cells where they were. The agent does not map it: a disk that fails under a mapping kills the one who
mapped it (SIGBUS), which may happen to a runner and not to the agent. Nothing is synced: after a power cut (another
boot of the machine) the file begins again at zero. Where the disk refuses the file, the same bytes lie in anonymous
memory, which ends with the agent. It imports no NumPy and decides nothing. In native byte order::

    int64: length of the description | description: JSON, padded to 8 bytes | int64 cells: RUNS ROWS NONFINITE ERRORS,
    the latency cells, then each feature's cells in the order of the profile

Example::

    counts = Counts.open(path, Layout(bundle=digest, variant="int8", features=(("brightness", 37),)), boot="…")
    counts.add_errors(1)
    counts.snapshot()[ROWS]
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import time
from array import array
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import msgspec

from edgeopt_contract.errors import StorageError
from edgeopt_contract.features import LATENCY_EDGES_US
from edgeopt_contract.storage import storage_errors

__all__ = [
    "ERRORS",
    "FEATURES",
    "LATENCY",
    "NONFINITE",
    "ROWS",
    "RUNS",
    "Counts",
    "DamagedCountsError",
    "Layout",
    "boot_id",
    "map_cells",
]

RUNS = 0  # every run of the model, counted or not: a sign of life while a long request is worked on
ROWS = 1  # inferences that answered; the features of the last request may be counted a moment later
NONFINITE = 2  # of these, those whose outputs held NaN or infinity
ERRORS = 3  # inferences that got no answer; the agent's
LATENCY = 4  # where the latency cells begin
FEATURES = LATENCY + len(LATENCY_EDGES_US) + 1  # where the features' cells begin

_WORD = 8
_MAX_DESCRIPTION_BYTES = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class DamagedCountsError(StorageError):
    """The file could be read, and holds no counts: nothing is lost when it is removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Whose counts these are, and the name and number of cells of each feature; ``shadow`` is the job of a shadow."""

    bundle: str
    variant: str
    features: tuple[tuple[str, int], ...]
    shadow: str = ""

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
    """The file as the agent sees it. ``path`` names it, also in memory; ``mapped`` is where a runner finds it."""

    def __init__(self, path: Path, description: _Description, offset: int, memory: FileIO | None = None) -> None:
        self.path = path
        self.layout = description.layout
        self.boot = description.boot
        self.epoch = description.epoch
        self.made = description.made
        self.gauges: dict[str, float] = {}  # what was measured of this bundle; not kept
        self.notes: dict[str, str] = {}  # what its windows say besides; not kept
        self._offset = offset
        with storage_errors(path):
            self._file = memory or path.open("r+b", buffering=0)
        self.mapped = _place_of(memory) if memory else path
        self._own = {ERRORS: self._read()[ERRORS]}  # cells that the agent adds to, and no runner

    @classmethod
    def open(cls, path: Path, layout: Layout, boot: str) -> Counts:
        """Take up the counts in ``path``; begin again at zero when they are not those of ``layout`` and this boot.

        Raises :class:`StorageError`; what lies there and cannot be read now stays.
        """
        try:
            found = cls.look_into(path) if path.exists() else None
        except DamagedCountsError:
            found = None
        if found is not None:
            if (found.layout, found.boot) == (layout, boot):
                return found
            found.close()
        _, content = _begin(layout, boot)
        temporary = path.with_name(f".{path.name}.tmp")
        with storage_errors(path):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(content)
                temporary.replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise
        return cls.look_into(path)

    @classmethod
    def in_memory(cls, path: Path, layout: Layout, boot: str) -> Counts:
        """Begin at zero where no disk can refuse, under a name of its own made from ``path``.

        Raises :class:`StorageError`.
        """
        description, content = _begin(layout, boot)
        with storage_errors(path):
            memory = _memory_with(content)
        name = f"{path.name}.{description.epoch}"
        return cls(path.with_name(name), description, len(content) - _WORD * layout.cells, memory)

    @classmethod
    def look_into(cls, path: Path) -> Counts:
        """Open the counts that lie in ``path``, whatever they count. Raises :class:`StorageError`."""
        description, offset = _describe(path)
        return cls(path, description, offset)

    def add_errors(self, count: int) -> None:
        """Count inferences that got no answer. Raises as :meth:`add`."""
        self.add(ERRORS, count)

    def add(self, index: int, count: int) -> None:
        """Add to a cell that no runner adds to. Raises :class:`StorageError`; then it is counted until the end."""
        if index not in self._own:
            self._own[index] = self.cell(index)
        self._own[index] += count
        with storage_errors(self.path):
            os.pwrite(self._file.fileno(), array("q", [self._own[index]]).tobytes(), self._offset + _WORD * index)

    def snapshot(self) -> array[int]:
        """Return all cells as they are now. Raises :class:`StorageError`.

        In the middle of a request that may be a part of it; the rest is in the next snapshot.
        """
        cells = self._read()
        for index, count in list(self._own.items()):  # at once: another thread may add one
            cells[index] = count
        return cells

    def cell(self, index: int) -> int:
        """Return one cell as it is now. Raises :class:`StorageError`."""
        with storage_errors(self.path):
            data = os.pread(self._file.fileno(), _WORD, self._offset + _WORD * index)
        return int.from_bytes(data, sys.byteorder)

    @property
    def is_in_memory(self) -> bool:
        """Whether these counts end with the agent."""
        return self.mapped != self.path

    def move_to_memory(self) -> None:
        """Take the counts off a disk that refuses them to the runner; nobody may be counting. They stay what they are.

        Raises :class:`StorageError`; then they stay where they are.
        """
        with storage_errors(self.path):
            size = self._offset + _WORD * self.layout.cells
            memory = _memory_with(os.pread(self._file.fileno(), size, 0))
            try:
                self.path.unlink(missing_ok=True)  # or the next start would tell it again
            except OSError:
                memory.close()
                raise
        left, self._file = self._file, memory  # in this order: another thread may read in between
        self.mapped = _place_of(memory)
        left.close()

    def close(self) -> None:
        """Close the file; it stays, unless it is in memory."""
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


def _begin(layout: Layout, boot: str) -> tuple[_Description, bytes]:
    """Return the description of new counts, and the bytes of the whole file."""
    description = _Description(layout, boot, os.urandom(8).hex(), int(time.time()))
    text = msgspec.json.encode(description)
    padded = text.ljust(-(-len(text) // _WORD) * _WORD)
    return description, len(padded).to_bytes(_WORD, sys.byteorder) + padded + bytes(_WORD * layout.cells)


def _memory_with(content: bytes) -> FileIO:
    """Return an anonymous file that holds ``content``. Raises ``OSError``."""
    memory = FileIO(os.memfd_create("edgeopt-counts"), "r+")
    memory.write(content)
    return memory


def _place_of(memory: FileIO) -> Path:
    """Return where a child of this process finds the anonymous file."""
    return Path(f"/proc/{os.getpid()}/fd/{memory.fileno()}")


def _describe(path: Path) -> tuple[_Description, int]:
    """Return the description of the counts in ``path`` and where the cells begin."""
    with storage_errors(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_WORD), sys.byteorder)
        text = file.read(min(length, _MAX_DESCRIPTION_BYTES))
    try:
        description = msgspec.json.decode(text, type=_Description)
    except msgspec.MsgspecError as error:
        raise DamagedCountsError(f"{path}: expected counts, got something else ({error}); remove it") from error
    if size != _WORD + length + _WORD * description.layout.cells:
        expected = f"expected {description.layout.cells} cells"
        raise DamagedCountsError(f"{path}: {expected}, the file has another length; remove it")
    return description, _WORD + length

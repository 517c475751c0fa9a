"""The journal of a search: every answer, on disk before the search goes on, so that a killed search resumes.

The first line names what is searched for (a digest of everything that decides); a journal of something else is refused
as stale and begun anew. A last line that a kill or power cut tore is dropped. Example::

    journal = Journal.open(directory / "journal.jsonl", fingerprint)
    journal.recorded            # what an earlier run found, in order
    journal.append(request, answer)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeopt.search.requests import Answer, Request
from edgeopt_contract.storage import storage_errors, sync_directory, write_atomically

__all__ = ["Entry", "Journal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line: what was asked, what came, and how many seconds of the budget were spent up to then."""

    request: Request
    answer: Answer
    spent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    fingerprint: str


class Journal:
    """Lines of JSON that only grow; each is synced before :meth:`append` returns."""

    def __init__(self, path: Path, recorded: tuple[Entry, ...]) -> None:
        self._path = path
        self.recorded = recorded

    @classmethod
    def open(cls, path: Path, fingerprint: str) -> Journal:
        """Open or begin the journal at ``path``. Raises :class:`StorageError`."""
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_bytes().split(b"\n") if path.exists() else []
            recorded, good = _read(lines, fingerprint)
            if good == 0:
                good_bytes = msgspec.json.encode(_Head(fingerprint=fingerprint)) + b"\n"
                path.write_bytes(good_bytes)
            else:
                os.truncate(path, good)
            _sync(path)
        return cls(path, recorded)

    def keep(self, entries: Sequence[Entry]) -> None:
        """Drop all lines but those of ``entries``: the search took another way. Raises :class:`StorageError`."""
        head = self._path.read_bytes().split(b"\n", 1)[0]
        lines = [head, *(msgspec.json.encode(entry) for entry in entries)]
        write_atomically(self._path, b"\n".join(lines) + b"\n")

    def append(self, entry: Entry) -> None:
        """Add a line that survives a power cut. Raises :class:`StorageError`."""
        with storage_errors(self._path), self._path.open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _read(lines: list[bytes], fingerprint: str) -> tuple[tuple[Entry, ...], int]:
    """Return the entries of whole lines and how many bytes they and the head take; nothing for another search."""
    if len(lines) < 2 or lines[0] != msgspec.json.encode(_Head(fingerprint=fingerprint)):
        return (), 0
    entries: list[Entry] = []
    good = len(lines[0]) + 1
    for line in lines[1:-1]:
        try:
            entries.append(msgspec.json.decode(line, type=Entry))
        except msgspec.MsgspecError:
            break
        good += len(line) + 1
    return tuple(entries), good


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)

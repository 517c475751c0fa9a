"""The audit log as a chain: each entry holds the SHA-256 of the one before and of its own canonical JSON.

An export is one line of canonical JSON an entry, and a last line that says how many there are and where the chain ends.
So a byte that was changed, a line that is missing and lines that changed places are all found by whoever has the file.
Who can write the whole log could write another one from the beginning; a head that was noted elsewhere finds that. What
it does not do: no I/O, no clock. Example::

    text = b"".join(export_lines([first, second]))
    verify_export(text.splitlines(keepends=True))     # Head(entries=2, sha256='…')
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgeopt_contract.errors import ContractError
from edgeopt_contract.values import canonical_json, digest_of

__all__ = ["NOTHING", "BrokenChainError", "Chain", "Entry", "Head", "digest_of_state", "export_lines", "verify_export"]

NOTHING = "0" * 64  # what the first entry follows
_MAX_LINE_BYTES = 64 * 1024


class BrokenChainError(ContractError):
    """An audit log of which something was changed, taken out or moved; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Who did what to which thing, and when; ``before`` and ``after`` are digests of the thing's state, or empty.

    ``at`` counts milliseconds since 1970 on the server's clock, ``number`` 1, 2, 3, … without gaps.
    """

    number: int
    at: int
    actor: str
    via: str
    operation: str
    subject: str
    previous: str
    before: str = ""
    after: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """What the next entry holds of this one."""
        return digest_of(canonical_json(dataclasses.asdict(self)))


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain."""

    entries: int
    sha256: str


@dataclass(slots=True)
class Chain:
    """A chain that is read from its beginning, entry by entry."""

    entries: int = 0
    sha256: str = NOTHING

    def follow(self, entry: Entry, sha256: str) -> None:
        """Take the next entry with the hash that stands beside it. Raises :class:`BrokenChainError`."""
        number = self.entries + 1
        if entry.number != number:
            raise BrokenChainError(f"expected audit entry {number}, got {entry.number}: one is missing, or was moved")
        if entry.previous != self.sha256:
            raise BrokenChainError(f"audit entry {number} does not follow the one before it: either was changed")
        if entry.sha256 != sha256:
            raise BrokenChainError(f"audit entry {number} is not what its SHA-256 says: it was changed")
        self.entries, self.sha256 = number, sha256

    @property
    def head(self) -> Head:
        """Where the chain ends now."""
        return Head(self.entries, self.sha256)


@dataclass(frozen=True, slots=True)
class _Line:
    entry: Entry
    sha256: str


@dataclass(frozen=True, slots=True)
class _End:
    head: Head


def digest_of_state(state: Mapping[str, Any] | None) -> str:
    """Return the SHA-256 of a thing's state; empty when there is no such thing."""
    return "" if state is None else digest_of(canonical_json(state))


def export_lines(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Give the lines of an export, from the first entry on."""
    head = Head(0, NOTHING)
    for entry in entries:
        head = Head(entry.number, entry.sha256)
        yield canonical_json(_Line(entry, head.sha256)) + b"\n"
    yield canonical_json(_End(head)) + b"\n"


def verify_export(lines: Iterable[bytes], noted: str = "") -> Head:
    """Return where the chain in an export ends.

    ``noted`` is a head (SHA-256) that somebody kept from an earlier export: the log must still contain it. Raises
    :class:`BrokenChainError`, naming the first line that is not as it was written.
    """
    chain, end, found = Chain(), None, noted in ("", NOTHING)
    for number, line in enumerate(lines, 1):
        if end is not None:
            raise BrokenChainError(f"line {number}: something follows the end of the audit log")
        record = _read(number, line)
        if isinstance(record, _End):
            end = record.head
            continue
        chain.follow(record.entry, record.sha256)
        found = found or record.sha256 == noted
    if end is None:
        raise BrokenChainError("the last line of the audit log is missing: it was cut off")
    if end != chain.head:
        raise BrokenChainError(f"expected {end.entries} audit entries, got {chain.entries}: the last ones are missing")
    if not found:
        raise BrokenChainError(f"the log does not contain the head {noted[:64]!r}: it is another one than was noted")
    return chain.head


def _read(number: int, line: bytes) -> _Line | _End:
    """Return what a line holds, if it is byte for byte what was written."""
    kind: type[_Line | _End] = _Line if line.startswith(b'{"entry":') else _End
    try:
        record = msgspec.json.decode(line[:_MAX_LINE_BYTES], type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenChainError(f"line {number}: expected an audit entry as it was exported: {error}") from error
    if canonical_json(record) + b"\n" != line:
        raise BrokenChainError(f"line {number} is not byte for byte what was exported: it was changed")
    return record

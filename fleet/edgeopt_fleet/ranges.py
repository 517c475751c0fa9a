"""Which bytes of a file a request asks for: the header ``Range`` of RFC 9110, section 14. Pure.

One range is enough for a download that goes on where it stopped; a request for several is answered with the whole, as
the RFC allows. Example::

    >>> wanted_bytes("bytes=10-19", size=100)
    ByteRange(first=10, last=19, size=100)
    >>> wanted_bytes(None, size=100) is None                 # no Range: the whole file
    True
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ByteRange", "UnsatisfiableRangeError", "wanted_bytes"]

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class UnsatisfiableRangeError(ValueError):
    """The range lies wholly outside of the file (HTTP 416)."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from ``first`` to ``last``, both included, of a file of ``size``."""

    first: int
    last: int
    size: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last < self.size:
            raise UnsatisfiableRangeError(f"expected a range within {self.size} bytes, got {self.first}-{self.last}")

    def __str__(self) -> str:
        """The value of ``Content-Range``."""
        return f"bytes {self.first}-{self.last}/{self.size}"

    def __len__(self) -> int:
        return self.last - self.first + 1


def wanted_bytes(header: str | None, size: int) -> ByteRange | None:
    """Return the range that ``header`` asks for, or ``None`` for the whole file: no header, or one to be ignored.

    Raises :class:`UnsatisfiableRangeError`.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":  # the last so many bytes
        return ByteRange(max(0, size - int(match[2])), size - 1, size)
    first = int(match[1])
    last = min(int(match[2]), size - 1) if match[2] else size - 1
    if match[2] and int(match[2]) < first:
        return None  # not a range at all, so it is ignored
    return ByteRange(first, last, size)

"""Small values that every part of the contract uses: identities and canonical JSON.

What it does not do: no I/O. Example::

    >>> digest_of(canonical_json({"b": 1, "a": 2}))[:8]
    'd3626ac3'
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

__all__ = ["canonical_json", "check_device_id", "check_digest", "check_relative_path", "digest_of"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DEVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


def canonical_json(value: Any) -> bytes:
    """Encode ``value`` so that equal values give equal bytes: sorted keys, no white space, UTF-8."""
    return msgspec.json.encode(value, order="sorted")


def digest_of(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def check_digest(value: str) -> str:
    """Return ``value`` when it is a SHA-256 in lower-case hex; raise ``ValueError`` otherwise."""
    if not _DIGEST.fullmatch(value):
        raise ValueError(f"expected a SHA-256 of 64 lower-case hex digits, got {value[:80]!r}")
    return value


def check_device_id(value: str) -> str:
    """Return ``value`` when it may be a device id, an MQTT user name and one topic level at once."""
    if not _DEVICE_ID.fullmatch(value):
        raise ValueError(f"expected a device id of 1-64 letters, digits, '_' or '-', got {value[:80]!r}")
    return value


def check_relative_path(value: str) -> str:
    """Return ``value`` when it is a plain file name: no folder, no '..', no leading dot."""
    if not _PATH.fullmatch(value):
        raise ValueError(f"expected a plain file name inside the bundle, got {value[:80]!r}")
    return value

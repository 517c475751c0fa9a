"""Strict decoding of versioned records: unknown fields are kept, unknown versions and oversized input refused.

What JSON cannot carry between all programs is refused on both sides: NaN and infinity (they would become ``null``),
integers beyond 2**53 - 1 (RFC 8259 section 6; SQLite and JavaScript lose them) and nesting deeper than 32 levels.
Unknown fields are kept at the top level of a record only.

Every record is a frozen dataclass with two special fields: ``schema`` (an int that names the version) and
``extra`` (a dict that holds fields this version does not know, so that a relay loses nothing). Example::

    >>> ack = decode(Ack, b'{"schema": 1, "session": 7, "upto": 3, "beyond": [], "hint": "x"}')
    >>> ack.upto, ack.extra
    (3, {'hint': 'x'})
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from edgeopt_contract.errors import MessageError
from edgeopt_contract.values import canonical_json

__all__ = ["Record", "decode", "encode", "to_builtins"]


_GREATEST_INTEGER = 2**53 - 1
_MAX_DEPTH = 32


class Record(Protocol):
    """What :func:`decode` and :func:`encode` need to know of a record type."""

    SCHEMA: ClassVar[int]
    MAX_BYTES: ClassVar[int]
    __dataclass_fields__: ClassVar[dict[str, Any]]


R = TypeVar("R", bound=Record)


def encode(record: Record) -> bytes:
    """Encode ``record`` as canonical JSON, with the fields it was given but does not know.

    Raises :class:`MessageError` for what :func:`decode` would refuse on the other side.
    """
    kind = type(record)
    plain = to_builtins(record)
    _check_values(kind.__name__, plain)
    payload = canonical_json(plain)
    _check_size(kind, payload)
    return payload


def to_builtins(record: Record) -> dict[str, Any]:
    """Return ``record`` as plain dicts, tuples and scalars, as it stands in JSON."""
    plain: dict[str, Any] = msgspec.to_builtins(record)
    extra = plain.pop("extra")
    return {**extra, **plain, "schema": type(record).SCHEMA}


def decode(kind: type[R], payload: bytes | memoryview) -> R:
    """Decode ``payload`` into ``kind``. Raises :class:`MessageError`, which names the field that is wrong."""
    name = kind.__name__
    _check_size(kind, payload)
    try:
        raw = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"{name}: not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise MessageError(f"{name}: expected a JSON object, got {type(raw).__name__}")
    _check_values(name, raw)
    version = raw.pop("schema", None)
    if type(version) is not int or version != kind.SCHEMA:
        raise MessageError(f"{name}: expected schema {kind.SCHEMA}, got {version!r}; update the older program")
    known = {field.name for field in dataclasses.fields(kind)} - {"extra"}
    fields = {key: value for key, value in raw.items() if key in known}
    extra = {key: value for key, value in raw.items() if key not in known}
    try:
        return msgspec.convert({**fields, "extra": extra}, kind, strict=True)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise MessageError(f"{name}: {error}") from error


def _check_size(kind: type[Record], payload: bytes | memoryview) -> None:
    if len(payload) > kind.MAX_BYTES:
        raise MessageError(f"{kind.__name__}: expected at most {kind.MAX_BYTES} bytes, got {len(payload)}")


def _check_values(where: str, value: Any, depth: int = 0) -> None:
    """Raise :class:`MessageError` for a number or a depth that not every program can hold."""
    if depth > _MAX_DEPTH:
        raise MessageError(f"{where[:120]}: expected at most {_MAX_DEPTH} levels of nesting")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_values(f"{where}.{key}", item, depth + 1)
    elif isinstance(value, list | tuple):
        counts = bool(value) and set(map(type, value)) == {int}  # a window holds thousands: their ends say it all
        for item in (min(value), max(value)) if counts else value:
            _check_values(where, item, depth + 1)
    elif isinstance(value, int) and abs(value) > _GREATEST_INTEGER:
        raise MessageError(
            f"{where[:120]}: expected an integer of at most 2**53 - 1, got one of {value.bit_length()} bits"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        raise MessageError(f"{where[:120]}: expected a finite number, got {value}")

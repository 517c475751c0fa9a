"""Evidence as canonical bytes: records of arrays packed, and read again.

Pure. Equal records give equal bytes before they are compressed; arrays are little-endian. Example::

    stored = pack(1, evidence)
    wave, waves, *rest = unpack(1, stored)
"""

from __future__ import annotations

import zlib
from dataclasses import fields, is_dataclass
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edgeopt_contract.errors import MessageError

__all__ = ["columns", "freeze", "pack", "unpack"]

_MOST_BYTES = 256 * 1024 * 1024  # of evidence when unpacked: some 2 million devices
_STORED = {np.dtype(kind).str for kind in ("<i4", "<i8", "<f4", "|b1")}


def pack(version: int, record: Any) -> bytes:
    """Return the fields of the dataclass ``record`` as bytes."""
    return zlib.compress(msgspec.msgpack.encode([version, _plain(record)]), 6)


def unpack(version: int, stored: bytes) -> list[Any]:
    """Return the fields that were packed, plain. Raises :class:`MessageError` when ``stored`` is not that."""
    try:
        unpacker = zlib.decompressobj()
        found, values = msgspec.msgpack.decode(unpacker.decompress(stored, _MOST_BYTES))
    except (ValueError, TypeError, zlib.error, msgspec.MsgspecError) as error:
        raise MessageError(f"stored evidence cannot be read: {error}") from error
    if found != version or not unpacker.eof or not isinstance(values, list):
        raise MessageError(f"stored evidence: expected format {version}, whole, got {found!r}; update this program")
    return values


def columns(kind: type, values: list[Any]) -> dict[str, Any]:
    """Return the arrays among a record's stored fields; names and devices are no arrays."""
    stored = zip((field.name for field in fields(kind)), values, strict=True)
    return {name: _array(value) for name, value in stored if name not in ("names", "devices")}


def freeze(record: Any, shapes: dict[str, tuple[Any, tuple[int, ...]]]) -> None:
    """Give each column its type, as a copy that nobody writes to. Raises ``ValueError`` for another shape."""
    for name, (kind, shape) in shapes.items():
        array = np.array(getattr(record, name), dtype=kind)
        if array.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
        array.setflags(write=False)
        object.__setattr__(record, name, array)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        return [little.dtype.str, list(value.shape), little.tobytes()]
    if is_dataclass(value):
        return [_plain(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def _array(value: list[Any]) -> npt.NDArray[Any]:
    kind, shape, data = value
    if kind not in _STORED:
        raise ValueError(f"an array of {kind!r}")
    return np.frombuffer(data, dtype=kind).reshape(shape)

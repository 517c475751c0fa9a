"""Numbers to raw bytes and back, by the names of the Open Inference Protocol, without NumPy. Pure.

Raw bytes are little-endian, as in the protocol and on every machine that edgeopt knows (x86, ARM). Example::

    bytes_of("FP32", [0.5, 1.0])
    numbers_of("FP16", data)             # (0.5, 1.0)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

__all__ = ["BYTES_PER_NUMBER", "bytes_of", "numbers_of"]

_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_BF16 = "BF16"
BYTES_PER_NUMBER = {_BF16: 2} | {name: struct.calcsize(f"<{code}") for name, code in _FORMATS.items()}


def bytes_of(datatype: str, numbers: Sequence[float]) -> bytes:
    """Return the raw bytes of ``numbers``. Raises ``ValueError`` for one that ``datatype`` cannot hold."""
    try:
        if datatype == _BF16:
            return _rounded_to_bfloat16(struct.pack(f"<{len(numbers)}f", *numbers))
        return struct.pack(f"<{len(numbers)}{_FORMATS[datatype]}", *numbers)
    except (struct.error, OverflowError) as error:
        raise ValueError(str(error)) from error


def numbers_of(datatype: str, data: bytes | bytearray | memoryview) -> tuple[float, ...]:
    """Return the numbers in ``data``. Raises ``ValueError`` when its length does not fit."""
    count, rest = divmod(len(data), BYTES_PER_NUMBER[datatype])
    if rest:
        raise ValueError(f"expected a multiple of {BYTES_PER_NUMBER[datatype]} bytes, got {len(data)}")
    if datatype == _BF16:  # the upper half of a float32
        wide = bytearray(4 * count)
        wide[2::4], wide[3::4] = bytes(data[0::2]), bytes(data[1::2])
        return struct.unpack(f"<{count}f", wide)
    return struct.unpack(f"<{count}{_FORMATS[datatype]}", data)


def _rounded_to_bfloat16(wide: bytes) -> bytes:
    """Return the upper halves of float32 values, rounded to nearest, ties to even."""
    words = struct.unpack(f"<{len(wide) // 4}I", wide)
    return struct.pack(f"<{len(words)}H", *((word + 0x7FFF + ((word >> 16) & 1)) >> 16 for word in words))

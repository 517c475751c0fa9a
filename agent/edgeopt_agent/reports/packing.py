"""Windows in few bytes, and what several of them come to together. Pure.

A window of 64 features has some 2,400 counts, most of them of two bytes: as JSON 10 KB, here 2-4. The counts are split
into planes (all lowest bytes, then all second bytes …), of which deflate takes the upper ones away; what all windows of
a bundle share (names, numbers of cells) stands once, in the layout. In the machine's byte order, for a spool never
leaves its machine. Example::

    packed = pack(telemetry)
    whole = merge([packed, later])              # counts added up; from the first start to the last end
    unpack(whole, session=7, number=12)         # a Telemetry
"""

from __future__ import annotations

import operator
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeopt_contract.errors import MessageError
from edgeopt_contract.messages import Telemetry

__all__ = ["Packed", "merge", "pack", "unpack"]

_WORD = 8
_LEVEL = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One window. ``layout`` is equal for windows whose counts may be added up; ``content`` is the rest."""

    layout: bytes
    start: int
    end: int
    rows: int
    errors: int
    content: bytes


class _Layout(msgspec.Struct, frozen=True, array_like=True):
    bundle: str
    variant: str
    features: tuple[tuple[str, int], ...]
    latency: int


class _Content(msgspec.Struct, frozen=True, array_like=True):
    gauges: dict[str, float]
    extra: dict[str, Any]
    counts: bytes


def pack(window: Telemetry) -> Packed:
    """Return ``window`` without its session and number."""
    features = tuple((name, len(cells)) for name, cells in window.cells.items())
    layout = _Layout(window.bundle, window.variant, features, len(window.latency))
    counts = array("q", window.latency)
    for cells in window.cells.values():
        counts.extend(cells)
    return Packed(
        layout=msgspec.msgpack.encode(layout),
        start=window.start,
        end=window.end,
        rows=window.rows,
        errors=window.errors,
        content=msgspec.msgpack.encode(_Content(window.infrastructure, window.extra, _squeeze(counts))),
    )


def unpack(packed: Packed, *, session: int, number: int) -> Telemetry:
    """Return the window as a numbered message. Raises :class:`MessageError` for what :func:`pack` did not make."""
    layout, content, counts = _read(packed)
    cells, offset = {}, layout.latency
    for name, size in layout.features:
        cells[name] = tuple(counts[offset : offset + size])
        offset += size
    return Telemetry(
        session=session,
        number=number,
        bundle=layout.bundle,
        variant=layout.variant,
        start=packed.start,
        end=packed.end,
        rows=packed.rows,
        errors=packed.errors,
        cells=cells,
        latency=tuple(counts[: layout.latency]),
        infrastructure=content.gauges,
        extra=content.extra,
    )


def merge(windows: Sequence[Packed]) -> Packed:
    """Return one window with the counts of all, which are of one layout; its gauges are those of the last one.

    Raises :class:`MessageError` for what :func:`pack` did not make.
    """
    read = [_read(window) for window in windows]
    total = read[0][2]
    for _, _, counts in read[1:]:
        total = array("q", map(operator.add, total, counts))
    last = read[-1][1]
    return Packed(
        layout=windows[0].layout,
        start=min(window.start for window in windows),
        end=max(window.end for window in windows),
        rows=sum(window.rows for window in windows),
        errors=sum(window.errors for window in windows),
        content=msgspec.msgpack.encode(_Content(last.gauges, last.extra, _squeeze(total))),
    )


def _read(packed: Packed) -> tuple[_Layout, _Content, array[int]]:
    try:
        layout = msgspec.msgpack.decode(packed.layout, type=_Layout)
        content = msgspec.msgpack.decode(packed.content, type=_Content)
        return layout, content, _unsqueeze(content.counts)
    except (msgspec.MsgspecError, zlib.error, ValueError) as error:
        raise MessageError(f"a window of the spool cannot be read: {error}") from error


def _squeeze(counts: array[int]) -> bytes:
    raw = counts.tobytes()
    return zlib.compress(b"".join(raw[plane::_WORD] for plane in range(_WORD)), _LEVEL)


def _unsqueeze(data: bytes) -> array[int]:
    planes = zlib.decompress(data)
    size = len(planes) // _WORD
    raw = bytearray(len(planes))
    for plane in range(_WORD):
        raw[plane::_WORD] = planes[plane * size : (plane + 1) * size]
    return array("q", bytes(raw))

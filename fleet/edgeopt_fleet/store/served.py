"""What each device served on each bundle, added up a batch at a time, laid out by :mod:`edgeopt_fleet.totals`.

Within somebody's transaction. Example::

    blobs = add_served(session, [("cam-7", window)], {window.bundle: layout})    # the window's counts, for its row
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from sqlmodel import Session

from edgeopt_contract.messages import Telemetry
from edgeopt_fleet.decoding import Window
from edgeopt_fleet.narrow import narrow
from edgeopt_fleet.store.bulk import fetch_rows, insert_rows, update_rows
from edgeopt_fleet.store.tables import ServedRow
from edgeopt_fleet.totals import LARGEST_COUNT, LATENCY_CELLS, Layout

__all__ = ["add_served"]

Counts = npt.NDArray[np.int64]
_KEY = ("device", "bundle")
_SUMS = ("windows", "rows", "errors")
_GREATEST_SUM = 2**62  # as in books


def add_served(
    session: Session, windows: Sequence[tuple[str, Telemetry | Window]], layouts: Mapping[str, Layout]
) -> list[bytes]:
    """Add ``windows`` of devices to what is served, and return the counts of each, narrowed, in the same order."""
    blobs = [b""] * len(windows)
    for bundle, layout in sorted(layouts.items()):
        places = [place for place, (_, window) in enumerate(windows) if window.bundle == bundle]
        own = [windows[place] for place in places]
        stack = _stack(layout, [window for _, window in own])
        for place, blob in zip(places, narrow(stack), strict=True):
            blobs[place] = blob
        _add(session, bundle, layout, own, stack)
    return blobs


def _add(
    session: Session, bundle: str, layout: Layout, windows: Sequence[tuple[str, Telemetry | Window]], stack: Counts
) -> None:
    devices = sorted({device for device, _ in windows})
    index = {device: place for place, device in enumerate(devices)}
    found = fetch_rows(session, ServedRow, ("device", "counts", *_SUMS), {"bundle": bundle, "device": devices})
    stored = {row[0]: row for row in found}
    totals = layout.stack([bytes(stored[device][1]) if device in stored else b"" for device in devices])
    np.add.at(totals, [index[device] for device, _ in windows], stack)
    sums = [list(stored[device][2:]) if device in stored else [0, 0, 0] for device in devices]
    for device, window in windows:
        own = sums[index[device]]
        own[:] = (own[0] + 1, own[1] + window.rows, own[2] + window.errors)
    rows = [
        (device, bundle, blob.tobytes(), *(min(total, _GREATEST_SUM) for total in own))
        for device, blob, own in zip(devices, totals.astype("<i8"), sums, strict=True)
    ]
    names = ("counts", *_SUMS)
    update_rows(session, ServedRow, _KEY, names, [row for row in rows if row[0] in stored])
    insert_rows(session, ServedRow, (*_KEY, *names), [row for row in rows if row[0] not in stored])


def _stack(layout: Layout, windows: Sequence[Telemetry | Window]) -> Counts:
    """Return :meth:`Layout.pack` of each window, (windows, size); all numbers become an array at once."""
    sizes = [(spec.name, spec.cells, (0,) * spec.cells) for spec in layout.specs]
    no_latency = (0,) * LATENCY_CELLS
    flat: list[int] = []
    for window in windows:
        cells = window.cells
        for name, size, zeros in sizes:
            counts = cells.get(name, ())
            flat.extend(counts if len(counts) == size else zeros)
        flat.extend(window.latency if len(window.latency) == LATENCY_CELLS else no_latency)
    stack = np.array(flat, dtype=np.int64).reshape(len(windows), layout.size)
    if stack.max() > LARGEST_COUNT:  # no count of one window: what it stands in is left out
        return np.stack([layout.pack(window.cells, window.latency) for window in windows])
    return stack

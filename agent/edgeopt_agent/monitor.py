"""What the device lives through, as one window of counts at a time: profile cells, latencies, rows and errors.

No raw value is kept longer than it takes to count it. Reading clocks and sending is the caller's part. Example::

    window = Window(Serves(digest, "int8"), profile.features, start=now)
    window.count_row(inputs, outputs, microseconds=412.0)
    window.count_error()
    telemetry = window.close(session, number, end=later, gauges={"memory_bytes": 6e7})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_contract.messages import Telemetry
from edgeopt_contract.profile import LATENCY_EDGES_US, ProfileCounter, ReferenceFeature, count_latency, merge_cells

__all__ = ["Serves", "Window"]

Array = npt.NDArray[Any]
_BUFFER_ROWS = 32
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Serves:
    """Which bundle, and which variant of it, answered."""

    bundle: str
    variant: str


class Window:
    """Counts of one bundle since ``start``. Rows are counted in small batches, which costs a tenth."""

    def __init__(self, serves: Serves, features: Sequence[ReferenceFeature], start: int) -> None:
        self.serves = serves
        self.start = start
        self.rows = 0
        self.errors = 0
        self._counter = ProfileCounter(features)
        self._cells: dict[str, tuple[int, ...]] = {}
        self._latency = np.zeros(len(LATENCY_EDGES_US) + 1, dtype=np.int64)
        self._buffer: list[tuple[Mapping[str, Array], Mapping[str, Array], float]] = []
        self._buffered_bytes = 0

    def count_row(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], microseconds: float) -> None:
        """Count one inference; the arrays have a first axis of one."""
        self.rows += 1
        self._buffer.append((inputs, outputs, microseconds))
        self._buffered_bytes += sum(array.nbytes for array in (*inputs.values(), *outputs.values()))
        if len(self._buffer) >= _BUFFER_ROWS or self._buffered_bytes >= _BUFFER_BYTES:
            self._count_buffer()

    def count_error(self) -> None:
        """Count one request that got no answer."""
        self.errors += 1

    def close(self, session: int, number: int, *, end: int, gauges: Mapping[str, float]) -> Telemetry:
        """Return the window as a numbered message. The counts stay; begin a new window once it is kept."""
        self._count_buffer()
        self._cells = merge_cells(self._cells, self._counter.take())
        return Telemetry(
            session=session,
            number=number,
            bundle=self.serves.bundle,
            variant=self.serves.variant,
            start=self.start,
            end=max(self.start, end),  # the clock may have been set back
            rows=self.rows,
            errors=self.errors,
            cells=self._cells,
            latency=tuple(int(n) for n in self._latency),
            infrastructure=dict(gauges),
        )

    def _count_buffer(self) -> None:
        buffer, self._buffer, self._buffered_bytes = self._buffer, [], 0
        if not buffer:
            return
        self._latency += count_latency([microseconds for _, _, microseconds in buffer])
        shapes = {tuple(array.shape for array in (*row[0].values(), *row[1].values())) for row in buffer}
        batches = [buffer] if len(shapes) == 1 else [[row] for row in buffer]  # a model may answer in varying shapes
        for rows in batches:
            self._counter.observe(_joined([row[0] for row in rows]), _joined([row[1] for row in rows]))


def _joined(rows: list[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

"""Windows: what a bundle's counts grew by between two moments, as a message. Pure.

The counts themselves are cumulative and lie in a file (:mod:`edgeopt_agent.reports.counts`). A window that could not
be kept is taken again later, with everything in it. Example::

    window = Window.since(mark, counts.layout, counts.snapshot(), end=now)
    window.rows, window.errors
    telemetry = window.telemetry(session, number, gauges={"memory_bytes": 6e7})
    mark = window.mark                               # once the telemetry is kept: the next window begins here
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from edgeopt_agent.reports.counts import ERRORS, FEATURES, LATENCY, NONFINITE, ROWS, Layout
from edgeopt_contract.errors import MessageError
from edgeopt_contract.messages import Telemetry

__all__ = ["Mark", "Window", "read_marks", "write_marks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a window begins: the counts at that time, of the file with this ``epoch``; seconds since 1970."""

    epoch: str
    at: int
    cells: bytes = b""  # int64 each; empty is all zero

    def counts(self, size: int) -> array[int]:
        """Return the cells, ``size`` of them."""
        cells = array("q", self.cells)
        return cells if len(cells) == size else array("q", bytes(8 * size))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What ``layout``'s bundle counted since ``start``."""

    layout: Layout
    start: int
    mark: Mark  # its end
    grown: Sequence[int]

    @classmethod
    def since(cls, mark: Mark, layout: Layout, cells: array[int], *, end: int) -> Window:
        """Return what was counted from ``mark`` to ``cells``, which are the counts at ``end``."""
        grown = [now - before for now, before in zip(cells, mark.counts(len(cells)), strict=True)]
        ends = replace(mark, at=end, cells=cells.tobytes())
        return cls(layout=layout, start=mark.at, mark=ends, grown=grown)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted; runs of a self-test are not."""
        return not any(self.grown[ROWS:])

    @property
    def rows(self) -> int:
        """Inferences that answered."""
        return self.grown[ROWS]

    @property
    def nonfinite(self) -> int:
        """Of these, those whose outputs held NaN or infinity."""
        return self.grown[NONFINITE]

    @property
    def errors(self) -> int:
        """Inferences that got no answer."""
        return self.grown[ERRORS]

    @property
    def latency(self) -> tuple[int, ...]:
        """Rows by the latency cells that every device uses."""
        return tuple(self.grown[LATENCY:FEATURES])

    @property
    def cells(self) -> dict[str, tuple[int, ...]]:
        """The counts of each feature."""
        cells, offset = {}, FEATURES
        for name, size in self.layout.features:
            cells[name] = tuple(self.grown[offset : offset + size])
            offset += size
        return cells

    def telemetry(
        self,
        session: int,
        number: int,
        *,
        gauges: Mapping[str, float],
        notes: Mapping[str, str] | None = None,
        with_cells: bool = True,
    ) -> Telemetry:
        """Return the window as a numbered message; ``notes`` are what that of a shadow says besides."""
        return Telemetry(
            session=session,
            number=number,
            bundle=self.layout.bundle,
            variant=self.layout.variant,
            start=self.start,
            end=max(self.start, self.mark.at),  # the clock may have been set back
            rows=self.rows,
            errors=self.errors,
            cells=self.cells if with_cells else {},
            latency=self.latency,
            infrastructure=dict(gauges),
            extra={"shadow": self.layout.shadow, **(notes or {})} if self.layout.shadow else {},
        )


def write_marks(marks: Mapping[str, Mark]) -> bytes:
    """Return ``marks`` (by the name of the counts' file) as bytes to keep."""
    return zlib.compress(msgspec.msgpack.encode(dict(marks)))


def read_marks(data: bytes) -> dict[str, Mark]:
    """Return what :func:`write_marks` was given. Raises :class:`MessageError`."""
    try:
        return msgspec.msgpack.decode(zlib.decompress(data), type=dict[str, Mark])
    except (zlib.error, msgspec.MsgspecError) as error:
        raise MessageError(f"the marks of the telemetry cannot be read: {error}") from error

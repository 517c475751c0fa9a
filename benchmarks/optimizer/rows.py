"""What the comparison found, as records, and its table.

Pure. Ratios are the time of the float model in ONNX Runtime divided by the variant's (above one is faster), sizes are
bytes, times milliseconds unless the name says otherwise. Example::

    print(table([row]))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["EDGEOPT", "Figures", "Row", "table"]

EDGEOPT = "edgeopt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What was measured of one model, on the certification split.

    ``nearer`` and ``farther`` count the samples on which it answers as fp32 does and edgeopt's choice does not, and the
    other way round.
    """

    runtime: str
    agreement: float
    score: float
    size_bytes: int
    fp32_ms: float
    milliseconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    nearer: int = 0
    farther: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One tool on one model: ``what`` it chose or noted, and its ``figures``, or the ``problem`` that it had.

    ``seconds`` are what the tool took; ``samples`` and ``fp32_score`` those of the certification split.
    """

    case: str
    tool: str
    samples: int
    fp32_score: float
    fp32_bytes: int
    seconds: float
    what: str = ""
    figures: Figures | None = None
    problem: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is edgeopt's."""
        return self.tool == EDGEOPT


def table(rows: Sequence[Row]) -> str:
    """Return the rows of one model as text, one line each."""
    first = rows[0]
    title = (
        f"{first.case}: fp32 {first.fp32_bytes / 1e6:.2f} MB, score {first.fp32_score:.2%}, "
        f"{first.samples} certification samples"
    )
    head = (
        f"  {'tool':<33} {'run by':<12} {'agreement':>9} {'score':>7} {'MB':>6} {'times as fast as fp32':>22} "
        f"{'made in':>8}"
    )
    return "\n".join([title, head, *map(_line, rows)])


def _line(row: Row) -> str:
    if row.figures is None:
        return f"  {row.tool:<33} failed: {row.problem}"
    one = row.figures
    ratio = f"{one.ratio:.2f} ({one.ratio_low:.2f} to {one.ratio_high:.2f})"
    what = f"  {row.what}" if row.what else ""
    return (
        f"  {row.tool:<33} {one.runtime:<12} {one.agreement:>9.2%} {one.score:>7.2%} {one.size_bytes / 1e6:>6.2f} "
        f"{ratio:>22} {row.seconds:>6.0f} s{what}"
    )

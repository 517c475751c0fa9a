"""The plot of the comparison: agreement with fp32 against times as fast, one panel for each model, as SVG.

Pure. edgeopt's choice is the filled mark, peers are rings with a number that the list below the panels explains; bars
are the intervals of the ratio. Example::

    Path("comparison.svg").write_text(svg(rows))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.optimizer.rows import Figures, Row

__all__ = ["svg"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 330, 230, 52, 34, 26
_COLUMNS = 3
_OURS, _THEIRS, _INK, _GRID = "#c2410c", "#475569", "#1e293b", "#e2e8f0"
_LINE = 16  # pixels of a line of the list


def svg(rows: Sequence[Row]) -> str:
    """Return the picture; rows that failed are not in it."""
    cases = list(dict.fromkeys(row.case for row in rows))
    tools = list(dict.fromkeys(row.tool for row in rows if not row.is_ours))
    lines = -(-len(cases) // _COLUMNS)
    below = lines * _HEIGHT
    height = below + _LINE * (-(-len(tools) // _COLUMNS) + 2)
    panels = [
        _group(_panel(case, rows, tools), index % _COLUMNS * _WIDTH, index // _COLUMNS * _HEIGHT)
        for index, case in enumerate(cases)
    ]
    legend = [
        _text(f"{number + 1}  {tool}", 12 + number % _COLUMNS * _WIDTH, below + _LINE * (number // _COLUMNS + 1))
        for number, tool in enumerate(tools)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_COLUMNS * _WIDTH} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{_INK}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}{"".join(legend)}</svg>\n'
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a point lies in its panel: x from 0 to ``fastest``, y from ``least`` to an agreement of one."""

    fastest: float
    least: float

    def x(self, ratio: float) -> float:
        return _LEFT + ratio / self.fastest * (_WIDTH - _LEFT - 14)

    def y(self, agreement: float) -> float:
        return _TOP + (1 - agreement) / (1 - self.least) * (_HEIGHT - _TOP - _BOTTOM)


def _panel(case: str, rows: Sequence[Row], tools: Sequence[str]) -> str:
    found = [(row.tool, row.figures) for row in rows if row.case == case and row.figures is not None]
    if not found:
        return _text(f"{case}: nothing was measured", _LEFT, _TOP - 8)
    least = min(0.999, *(figures.agreement for _, figures in found))
    scale = _Scale(max(1.0, *(figures.ratio_high for _, figures in found)) * 1.08, least - (1 - least) * 0.1)
    ours_last = sorted(found, key=lambda item: item[0] not in tools)  # so that its mark lies on top
    marks = [_mark(tool, figures, scale, tools) for tool, figures in ours_last]
    return "".join([_axes(case, scale), *marks])


def _axes(case: str, scale: _Scale) -> str:
    right, floor = scale.x(scale.fastest), scale.y(scale.least)
    steps = 4
    parts = [f'<text x="{_LEFT}" y="{_TOP - 10}" font-weight="600">{escape(case)}</text>']
    for step in range(steps + 1):
        agreement = scale.least + (1 - scale.least) * step / steps
        y = scale.y(agreement)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right:.1f}" stroke="{_GRID}"/>')
        parts.append(_text(f"{agreement:.1%}", 10, y + 4))
    for step in range(1, steps + 1):
        ratio = scale.fastest * step / (steps + 0.5)
        parts.append(_text(f"{ratio:.1f}", scale.x(ratio) - 8, floor + 14))
    parts.append(_text("times as fast as fp32", _LEFT + 70, floor + 28))
    one = scale.x(1)
    parts.append(f'<path d="M{one:.1f} {floor:.1f}V{_TOP}" stroke="{_THEIRS}" stroke-dasharray="3 3"/>')
    return "".join(parts)


def _mark(tool: str, figures: Figures, scale: _Scale, tools: Sequence[str]) -> str:
    x, y = scale.x(figures.ratio), scale.y(figures.agreement)
    ours = tool not in tools
    color = _OURS if ours else _THEIRS
    bar = f'<path d="M{scale.x(figures.ratio_low):.1f} {y:.1f}H{scale.x(figures.ratio_high):.1f}" stroke="{color}"/>'
    radius, fill = (5.5, color) if ours else (3.5, "white")
    name = tool if ours else str(tools.index(tool) + 1)
    title = f"{tool}: {figures.agreement:.2%} at {figures.ratio:.2f}"
    ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}" stroke="{color}">'
    return bar + ring + f"<title>{escape(title)}</title></circle>" + _text(name, x + 6, y - 5)


def _group(parts: str, x: int, y: int) -> str:
    return f'<g transform="translate({x} {y})">{parts}</g>'


def _text(words: str, x: float, y: float) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'

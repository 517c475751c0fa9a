"""How far each metric of a wave moved at each look of the gate, against what was allowed: as text, and as SVG.

Likewise how two arms differ, in margins, so that all metrics stand on one scale.

Numbers in, characters or markup out; nothing is asked for or written here. Example::

    charts(looks)[0].splitlines()[1]      # 'look 1        ├────●────┤        ┃     fine'
    svg(looks)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgeopt.reporting.scales import Scale

__all__ = ["ComparedView", "DifferenceView", "FindingView", "LookView", "arm_charts", "charts", "svg"]

_WIDTH = 48  # characters of a chart's scale
_TITLES = {
    "errors": "errors",
    "latency": "latency (p95)",
    "confidence": "fall of confidence",
    "class_mix": "class mix",
    "drift": "input drift",
    "divergence": "golden divergence",
    "latency_p50": "latency (p50)",
}
_MEANINGS = {"a_better": "A better", "b_better": "B better", "alike": "alike", "unknown": "not known"}
_COLOURS = {
    "worse": "#b3261e", "fine": "#2e7d32", "unknown": "#6b7280",
    "A better": "#b3261e", "B better": "#2e7d32", "alike": "#1d4ed8", "not known": "#6b7280",
}  # fmt: skip
_LIMIT = Markup('<line x1="{0}" x2="{0}" y1="{1}" y2="{2}" stroke="{3}" stroke-dasharray="3 2"/>')
_INTERVAL = Markup('<line x1="{}" x2="{}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
_DOT = Markup('<circle cx="{}" cy="{}" r="4" fill="{}"/>')
_LEFT, _PLOT, _ROW, _HEAD = 110, 420, 18, 30  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    """One metric of one group at one look, as the fleet tells it; see its API."""

    metric: str
    group: str
    standing: str
    estimate: float | None
    lower: float | None
    upper: float | None
    allowed: float
    devices: int
    controls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LookView:
    """One look of the gate."""

    at: float
    wave: int
    number: int
    look: str | None
    decision: str
    reasons: tuple[str, ...]
    findings: tuple[FindingView, ...]
    same: bool
    code: str
    arm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceView:
    """One metric of one group of two arms, B minus A; see the fleet's API."""

    metric: str
    group: str
    side: str
    estimate: float | None
    lower: float | None
    upper: float | None
    margin: float
    devices_a: int
    devices_b: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedView:
    """One comparison of two arms."""

    at: float
    number: int
    result: str
    reasons: tuple[str, ...]
    differences: tuple[DifferenceView, ...]
    same: bool
    code: str


@dataclass(frozen=True, slots=True)
class _Row:
    """An interval with its words; ``limits`` are drawn beside zero."""

    label: str
    standing: str
    amount: str
    limits: tuple[float, ...]
    estimate: float
    lower: float
    upper: float


def charts(looks: Sequence[LookView]) -> list[str]:
    """Return a chart for each wave, group and metric that was measured; ``┃`` is what was allowed."""
    return [_chart(title, rows) for title, rows in _panels(looks)]


def arm_charts(found: Sequence[ComparedView]) -> list[str]:
    """Return a chart for each comparison and group; ``┃`` are the margins."""
    return [_chart(title, rows) for title, rows in _arm_panels(found)]


def svg(looks: Sequence[LookView], found: Sequence[ComparedView] = ()) -> str:
    """Return the same as one SVG picture."""
    panels = [*_panels(looks), *_arm_panels(found)]
    height = sum(_HEAD + _ROW * len(rows) + 14 for _, rows in panels) + 10
    parts, top = [], 10
    for title, rows in panels:
        parts += _panel(title, rows, top)
        top += _HEAD + _ROW * len(rows) + 14
    box = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" font-family="sans-serif" font-size="11">'
        '<rect width="100%" height="100%" fill="white"/>'
    ).format(_LEFT + _PLOT + 90, height)
    return str(box + Markup("").join(parts) + Markup("</svg>\n"))


def _panels(looks: Sequence[LookView]) -> Iterator[tuple[str, list[_Row]]]:
    panels: dict[tuple[int, str, str, str], list[_Row]] = {}
    allowed: dict[str, float] = {}
    for look in looks:
        for found in look.findings:
            if found.estimate is not None and found.lower is not None and found.upper is not None:
                amount = _amount(found.metric, found.estimate)
                interval = (found.estimate, found.lower, found.upper)
                row = _Row(f"look {look.number}", found.standing, amount, (found.allowed,), *interval)
                panels.setdefault((look.wave, look.arm, found.group, found.metric), []).append(row)
                allowed[found.metric] = found.allowed
    for (wave, arm, group, metric), rows in panels.items():
        where = (f", arm {arm}" if arm else "") + (f", hardware class {group}" if group else "")
        most = _amount(metric, allowed[metric])
        yield f"wave {wave + 1}{where}: {_TITLES.get(metric, metric)}, at most {most} allowed", rows


def _arm_panels(found: Sequence[ComparedView]) -> Iterator[tuple[str, list[_Row]]]:
    for one in found:
        groups: dict[str, list[_Row]] = {}
        for difference in one.differences:
            estimate, lower, upper = difference.estimate, difference.lower, difference.upper
            if estimate is not None and lower is not None and upper is not None:
                unit = difference.margin or 1.0
                label = _TITLES.get(difference.metric, difference.metric)
                amount = _amount(difference.metric, estimate)
                meaning = _MEANINGS.get(difference.side, difference.side)
                row = _Row(label, meaning, amount, (-1.0, 1.0), estimate / unit, lower / unit, upper / unit)
                groups.setdefault(difference.group, []).append(row)
        for group, rows in groups.items():
            where = f", hardware class {group}" if group else ""
            yield f"comparison {one.number}{where}: B - A, more is worse; the margins are marked", rows


def _range(rows: Sequence[_Row]) -> tuple[float, float]:
    low = min(0.0, *(min(row.lower, *row.limits) for row in rows))
    high = max(0.0, *(max(row.upper, *row.limits) for row in rows))
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _chart(title: str, rows: Sequence[_Row]) -> str:
    low, high = _range(rows)
    scale = Scale(low=low, high=high, start=0, end=_WIDTH - 1)

    def column(value: float) -> int:
        return round(scale(value))

    lines, width = [title], max(9, *(len(row.label) + 1 for row in rows))
    for row in rows:
        cells = [" "] * _WIDTH
        cells[column(0.0)] = "┊"
        cells[column(row.lower) : column(row.upper) + 1] = ["─"] * (column(row.upper) - column(row.lower) + 1)
        cells[column(row.lower)], cells[column(row.upper)] = "├", "┤"
        for limit in row.limits:
            cells[column(limit)] = "┃"
        cells[column(row.estimate)] = "●"
        lines.append(f"  {row.label:<{width}}{''.join(cells)}  {row.amount} {row.standing}")
    return "\n".join(lines)


def _panel(title: str, rows: Sequence[_Row], top: int) -> list[Markup]:
    low, high = _range(rows)
    x = Scale(low=low, high=high, start=_LEFT, end=_LEFT + _PLOT)
    bottom = top + _HEAD + _ROW * len(rows)
    parts = [Markup('<text x="10" y="{}" font-weight="bold">{}</text>').format(top + 12, title)]
    for value, style in ((0.0, "#9ca3af"), *((limit, "#111827") for limit in rows[-1].limits)):
        parts.append(_LIMIT.format(x(value), top + 20, bottom, style))
    for place, row in enumerate(rows):
        y = top + _HEAD + _ROW * place
        colour = _COLOURS.get(row.standing, "#6b7280")
        parts.append(_INTERVAL.format(x(row.lower), x(row.upper), y=y, colour=colour))
        parts.append(_DOT.format(x(row.estimate), y, colour))
        parts.append(Markup('<text x="20" y="{}">{}</text>').format(y + 4, row.label))
        words = f"{row.amount} {row.standing}"
        parts.append(Markup('<text x="{}" y="{}">{}</text>').format(_LEFT + _PLOT + 8, y + 4, words))
    return parts


def _amount(metric: str, value: float) -> str:
    if metric.startswith("latency"):
        return f"{math.expm1(value):.1%}"
    return f"{value:.2%}" if metric == "errors" else f"{value:.3f}"

"""The two pictures of the report, as inline SVG: the interval of the drop, and that of the speed.

Pure: numbers in, markup out; colours come from the page's style sheet. Example::

    drop_chart(Interval(low=-0.001, middle=0.002, high=0.006), margin=0.01, words=Wording(is_share=True))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgeopt.wording import Wording

__all__ = ["Interval", "drop_chart", "ratio_chart"]

_WIDTH, _HEIGHT, _PAD, _LINE = 640, 112, 36, 52


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float

    def __call__(self, value: float) -> float:
        return round(_PAD + (value - self.low) / (self.high - self.low) * (_WIDTH - 2 * _PAD), 1)


def drop_chart(drop: Interval, margin: float, words: Wording) -> Markup:
    """Draw the drop of the metric with its bounds against what is allowed."""
    reach = max(abs(drop.low), abs(drop.high), margin) * 1.25 or 0.01
    scale = _Scale(-reach, reach)
    good = drop.high <= margin
    ticks = [(0.0, "0"), (margin, f"allowed: {words.margin(margin)}")]
    labels = [(drop.low, words.number(drop.low)), (drop.high, words.number(drop.high))]
    allowed = (-reach, margin)
    return _chart(scale, drop, ticks, labels, allowed, good=good)


def ratio_chart(ratio: Interval) -> Markup:
    """Draw how many times as fast the variant is, with its interval, against one."""
    high = max(ratio.high, 1.0)
    scale = _Scale(min(0.0, ratio.low), high * 1.2)
    ticks = [(0.0, "0"), (1.0, "as fast as fp32")]
    labels = [(ratio.middle, f"× {ratio.middle:.2f}")]  # noqa: RUF001  (a multiplication sign, for people)
    return _chart(scale, ratio, ticks, labels, (1.0, high * 1.2), good=ratio.low > 1)


def _chart(
    scale: _Scale,
    interval: Interval,
    ticks: Sequence[tuple[float, str]],
    labels: Sequence[tuple[float, str]],
    allowed: tuple[float, float],
    *,
    good: bool,
) -> Markup:
    kind = "good" if good else "bad"
    left, right = scale(allowed[0]), scale(allowed[1])
    low, middle, high = scale(interval.low), scale(interval.middle), scale(interval.high)
    parts = [
        Markup('<rect class="allowed" x="{}" y="24" width="{}" height="{}"/>').format(
            left, round(right - left, 1), _LINE + 4
        ),
        Markup('<line class="axis" x1="{}" y1="80" x2="{}" y2="80"/>').format(_PAD, _WIDTH - _PAD),
    ]
    for value, text in ticks:
        x = scale(value)
        parts.append(Markup('<line class="tick" x1="{0}" y1="24" x2="{0}" y2="86"/>').format(x))
        parts.append(Markup('<text class="tick" x="{}" y="102">{}</text>').format(x, text))
    parts.append(Markup('<line class="interval {}" x1="{}" y1="52" x2="{}" y2="52"/>').format(kind, low, high))
    parts.append(Markup('<circle class="{}" cx="{}" cy="52" r="6"/>').format(kind, middle))
    for value, text in labels:
        parts.append(Markup('<text class="value" x="{}" y="16">{}</text>').format(scale(value), text))
    opening = Markup('<svg viewBox="0 0 {} {}" role="img">').format(_WIDTH, _HEIGHT)
    return opening + Markup("").join(parts) + Markup("</svg>")

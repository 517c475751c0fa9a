"""The pictures of the report, as inline SVG: numbers in, markup out.

Colours and sizes of letters come from the page's style sheet, by class; whatever users named is escaped. Hovering over
a point shows its ``<title>``. Pure. Example::

    pareto_plot(target.trials, run.baseline.size_bytes)           # None when nothing was measured
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgeopt.reporting.scales import Scale, round_ticks, spaced_ticks, trimmed_range
from edgeopt.results import MetricResult, SpeedResult, TrialResult
from edgeopt.wording import Wording, size, with_interval

__all__ = ["Pareto", "Timed", "bar", "drop_chart", "mark", "pareto_plot", "rungs_of", "timing_plot"]

_SHARES = Wording(is_share=True)
_WIDTH, _HEIGHT = 600, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 44, 50
_ROW, _DOT = 58, 3.5
_FIGURES, _LETTERS = 175, 64  # room for the ratio in figures, and for the name above it, on a phone too
_LEVELS = (0.0, -6.0, 6.0, -12.0, 12.0)
_SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",  # circle
    "M-4.6 -4.6h9.2v9.2h-9.2z",  # square
    "M0 -6.2L5.8 4.4H-5.8z",  # triangle
    "M0 -6.4L6.4 0L0 6.4L-6.4 0z",  # diamond
    "M0 6.2L5.8 -4.4H-5.8z",  # triangle on its tip
    "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",  # cross
)
_SHADES = 7  # the style sheet has as many; prime to the number of shapes, so that 42 rungs look different


@dataclass(frozen=True, slots=True)
class Timed:
    """Something that was timed, with its name."""

    name: str
    speed: SpeedResult


@dataclass(frozen=True, slots=True)
class Pareto:
    """The plot of the trials; ``by_size``: nothing was timed, so the size stands in for the speed."""

    picture: Markup
    by_size: bool


@dataclass(frozen=True, slots=True)
class _Point:
    trial: TrialResult
    error: float
    ratio: float
    low: float
    high: float
    words: str


def rungs_of(trials: Sequence[TrialResult]) -> tuple[str, ...]:
    """Return the rungs in the order in which they first came."""
    return tuple(dict.fromkeys(one.rung for one in trials))


def mark(rung: int) -> Markup:
    """Return the mark of the ``rung``-th rung by itself, for the key of the plot."""
    return Markup('<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">{}</svg>').format(_mark(rung))


def pareto_plot(trials: Sequence[TrialResult], fp32_bytes: int) -> Pareto | None:
    """Draw every trial: faster is further right, nearer to fp32 is higher. ``None`` when nothing was measured.

    Where nothing was timed, the size stands in for the speed. Errors are those of the records, on a scale that is
    stretched near zero.
    """
    timed = any(one.speed is not None for one in trials)
    points = [_timed_point(one) if timed else _sized_point(one, fp32_bytes) for one in trials]
    drawn = [one for one in points if one is not None]
    if not drawn:
        return None
    low, high = min(1.0, *(one.ratio for one in drawn)), max(1.0, *(one.ratio for one in drawn))
    margin = max(0.1 * (high - low), 0.03)
    x = Scale(low=low - margin, high=high + margin, start=_LEFT, end=_WIDTH - _RIGHT)
    most = max(one.error for one in drawn) * 1.1 or 0.01
    y = Scale(low=0.0, high=most, start=_TOP + 14, end=_HEIGHT - _BOTTOM, stretched=True)
    rungs = rungs_of(trials)
    parts = [*_grid(x, y, "times as fast as fp32" if timed else "times as small as fp32"), _front(drawn, x, y)]
    parts += [_fp32(x, y), *(_point(one, rungs.index(one.trial.rung), x, y) for one in sorted(drawn, key=_chosen_last))]
    label = f"Error against {'speed' if timed else 'size'} of everything that was tried"
    return Pareto(_svg(_HEIGHT, label, parts), by_size=not timed)


def timing_plot(timed: Sequence[Timed]) -> Markup | None:
    """Draw the ratio of each repetition as a dot, with the interval, against one. ``None`` when nothing was timed."""
    if not timed:
        return None
    low, high = trimmed_range([one.speed.ratios or (one.speed.ratio,) for one in timed], always=1.0)
    x = Scale(low=low, high=high, start=_RIGHT, end=_WIDTH - _FIGURES)
    bottom = len(timed) * _ROW + 12
    one_x = x(1.0)
    parts = [_tick(x(value), 8, bottom, f"{value:g}") for value in round_ticks(low, high, 6)]
    parts.append(Markup('<line class="even" x1="{0}" y1="4" x2="{0}" y2="{1}"/>').format(one_x, bottom))
    for row, one in enumerate(timed):
        parts.append(_timing_row(one, row * _ROW, x))
    parts.append(
        _text(x.start, bottom + 40, "times as fast as fp32, in each repetition \N{RIGHTWARDS ARROW}", "title start")
    )
    return _svg(bottom + 46, "Ratios of all repetitions", parts)


def drop_chart(metric: MetricResult, margin: float, words: Wording) -> Markup:
    """Draw the drop of the metric with its bounds against what is allowed."""
    reach = max(abs(metric.drop_lower), abs(metric.drop_upper), abs(margin)) * 1.3 or 0.01
    scale = Scale(low=-reach, high=reach, start=_LEFT / 2, end=_WIDTH - _LEFT / 2)
    kind = "good" if metric.drop_upper <= margin else "bad" if metric.drop_lower > margin else "wait"
    low, middle, high = scale(metric.drop_lower), scale(metric.drop), scale(metric.drop_upper)
    none, allowed = scale(0.0), scale(margin)
    side = "end" if allowed > _WIDTH * 0.7 else "start"
    parts = [
        Markup('<rect class="allowed" x="{}" y="20" width="{}" height="42"/>').format(
            scale.start, round(allowed - scale.start, 1)
        ),
        Markup('<line class="axis" x1="{}" y1="62" x2="{}" y2="62"/>').format(scale.start, scale.end),
        Markup('<line class="tick" x1="{0}" y1="20" x2="{0}" y2="72"/>').format(none),
        Markup('<line class="even" x1="{0}" y1="20" x2="{0}" y2="72"/>').format(allowed),
        _text(none - 4, 82, "no drop", "end"),
        _text(allowed + (4 if side == "start" else -4), 82, f"allowed: {words.margin(margin)}", side),
        Markup('<line class="interval {}" x1="{}" y1="41" x2="{}" y2="41"/>').format(kind, low, high),
        Markup('<circle class="{}" cx="{}" cy="41" r="6"/>').format(kind, middle),
        _text(min(low + 4, middle - 5), 13, words.number(metric.drop_lower), "value end"),
        _text(max(high - 4, middle + 5), 13, words.number(metric.drop_upper), "value start"),
    ]
    return _svg(90, f"The drop of {metric.name} with its bounds", parts)


def bar(share: float, kind: str = "") -> Markup:
    """Return a bar of ``share`` of the full width, which is clipped to [0, 1]."""
    width = round(min(1.0, max(0.0, share)) * 100, 1)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10"/><rect class="filled {}" width="{}" height="10"/></svg>'
    ).format(kind, width)


def _timed_point(trial: TrialResult) -> _Point | None:
    if trial.speed is None or trial.error is None:
        return None
    words = f"{with_interval(trial.speed.ratio, trial.speed.ratio_low, trial.speed.ratio_high)} times as fast"
    return _Point(trial, trial.error, trial.speed.ratio, trial.speed.ratio_low, trial.speed.ratio_high, words)


def _sized_point(trial: TrialResult, fp32_bytes: int) -> _Point | None:
    if not trial.size_bytes or trial.error is None:
        return None
    ratio = fp32_bytes / trial.size_bytes
    return _Point(trial, trial.error, ratio, ratio, ratio, f"{size(trial.size_bytes)}, {ratio:.2f} times as small")


def _chosen_last(point: _Point) -> bool:
    return point.trial.chosen


def _grid(x: Scale, y: Scale, across: str) -> Iterator[Markup]:
    slower = Markup('<rect class="slower" x="{}" y="{}" width="{}" height="{}"/>')
    yield slower.format(x.start, _TOP, round(x(1.0) - x.start, 1), _HEIGHT - _BOTTOM - _TOP)
    for value in round_ticks(x.low, x.high, 6):
        yield _tick(x(value), _TOP, _HEIGHT - _BOTTOM, f"{value:g}")
    for value in spaced_ticks(y, gap=30):
        at = y(value)
        yield Markup('<line class="tick" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(x.start, at, x.end, at)
        yield _text(x.start - 8, at + 4, f"{value:g}", "end")
    yield Markup('<line class="even" x1="{0}" y1="{1}" x2="{0}" y2="{2}"/>').format(x(1.0), _TOP, _HEIGHT - _BOTTOM)
    yield _text(4, 16, "\N{UPWARDS ARROW} nearer to fp32 (error in standard deviations)", "title start")
    yield _text(x.end, _HEIGHT - 8, f"{across} \N{RIGHTWARDS ARROW}", "title end")


def _front(points: Sequence[_Point], x: Scale, y: Scale) -> Markup:
    """Join what is on the front, and fp32, which nothing slower can stand on the front with."""
    corners = sorted((one.ratio, one.error) for one in points if one.trial.on_front and one.ratio > 1)
    path = " ".join(f"{x(ratio)},{y(error)}" for ratio, error in [(1.0, 0.0), *corners])
    return Markup('<polyline class="front" points="{}"/>').format(path) if corners else Markup("")


def _fp32(x: Scale, y: Scale) -> Markup:
    at = x(1.0), y(0.0)
    side, shift = ("end", -12) if at[0] - x.start > 60 else ("start", 12)
    return Markup(
        '<g><title>fp32: what all others are held against</title><circle class="fp32" cx="{}" cy="{}" r="8"/>{}</g>'
    ).format(*at, _text(at[0] + shift, at[1] - 2, "fp32", f"value halo {side}"))


def _point(point: _Point, rung: int, x: Scale, y: Scale) -> Markup:
    trial, at = point.trial, (x(point.ratio), y(point.error))
    words = [
        f"{trial.rung}: {trial.title}",
        point.words,
        f"error {point.error:.3g}",
        "" if trial.agreement is None else f"{_SHARES.score(trial.agreement)} answers as fp32",
        "chosen" if trial.chosen else "",
    ]
    whisker = Markup('<line class="whisker" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
        x(point.low), at[1], x(point.high), at[1]
    )
    ring, label = Markup(""), Markup("")
    if trial.chosen:  # up and to the right of what is on the front lies nothing that the word could cover
        side, where = ("start", at[0] + 9) if at[0] < _WIDTH - 90 else ("end", at[0] + _RIGHT)
        ring = Markup('<circle class="chosen" cx="{}" cy="{}" r="11"/>').format(*at)
        label = _text(where, at[1] - 13, "chosen", f"value halo {side}")
    return Markup('<g class="point"><title>{}</title>{}{}<g transform="translate({} {})">{}</g>{}</g>').format(
        "\n".join(filter(None, words)), whisker, ring, *at, _mark(rung), label
    )


def _mark(rung: int) -> Markup:
    return Markup('<path class="mark shade{}" d="{}"/>').format(rung % _SHADES, _SHAPES[rung % len(_SHAPES)])


def _timing_row(one: Timed, top: float, x: Scale) -> Markup:
    speed, middle = one.speed, top + 38
    kind = "good" if speed.ratio_low > 1 else "bad" if speed.ratio_high < 1 else "wait"
    parts = [
        Markup("<g><title>{}</title>{}</g>").format(one.name, _text(0, top + 18, _short(one.name), "halo start")),
        _text(_WIDTH, middle + 4, with_interval(speed.ratio, speed.ratio_low, speed.ratio_high), "value halo end"),
        Markup('<line class="span {}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
            kind, x(speed.ratio_low), middle, x(speed.ratio_high), middle
        ),
    ]
    dots = sorted(speed.ratios)
    for ratio, level in zip(dots, _levels([x(ratio) for ratio in dots]), strict=True):
        beyond = "" if x.holds(ratio) else " beyond"
        words = f"{ratio:.3f}" + (": beyond the scale" if beyond else "")
        parts.append(
            Markup('<circle class="dot {}{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
                kind, beyond, x(ratio), middle + level, _DOT, words
            )
        )
    return Markup("<g>{}</g>").format(Markup("").join(parts))


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _levels(places: Sequence[float]) -> list[float]:
    """Return how far above or below the line each dot goes, so that neighbours can be told apart."""
    last: dict[float, float] = {}
    levels = []
    for place in places:
        free = [level for level in _LEVELS if place - last.get(level, -_WIDTH) > 2 * _DOT]
        level = free[0] if free else min(_LEVELS, key=lambda one: last[one])
        last[level] = place
        levels.append(level)
    return levels


def _tick(x: float, top: float, bottom: float, text: str) -> Markup:
    line = Markup('<line class="tick" x1="{0}" y1="{1}" x2="{0}" y2="{2}"/>').format(x, top, bottom + 5)
    return line + _text(x, bottom + 20, text, "middle")


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, round(x, 1), round(y, 1), text)


def _svg(height: float, label: str, parts: Sequence[Markup]) -> Markup:
    opening = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, height, label)
    return opening + Markup("").join(parts) + Markup("</svg>")

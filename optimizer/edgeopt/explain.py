"""What a run found, as text for a terminal: verdict first, then what led to it, then what to try next.

The same facts as ``report.html``, from the records of ``report.json``; nothing is judged anew. Pure. Example::

    print(explain(from_json(Path("build/digits/report.json").read_bytes())))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from edgeopt.gate import Verdict
from edgeopt.results import RunResult, StageResult, TargetResult, TrialResult
from edgeopt.rungs import rung_gains
from edgeopt.wording import Wording, milliseconds, size, with_interval

__all__ = ["advice", "explain", "pareto_plot"]

_SHARES = Wording(is_share=True)
_WIDTH, _HEIGHT = 56, 10  # of the plot, in characters
_LAYERS, _BAR = 8, 24
_RATIO_DIGITS = 2


def explain(run: RunResult) -> str:
    """Return the whole text, without a line end after its last line."""
    return "\n\n".join(_parts(run))


def pareto_plot(trials: Sequence[TrialResult]) -> str:
    """Return trials by speed and agreement: ``*`` chosen, ``o`` on the front, ``.`` others; empty for none measured."""
    points = [
        (one.speed.ratio, one.agreement, "*" if one.chosen else "o" if one.on_front else ".")
        for one in trials
        if one.speed is not None and one.agreement is not None
    ]
    if not points:
        return ""
    left, right = _span([ratio for ratio, _, _ in points], least=0.1)
    low, high = _span([agreement for _, agreement, _ in points], least=0.001)
    grid = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for ratio, agreement, mark in sorted(points, key=lambda point: ".o*".index(point[2])):
        column = round((ratio - left) / (right - left) * (_WIDTH - 1))
        row = round((high - agreement) / (high - low) * (_HEIGHT - 1))
        grid[row][column] = mark
    names = [_SHARES.score(high), *[""] * (_HEIGHT - 2), _SHARES.score(low)]
    rows = [f"  {name:>9} |{''.join(cells).rstrip()}" for name, cells in zip(names, grid, strict=True)]
    ends = f"{left:.{_RATIO_DIGITS}f}", f"{right:.{_RATIO_DIGITS}f}"
    axis = f"  {'':>9} +{'-' * _WIDTH}"
    below = f"  {'':>9}  {ends[0]}{ends[1]:>{_WIDTH - len(ends[0])}}"
    return "\n".join([*rows, axis, below, f"  {'':>9}  times as fast as fp32; * chosen, o on the front, . others"])


def advice(run: RunResult) -> tuple[str, ...]:
    """Return what to try next, the most useful first; empty when nothing is open."""
    found = [line for target in run.targets for line in _advice(target)]
    git = run.lineage.get("git")
    if run.verdict is Verdict.PASS and (git is None or git.get("dirty")):
        found.append("commit your code, so that 'edgeopt reproduce' can build this bundle again")
    return tuple(dict.fromkeys(found))


def _parts(run: RunResult) -> Iterator[str]:
    words = Wording(run.is_share)
    yield f"{run.verdict}  {run.name} {run.version}"
    for target in run.targets:
        yield _verdict(target)
        yield _block("variants", _variants(target, words))
        if len(rungs := _rungs(target.trials)) > 1:
            yield _block("what each rung gave (selection split)", rungs)
        if plot := pareto_plot(target.trials):
            yield f"answers as fp32, against speed\n{plot}"
        if target.stages:
            yield _block("where accuracy was lost", _stages(target.stages, words))
        if target.sensitivity:
            yield _block("the most sensitive layers, quantized alone", _layers(target))
        if refused := [one for one in target.trials if one.problem is not None]:
            yield "could not be tried\n" + "\n".join(f"  - {one.title}: {one.problem}" for one in refused)
    if run.notes:
        yield "notes\n" + "\n".join(f"  - {note}" for note in run.notes)
    if next_steps := advice(run):
        yield "what to try next\n" + "\n".join(f"  - {line}" for line in next_steps)


def _verdict(target: TargetResult) -> str:
    gets = f"gets {target.chosen}" if target.chosen else "gets no variant"
    return "\n".join(
        [f"{target.target}: {target.verdict}, {gets}; certified on: {target.execution}", *_indented(target.reasons)]
    )


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _block(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns under a title; the first row names the columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join([title, *_indented(list(lines))])


def _variants(target: TargetResult, words: Wording) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "gate", "score", "drop", "answers as fp32", "size", "latency", "times as fast")]
    for one in target.variants:
        speed, low, high = one.speed, words.number(one.metric.drop_lower), words.number(one.metric.drop_upper)
        rows.append(
            (
                one.name,
                one.verdict,
                words.score(one.metric.value),
                f"{words.number(one.metric.drop)} ({low} to {high})",
                _SHARES.score(one.agreement),
                size(one.size_bytes),
                milliseconds(None if speed is None else speed.variant_ms),
                "" if speed is None else with_interval(speed.ratio, speed.ratio_low, speed.ratio_high),
            )
        )
    return rows


def _rungs(trials: Sequence[TrialResult]) -> list[tuple[str, ...]]:
    """Return, for each rung, the best it reached in accuracy and in speed; the gains are on all rungs before."""
    rows: list[tuple[str, ...]] = [("rung", "tried", "best answers as fp32", "gain", "fastest", "gain", "best recipe")]
    rows.extend(
        (
            one.rung,
            str(one.tried),
            "" if one.agreement is None else _SHARES.score(one.agreement),
            "" if one.agreement_gain is None else _SHARES.drop(one.agreement_gain),
            "" if one.ratio is None else f"{one.ratio:.2f}",
            "" if one.ratio_gain is None else f"{one.ratio_gain:+.2f}",
            one.best,
        )
        for one in rung_gains(trials)
    )
    return rows


def _stages(stages: Sequence[StageResult], words: Wording) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("stage", "score", "lost here", "answers as fp32")]
    rows.append((stages[0].stage, words.score(stages[0].score), "", _SHARES.score(stages[0].agreement)))
    rows.extend(
        (one.stage, words.score(one.score), words.drop(before.score - one.score), _SHARES.score(one.agreement))
        for before, one in pairwise(stages)
    )
    return rows


def _layers(target: TargetResult) -> list[tuple[str, ...]]:
    worst = sorted(target.sensitivity, key=lambda one: -one.error)[:_LAYERS]
    greatest = worst[0].error or 1.0
    rows: list[tuple[str, ...]] = [("layer", "operator", "error", "time saved", "")]
    rows.extend(
        (
            one.node,
            one.operator,
            f"{one.error:.3g}",
            "" if one.saved_ms is None else milliseconds(one.saved_ms),
            "#" * max(0, round(one.error / greatest * _BAR)),
        )
        for one in worst
    )
    return rows


def _advice(target: TargetResult) -> Iterator[str]:
    needed = [one.samples_needed for one in target.criteria if one.samples_needed is not None and one.n]
    if target.verdict is Verdict.INCONCLUSIVE and needed:
        yield f"give about {max(needed)} certification samples: with these the gate could not decide"
    if target.verdict is Verdict.FAIL:
        yield from _after_fail(target)
    if target.verdict is Verdict.PASS and target.chosen == "fp32":
        yield (
            f"on {target.target} no variant was both good and faster, so it gets fp32: prune the network "
            "('edgeopt prune'), or give a target with faster integer arithmetic"
        )
    if target.verdict is Verdict.PASS and all(one.speed is None for one in target.variants):
        yield f"nothing was timed for {target.target}: measure on the device before a rollout"


def _after_fail(target: TargetResult) -> Iterator[str]:
    if len(target.stages) > 1:
        before, after = max(pairwise(target.stages), key=lambda pair: pair[0].score - pair[1].score)
        if before.score > after.score:
            yield f"most accuracy was lost between '{before.stage}' and '{after.stage}': look there first"
    if target.sensitivity:
        worst = max(target.sensitivity, key=lambda one: one.error)
        yield f"the layer {worst.node} ({worst.operator}) suffers most from int8: a smoother activation there may help"
    yield "calibrate with data more like what the device sees, or allow more with --max-drop"


def _span(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return the range of ``values``, widened so that it is never empty."""
    low, high = min(values), max(values)
    return (low, high) if high - low >= least else (low - least / 2, high + least / 2)

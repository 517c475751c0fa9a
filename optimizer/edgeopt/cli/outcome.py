"""Showing a run while it goes on, and what came of it: the terminal's side of :mod:`edgeopt.pipeline`.

Example::

    with watching() as watcher:
        outcome = run(request, watcher)
    finish(outcome, options, as_json=False)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from edgeopt.cli.tracking_options import record_run
from edgeopt.gate import Verdict
from edgeopt.pipeline import Outcome, Watcher
from edgeopt.results import RunResult, SpeedResult, TargetResult, TrialResult, to_json
from edgeopt.search.budget import Budget
from edgeopt.search.choice import front
from edgeopt.wording import Wording, milliseconds, size
from edgeopt_contract.errors import ExitCode

__all__ = ["EXIT_CODES", "finish", "watching"]

EXIT_CODES = {"PASS": ExitCode.GOOD, "FAIL": ExitCode.GATE_FAIL, "INCONCLUSIVE": ExitCode.GATE_INCONCLUSIVE}
_COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}
_SHARES = Wording(is_share=True)
_SHOWN = 8  # variants of the front, at most, while a search goes on


class _Live(Watcher):
    """Shows the step under way, the time, and the front of what was found so far."""

    def __init__(self, *, with_front: bool) -> None:
        self._with_front = with_front
        self._spinner = Spinner("dots", text="starting …")
        self._trials: list[TrialResult] = []
        self._front: Table | None = None
        self._budget: Budget | None = None

    def begin(self, budget: Budget) -> None:
        self._budget = budget

    def step(self, words: str) -> None:
        self._spinner.update(text=f"{words} …")

    def trial(self, trial: TrialResult) -> None:
        self._trials.append(trial)
        if self._with_front:
            self._front = self._table()

    def __rich__(self) -> RenderableType:
        """Return what is shown now; the table is drawn only when it changes, not to disturb what is being timed."""
        lines: list[RenderableType] = [self._spinner]
        if self._with_front and self._budget is not None:
            lines.insert(0, Text(_progress(len(self._trials), self._budget)))
        if self._front is not None:
            lines.insert(1, self._front)
        return Group(*lines)

    def _table(self) -> Table:
        table = Table("fastest so far", "times as fast", "answers as fp32", "error", "size", box=None, pad_edge=False)
        best = sorted(front(self._trials), key=lambda index: -_ratio(self._trials[index]))[:_SHOWN]
        for trial in (self._trials[index] for index in best):
            table.add_row(
                trial.title,
                _times(trial.speed),
                "" if trial.agreement is None else _SHARES.score(trial.agreement),
                "" if trial.error is None else f"{trial.error:.4f}",
                size(trial.size_bytes or 0),
            )
        return table


@contextlib.contextmanager
def watching(*, with_front: bool = False) -> Iterator[Watcher]:
    """Give a watcher that shows progress on the error stream, and clears it at the end."""
    watcher = _Live(with_front=with_front)
    with Live(watcher, console=Console(stderr=True), transient=True, refresh_per_second=4):
        yield watcher


def finish(outcome: Outcome, options: Mapping[str, Any], *, as_json: bool) -> int:
    """Print what came of a run, record it unless the ``options`` say otherwise, and return the exit code."""
    output: Path = options["output"]
    if as_json:
        click.echo(to_json(outcome.result).decode(), nl=False)
    else:
        _show(outcome, output)
    if options["tracking"]:
        digest = None if outcome.bundle is None else outcome.bundle.digest
        record_run(outcome.result, output, digest, options["tracking_uri"])
    return int(EXIT_CODES[outcome.result.verdict])


def _show(outcome: Outcome, output: Path) -> None:
    """Print the verdict for each target, the variants side by side, notes, and where to read on."""
    console = Console(highlight=False)
    for target in outcome.result.targets:
        _show_target(console, outcome.result, target)
    for note in outcome.result.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if outcome.bundle is not None:
        console.print(f"bundle {outcome.bundle.digest}", soft_wrap=True)
    elif len(outcome.result.targets) > 1:
        lacking = ", ".join(one.target for one in outcome.result.targets if one.verdict is not Verdict.PASS)
        console.print(f"no bundle, for it would have to serve {lacking} too", markup=False, soft_wrap=True)
    console.print(f"report {output / 'report.html'}", soft_wrap=True)


def _show_target(console: Console, result: RunResult, target: TargetResult) -> None:
    chosen = f": {target.chosen} is chosen" if target.chosen else ""
    where = f" for {target.target}" if len(result.targets) > 1 else ""
    console.print(f"[bold {_COLOURS[target.verdict]}]{target.verdict}[/]{where}{chosen}")
    for reason in target.reasons:
        console.print(f"  {reason}", markup=False, soft_wrap=True)
    words = Wording(result.is_share)
    titles = ("variant", "gate", result.metric, "answers as fp32", "size", "latency", "times as fast")
    table = Table(*titles, box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    table.columns[0].min_width = max(len(variant.name) for variant in target.variants)
    for variant in target.variants:
        table.add_row(
            variant.name,
            variant.verdict,
            words.score(variant.metric.value),
            _SHARES.score(variant.agreement),
            size(variant.size_bytes),
            milliseconds(None if variant.speed is None else variant.speed.variant_ms),
            _times(variant.speed),
        )
    console.print(table)
    console.print(f"certified on: {target.execution}", markup=False, soft_wrap=True)


def _progress(tried: int, budget: Budget) -> str:
    """Say how many were tried, and how much of the time has gone."""
    spent = _clock(budget.spent)
    if budget.seconds is None:
        return f"{tried} tried in {spent}"
    return f"{tried} tried in {spent} of {_clock(budget.seconds)}, {_clock(max(budget.seconds - budget.spent, 0))} left"


def _clock(seconds: float) -> str:
    """Return minutes and seconds, as ``1:05``."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _times(speed: SpeedResult | None) -> str:
    return "not measured" if speed is None else f"{speed.ratio:.2f}"


def _ratio(trial: TrialResult) -> float:
    return 0.0 if trial.speed is None else trial.speed.ratio

"""edgeopt beside its peers: the same float models, data, splits, machine and stopwatch, in one run.

For each model it runs the real command ``edgeopt optimize`` under a budget of time, then each peer in a process of its
own, and judges all their models by the same code on the certification split, which no tool has seen. It prints a table
for each model and which claims hold, and writes JSON and a plot. A peer that fails is a row with its reason. Times
need a quiet machine. Example::

    python -m benchmarks.optimizer.compare --only digits --only letter --budget 1m --output comparison.json
    python -m benchmarks.optimizer.compare --only gru --output comparison.json --resume    # one more model
    python -m benchmarks.optimizer.compare --with-olive --with-inc --check
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import click
import numpy as np

from benchmarks.optimizer.cases import CASES, Case
from benchmarks.optimizer.claims import Held
from benchmarks.optimizer.judging import Court, Judged
from benchmarks.optimizer.machine import machine
from benchmarks.optimizer.ours import Run, run_edgeopt
from benchmarks.optimizer.peers.apart import INC, OLIVE, interpreter
from benchmarks.optimizer.peers.catalogue import APART, PEERS
from benchmarks.optimizer.peers.port import Made, Refused
from benchmarks.optimizer.peers.worker import Result, quantized, write_work
from benchmarks.optimizer.plot import svg
from benchmarks.optimizer.record import Record
from benchmarks.optimizer.rows import EDGEOPT, Row, table
from edgeopt.timing import Plan

__all__ = ["main"]

_CACHE = Path("~/.cache/edgeopt-benchmark")
_REPETITIONS = 12
_LONGEST = 300  # characters of a complaint
_SEARCH = 12  # a search takes about as long as so many peers


@dataclass(slots=True)
class _Progress:
    """Says how far the run is and how long it may still take, on standard error."""

    total: int
    began: float
    done: int = 0

    def say(self, words: str, weight: int = 1) -> None:
        """Report that a step ended, which is expected to take ``weight`` times as long as one of weight one."""
        self.done += weight
        left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
        click.echo(f"[{self.done}/{self.total}] {words}; about {left / 60:.0f} min left", err=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """How the run is made."""

    plan: Plan
    budget: str
    limit_seconds: float
    peers: tuple[str, ...]
    cache: Path


@click.command(epilog="Example: python -m benchmarks.optimizer.compare --only letter --budget 1m")
@click.option("--only", multiple=True, type=click.Choice(list(CASES)), help="These models instead of all.")
@click.option("--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), help="These peers instead of all.")
@click.option("--budget", default="3m", show_default=True, help="Of edgeopt's search, for each model.")
@click.option("--limit", default=180.0, show_default=True, help="Seconds that a peer may take for one model.")
@click.option("--seconds", default=3.0, show_default=True, help="How long to time each model beside fp32.")
@click.option("--with-olive", is_flag=True, help="Olive too, in an environment of its own (pip installs it once).")
@click.option("--with-inc", is_flag=True, help="Intel Neural Compressor too, likewise.")
@click.option("--cache", type=click.Path(path_type=Path), default=_CACHE, show_default=True, help="Where those lie.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the JSON.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the plot (SVG).")
@click.option("--resume", is_flag=True, help="Keep the models that --output has already, and measure the others.")
@click.option("--check", is_flag=True, help="Exit with 1 when a claim is missed.")
def main(
    output: Path | None, plot: Path | None, *, check: bool, resume: bool, only: tuple[str, ...], **options: object
) -> None:
    """Measure edgeopt and its peers, print the tables and the claims."""
    setting = _setting(**options)  # type: ignore[arg-type]  # click gives what the options above say
    record = Record.read(output) if resume and output is not None and output.exists() else Record()
    measured = {row.case for row in record.rows}
    asked = [CASES[name] for name in only] or list(CASES.values())
    cases, left_out = _present([case for case in asked if case.name not in measured])
    record.left_out = {name: why for name, why in record.left_out.items() if name not in measured} | left_out
    progress = _Progress(len(cases) * (_SEARCH + len(setting.peers)), time.monotonic())
    for case in cases:
        before = machine()
        found = list(_measured(case, setting, progress))
        click.echo(table(found) + "\n")
        after = {"load_average_after": machine()["load_average"], "peers": _versions(setting.peers)}
        record.add(found, before | after)
        _write(output, plot, record)  # after each model: an interrupted run is not lost
    for name, reason in record.left_out.items():
        click.echo(f"left out: {name}: {reason}")
    click.echo("\n".join(map(str, record.claims)))
    if check and any(claim.held is Held.MISSED for claim in record.claims):
        raise SystemExit(1)


def _setting(budget: str, limit: float, seconds: float, cache: Path, peers: tuple[str, ...], **with_: bool) -> _Setting:
    asked = {OLIVE: with_["with_olive"], INC: with_["with_inc"]}
    chosen = peers or tuple(name for name in PEERS if name not in APART or asked[APART[name]])
    return _Setting(
        plan=Plan(seconds=seconds, repetitions=_REPETITIONS),
        budget=budget,
        limit_seconds=limit,
        peers=chosen,
        cache=cache.expanduser(),
    )


def _present(cases: Sequence[Case]) -> tuple[list[Case], dict[str, str]]:
    """Return the cases that can be measured here, and why the others cannot."""
    reasons = {case.name: case.missing() for case in cases}
    return [case for case in cases if reasons[case.name] is None], {n: r for n, r in reasons.items() if r is not None}


def _measured(case: Case, setting: _Setting, progress: _Progress) -> Iterator[Row]:
    """Yield edgeopt's row and then one for each peer."""
    court = Court.of(case)
    blank = Row(
        case=case.name,
        tool=EDGEOPT,
        samples=len(court.splits.certification),
        fp32_score=court.fp32_score,
        fp32_bytes=len(court.float_model),
        seconds=0.0,
    )
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as name:
        folder = Path(name)
        ours, row = _our_row(court, setting, blank, run_edgeopt(case, folder / "bundle", setting.budget))
        progress.say(f"{case.name}: {EDGEOPT}", _SEARCH)
        yield row
        write_work(folder, court.work())
        for peer in setting.peers:
            yield _peer_row(court, setting, replace(blank, tool=peer), _made_by(peer, folder, setting), ours)
            progress.say(f"{case.name}: {peer}")


def _our_row(court: Court, setting: _Setting, blank: Row, run: Run) -> tuple[Judged | None, Row]:
    """Return edgeopt's row, and the judgement of its choice that the peers' are counted against."""
    if run.report is None:
        return None, replace(blank, problem=f"exit code {run.code} and no report: {run.said.strip()[-_LONGEST:]}")
    roots = {str(split): root for split, root in court.splits.roots.items()}
    if roots != {name: split.hash for name, split in run.report.splits.items()}:
        raise SystemExit(f"{court.case.name}: the peers would be judged on other splits than edgeopt was")
    made, seconds = run.made(), run.report.seconds
    if made is None:
        return None, replace(blank, seconds=seconds, problem=f"nothing was chosen: {' '.join(run.target.reasons)}")
    judged = court.judge(made, setting.plan)
    return judged, replace(blank, seconds=seconds, what=made.note, figures=judged.figures)


def _made_by(peer: str, folder: Path, setting: _Setting) -> Result:
    apart, python = APART.get(peer), Path(sys.executable)
    if apart is not None:
        try:
            python = interpreter(setting.cache, apart)
        except Refused as error:
            return Result(made=None, seconds=0.0, problem=str(error))
    elif missing := _missing(PEERS[peer].needs):
        return Result(made=None, seconds=0.0, problem=f"not installed: pip install {' '.join(missing)}")
    return quantized(peer, folder, python, limit_seconds=setting.limit_seconds)


def _peer_row(court: Court, setting: _Setting, blank: Row, result: Result, ours: Judged | None) -> Row:
    blank = replace(blank, seconds=result.seconds)
    if result.made is None:
        return replace(blank, problem=result.problem)
    return _judged_row(court, setting, blank, result.made, ours)


def _judged_row(court: Court, setting: _Setting, blank: Row, made: Made, ours: Judged | None) -> Row:
    try:
        judged = court.judge(made, setting.plan)
    except Exception as error:  # whatever a runtime raises over a peer's model is that peer's row
        words = " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
        return replace(blank, what=made.note, problem=f"its model does not run: {words}")
    agrees = np.ones_like(judged.agrees) if ours is None else ours.agrees
    return replace(blank, what=made.note, figures=judged.beside(agrees))


def _missing(needs: Sequence[str]) -> list[str]:
    return [need for need in needs if _version(need) is None]


def _versions(peers: Sequence[str]) -> dict[str, str | None]:
    """Return the versions of what ``peers`` need; for those with their own environment, what pip was asked for."""
    here = {need for name in peers if name not in APART for need in PEERS[name].needs}
    asked = {requirement for name in peers if name in APART for requirement in APART[name].requirements}
    apart = {name: version or None for name, _, version in (one.partition("==") for one in sorted(asked))}
    return {need: _version(need) for need in sorted(here)} | apart


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _write(output: Path | None, plot: Path | None, record: Record) -> None:
    if output is not None:
        record.write(output)
    if plot is not None:
        plot.write_text(svg(record.rows))


if __name__ == "__main__":
    main()

"""Tell the story, check every chapter, and end with a summary: ``python -m demo [--keep] [--directory DIR]``.

Exits with 1 if any chapter did not happen. Afterwards only the reports are left; with ``--keep``, or after a
failure, also the logs and everything else.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from demo.story import CHAPTERS, Story
from demo.system import System


@dataclass(frozen=True)
class Outcome:
    """How one chapter went."""

    letter: str
    title: str
    happened: bool
    evidence: str
    seconds: float


@click.command()
@click.option("--directory", type=click.Path(path_type=Path), default=Path("demo-run"), show_default=True)
@click.option("--keep", is_flag=True, help="Keep logs, bundles and databases.")
def demo(directory: Path, *, keep: bool) -> None:
    """From a PyTorch model to a small fleet, and back when it misbehaves."""
    console = Console(highlight=False)
    if directory.exists():
        shutil.rmtree(directory)
    started = time.monotonic()

    def say(text: str) -> None:
        console.print(f"    [dim]{time.monotonic() - started:5.0f} s  {text}[/dim]", soft_wrap=True)

    with System(directory.absolute()) as system:
        story = Story(system, say)
        outcomes = _tell(story, console)
    complete = len(outcomes) == len(CHAPTERS) and all(o.happened for o in outcomes)
    report = _tidy(directory.absolute(), story.report, keep=keep or not complete)
    console.print(_summary(outcomes))
    console.print(f"HTML report: {report}" if report else "There is no HTML report.", soft_wrap=True)
    if not complete:
        console.print(f"[red]Not everything happened.[/red] Logs: {directory}", soft_wrap=True)
        sys.exit(1)


def _tell(story: Story, console: Console) -> list[Outcome]:
    """Go through the chapters; after one that did not happen, the rest would stand on nothing."""
    outcomes: list[Outcome] = []
    for letter, title, chapter in CHAPTERS:
        console.print(f"\n[bold]{letter}. {title}[/bold]")
        started = time.monotonic()
        try:
            evidence, happened = chapter(story), True
        except Exception as error:  # a chapter may fail in any way: that is its outcome
            evidence, happened = f"{type(error).__name__}: {error}", False
        outcomes.append(Outcome(letter, title, happened, evidence, time.monotonic() - started))
        console.print(f"    {'[green]✓[/green]' if happened else '[red]✗[/red]'} {evidence}", soft_wrap=True)
        if not happened:
            break
    return outcomes


def _tidy(directory: Path, report: Path, *, keep: bool) -> Path | None:
    """Leave the report alone in the directory unless everything is to be kept; return where it lies."""
    if not report.exists():
        return None
    if keep:
        return report
    kept = directory.with_name(f".{directory.name}-report.html")
    report.replace(kept)
    shutil.rmtree(directory)
    directory.mkdir()
    return kept.replace(directory / "report.html")


def _summary(outcomes: list[Outcome]) -> Table:
    table = Table(title="\nedgeopt demo", title_justify="left")
    for column in ("", "chapter", "", "what was seen"):
        table.add_column(column)
    table.add_column("seconds", justify="right")
    for o in outcomes:
        mark = "[green]yes[/green]" if o.happened else "[red]NO[/red]"
        table.add_row(o.letter, o.title, mark, o.evidence, f"{o.seconds:.0f}")
    return table


if __name__ == "__main__":
    demo()

"""``python -m benchmarks.agent``: what the agent adds to a device. A table, and JSON with the machine beside it.

Options: ``--output FILE``, ``--idle SECONDS``, ``--requests N``, ``--check`` (exit code 1 when a limit is broken).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.agent.bundles import picture_bundle
from benchmarks.agent.measures import Row, delivery, footprint, latency, monitoring
from benchmarks.agent.rig import Rig
from benchmarks.optimizer.machine import machine

_BUNDLE_BYTES = 5_000_000
_UPDATES = 3


@click.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures as JSON.")
@click.option("--idle", type=float, default=30.0, show_default=True, help="Seconds of idling.")
@click.option("--requests", type=click.IntRange(50), default=400, show_default=True, help="Requests to time.")
@click.option("--check", is_flag=True, help="Exit with 1 when a limit is broken.")
def main(output: Path | None, idle: float, requests: int, *, check: bool) -> None:
    """Measure one agent on this machine."""
    for program in ("mosquitto", "mosquitto_sub"):
        if shutil.which(program, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin") is None:
            raise click.ClickException(f"this needs {program}; on Debian: apt-get install mosquitto mosquitto-clients")
    with tempfile.TemporaryDirectory(prefix="edgeopt-bench-") as scratch:
        rows = _measure(Path(scratch), idle, requests)
    described = machine()
    _show(rows, f"{described['cpu']}, {described['cores']} cores, load {described['load_average']:.1f}")
    if output:
        figures = [asdict(row) | {"holds": row.holds} for row in rows]
        output.write_text(json.dumps({"machine": described, "rows": figures}, indent=1) + "\n", encoding="utf-8")
    if check and not all(row.holds for row in rows):
        sys.exit(1)


def _measure(scratch: Path, idle_seconds: float, requests: int) -> list[Row]:
    bundles = [picture_bundle(scratch / f"bundle-{n}", _BUNDLE_BYTES, str(n)) for n in range(1, _UPDATES + 1)]
    with Rig.start(scratch) as rig:
        rows = delivery(rig, bundles, scratch)
        rows += latency(rig, bundles[-1], requests)
        rows += footprint(rig, idle_seconds)
    return rows + monitoring(20_000)


def _show(rows: list[Row], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("", "figure", "limit", "beside it"):
        table.add_column(column, justify="right" if column in ("figure", "limit") else "left")
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:g} {row.unit}"
        figure = f"{row.value:.2f} {row.unit}"
        table.add_row(row.name, figure if row.holds else f"[red]{figure}[/red]", limit, row.beside)
    Console().print(table)


if __name__ == "__main__":
    main()

"""``python -m devices.emulator``: emulated boards and bad links by hand. From a checkout; ``make emulate`` is ``run``.

Exit codes are those of every edgeopt command: 0 good, 2 bad input or not possible here, 5 no network for the first
build. Example::

    python -m devices.emulator run --board raspberry-pi-4 --board jetson-nano --link 3G
    python -m devices.emulator link "3G loss=0.1" -- curl http://10.77.0.1:8000/
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import UsageError

__all__ = ["group", "main"]

_RUN_EXAMPLE = """\b
Example:
  python -m devices.emulator run
  python -m devices.emulator run --board raspberry-pi-4 --board jetson-nano --link 3G
  python -m devices.emulator run --link "delay_ms=300 loss=0.1 rate_bits=64000" --for 60s </dev/null
While it runs, type: temp raspberry-pi-4 85, cut jetson-nano, on jetson-nano, link raspberry-pi-4 2G, quit
"""
_LINK_EXAMPLE = """\b
Example:
  python -m devices.emulator link 3G -- bash
  python -m devices.emulator link "delay_ms=300 loss=0.1"
Without a command it prints how to run commands at both ends, and reads changes, one a line, as JSON:
  {"loss": 0.3}   {"down": true}   {"outage": 14}
"""


@click.group(epilog=_RUN_EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def group() -> None:
    """Small ARM computers and bad links, emulated on this machine."""


@group.command(epilog=_RUN_EXAMPLE)
@click.option("--board", "boards", multiple=True, metavar="KIND", help="As in devices/boards; default: one of each.")
@click.option("--link", "link_words", default="perfect", show_default=True, help="A named link, or name=value words.")
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), help="What to roll out.  [default: digits]")
@click.option("--for", "seconds", metavar="TIME", help="End after 60s, 5m ...; default: with 'quit' or Ctrl-C.")
@click.option("--directory", type=click.Path(path_type=Path), default=Path("emulated-run"), show_default=True)
def run(boards: tuple[str, ...], link_words: str, bundle: Path | None, seconds: str | None, directory: Path) -> None:
    """Start a fleet server, its broker and a small fleet of boards, and show them."""
    from rich.console import Console

    from devices.emulator.board_profile import board_names
    from devices.emulator.emulate import Plan, emulate
    from devices.emulator.orders import read_conditions
    from edgeopt.cli.operate_options import duration

    unknown = sorted(set(boards) - set(board_names()))
    if unknown:
        raise UsageError(f"expected boards out of {', '.join(board_names())}, got {', '.join(unknown)}")
    conditions, until = read_conditions(link_words.split()), None if seconds is None else duration(seconds)
    plan = Plan(
        directory=_fresh(directory.absolute()),
        boards=tuple(dict.fromkeys(boards)) or board_names(),
        conditions=conditions,
        bundle=bundle and bundle.absolute(),
        seconds=until,
    )
    _make_root()
    _become_privileged()
    try:
        emulate(plan, Console(highlight=False))
    except KeyboardInterrupt:
        click.echo("stopped")


@group.command(epilog=_LINK_EXAMPLE)
@click.option("--seed", default=0, show_default=True, help="Decides which packets are lost.")
@click.argument("conditions")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def link(conditions: str, command: tuple[str, ...], seed: int) -> int:
    """Emulate one link with CONDITIONS, a named link or name=value words, and run COMMAND at its far end."""
    from devices.emulator.link import link as start_link
    from devices.emulator.orders import read_conditions

    wanted = read_conditions(conditions.split())
    _become_privileged()
    with start_link(seed=seed, **asdict(wanted)) as line:
        if command:
            return subprocess.run(line.far.command(*command), check=False).returncode
        for name, end in (("near", line.near), ("far", line.far)):
            click.echo(f"{name:>4}  {end.address}  {' '.join(end.command('COMMAND'))}")
        for text in sys.stdin:
            click.echo(json.dumps(_changed(line, text)))
    return 0


@group.command()
def root() -> None:
    """Make the arm64 system of all boards, if it is not in the cache: about 20 s, 210 MB, and a network."""
    _make_root(click.echo)


def main() -> None:
    """Run the command line and exit with the documented code."""
    sys.exit(run_command(lambda: group(standalone_mode=False)))


def _changed(line: Any, text: str) -> dict[str, Any]:
    """Obey one line of JSON; return the link's conditions, or what was wrong."""
    try:
        changes = json.loads(text)
        if not isinstance(changes, dict):
            raise UsageError(f"expected a JSON object, got {text.strip()}")
        if "outage" in changes:
            line.outage(changes.pop("outage"))
        return asdict(line.change(**changes))
    except (UsageError, ValueError) as error:
        return {"error": str(error)}


def _fresh(directory: Path) -> Path:
    """Return the directory. Raises :class:`UsageError` when something is in it that is not a former run."""
    import shutil

    if directory.exists():
        if any(directory.iterdir()) and not (directory / "fleet" / "fleet.toml").exists():
            raise UsageError(f"{directory} is in use for something else: name another with --directory")
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    return directory


def _make_root(say: Any = lambda _: None) -> None:
    """Make the root while there is a network; under ``unshare`` there is none."""
    from devices.emulator.arm_root import arm_root

    with arm_root(say) as place:
        say(f"{place}")


def _become_privileged() -> None:
    """Start this program anew under ``unshare`` where only that may make networks."""
    from devices.emulator.namespaces import missing, privileged_prefix

    reason = missing()
    if reason is not None:
        raise UsageError(reason)
    prefix = privileged_prefix()
    if prefix:
        os.execvp(prefix[0], [*prefix, sys.executable, "-m", "devices.emulator", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()

"""The ``edgeopt`` command: one table of commands, each imported only when it is called.

So ``edgeopt --help`` answers at once, although some commands need torch. It does no work itself. Example::

    edgeopt quantize examples.digits:model --data examples.digits:data --max-drop 1% -o build/digits
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import NamedTuple

import click

from edgeopt_contract.commands import run_command

__all__ = ["COMMANDS", "Entry", "group", "main"]


class Entry(NamedTuple):
    """Where a command lives, as ``module:attribute``, and its line in the overview."""

    location: str
    summary: str


COMMANDS = {
    "quantize": Entry("edgeopt.cli.quantize:quantize", "Turn a model into a certified int8 bundle."),
    "optimize": Entry("edgeopt.cli.optimize:optimize", "Search for the fastest variant under a budget of time."),
    "prune": Entry("edgeopt.cli.prune:prune", "Take channels out of a model until it is measurably faster."),
    "verify": Entry("edgeopt.cli.verify:verify", "Check every byte of a bundle."),
    "emulator": Entry("edgeopt.cli.emulator:emulator", "Prepare this machine to certify for other kinds of CPU."),
    "explain": Entry("edgeopt.cli.explain:explain", "Show what a run found and what to try next."),
    "reproduce": Entry("edgeopt.cli.reproduce:reproduce", "Build a bundle again from its lineage, and compare."),
    "publish": Entry("edgeopt.cli.operate:publish", "Send a bundle to the fleet server."),
    "sign": Entry("edgeopt.cli.sign:sign", "Sign bundles, or changes of keys, with offline keys."),
    "bundles": Entry("edgeopt.cli.operate:bundles", "List the bundles that the fleet server holds."),
    "token": Entry("edgeopt.cli.operate_people:token", "Make, list and revoke tokens with which devices enrol."),
    "devices": Entry("edgeopt.cli.operate_devices:devices", "Show the devices of the fleet."),
    "cohorts": Entry("edgeopt.cli.operate_devices:cohorts", "Name groups of devices by what they are."),
    "rollout": Entry("edgeopt.cli.operate:rollout", "Send a bundle to devices in waves, watch it, and take it back."),
    "shadow": Entry("edgeopt.cli.operate_shadow:shadow", "Let a challenger run beside what serves, and compare."),
    "users": Entry("edgeopt.cli.operate_people:users", "Say who may do what: people, roles and keys."),
    "audit": Entry("edgeopt.cli.operate_people:audit", "Show who did what, and check the record."),
    "alerts": Entry("edgeopt.cli.operate:alerts", "Show what wants attention: drift, and alarms about security."),
}
_EPILOG = """\b
Example:
  edgeopt quantize examples.digits:model --data examples.digits:data --max-drop 1% -o build/digits
  edgeopt verify build/digits

\b
Exit codes: 0 good, 1 unexpected or the disk, 2 bad input, 3 gate FAIL, 4 gate INCONCLUSIVE, 5 unreachable.
"""


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's)
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].location.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)  # the table names nothing else
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (click's)
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(name="edgeopt", cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("edgeopt"), prog_name="edgeopt")
def group() -> None:
    """From a PyTorch model to a certified int8 model on every device, and back if it misbehaves."""


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    sys.exit(run_command(lambda: group(prog_name="edgeopt", standalone_mode=False)))

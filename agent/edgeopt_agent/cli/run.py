"""``edgeopt-agent run``: its options come from the table of settings, and its help is grouped like it.

Example::

    edgeopt-agent run --data /var/lib/edgeopt --source camera:frames --interval 0.1 --http 8080
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from edgeopt_agent.settings import SETTINGS, Setting

__all__ = ["run"]

_F = TypeVar("_F", bound=Callable[..., Any])
_EXAMPLE = """\b
Example:
  edgeopt-agent run --data /var/lib/edgeopt --source camera:frames --interval 0.1 --http 8080
  edgeopt-agent run --config /etc/edgeopt/agent.toml --window 3600
  EDGEOPT_AGENT_HTTP=8080 edgeopt-agent run --data /var/lib/edgeopt"""


class _Grouped(click.Command):
    """A command whose help shows its options by the groups of the settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups, and what belongs to none at the end."""
        groups: dict[str, list[tuple[str, str]]] = {setting.group: [] for setting in SETTINGS}
        named = {setting.name.replace("-", "_"): setting.group for setting in SETTINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(named.get(parameter.name or "", "Other"), []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def _option(setting: Setting) -> Callable[[_F], _F]:
    """Return the option of a setting."""
    shown = (
        ""
        if setting.default in (None, (), False)
        else f"  [default: {setting.default:g}]"
        if isinstance(setting.default, int | float)
        else f"  [default: {setting.default}]"
    )
    flags: dict[str, Any] = {"help": setting.help + shown}
    if setting.kind is bool:
        return click.option(f"--{setting.name}/--no-{setting.name}", **flags)
    kinds: dict[type, Any] = {Path: click.Path(path_type=Path), list: str}
    kind = kinds.get(setting.kind, setting.kind)
    return click.option(f"--{setting.name}", type=kind, multiple=setting.kind is list, **flags)


def _all_options(command: _F) -> _F:
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    return command


@click.command(cls=_Grouped, epilog=_EXAMPLE)
@_all_options
@click.option("--config", type=click.Path(path_type=Path), help="Settings; by default /etc/edgeopt/agent.toml.")
@click.pass_context
def run(ctx: click.Context, /, config: Path | None, **options: Any) -> None:
    """Serve models, take updates, report; until SIGTERM.

    Every option is also a variable EDGEOPT_AGENT_<NAME> and a key of agent.toml. What is given here counts first, then
    the environment, then the file, then the board's profile.
    """
    from edgeopt_agent.lean import keep_lean

    keep_lean()  # before anything else is imported
    import asyncio

    from edgeopt_agent.app import run_agent
    from edgeopt_agent.log import configure_logging
    from edgeopt_agent.settings import read_settings

    said = [name for name in options if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    settings = read_settings({name.replace("_", "-"): options[name] for name in said}, os.environ, config)
    configure_logging(settings.log_file)
    asyncio.run(run_agent(settings))

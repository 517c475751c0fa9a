"""The command ``edgeopt-fleet config``: which settings hold, and where each comes from; secrets are hidden.

Example::

    edgeopt-fleet config show fleet
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import click

__all__ = ["config"]

_WIDTH = 100


@click.group()
def config() -> None:
    """Show the settings of a fleet.

    Example: edgeopt-fleet config show fleet
    """


@config.command(epilog="\b\nExample:\n  edgeopt-fleet config show fleet")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def show(directory: Path, *, as_json: bool) -> None:
    """Print every setting of the fleet in DIRECTORY, its variable, and where its value comes from."""
    from edgeopt_fleet.config import ENVIRONMENT, Home, read_settings

    settings, sources = read_settings(Home(directory).config, os.environ)
    rows = [
        {
            "setting": field.name,
            "variable": f"{ENVIRONMENT}{field.name.upper()}",
            "value": "(hidden)" if not field.repr and getattr(settings, field.name) else getattr(settings, field.name),
            "from": sources.get(field.name, "default"),
        }
        for field in dataclasses.fields(settings)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        setting, where = f"{row['setting']} = {json.dumps(row['value'])}", f"# {row['from']}; {row['variable']}"
        line = f"{setting}  {where}"
        click.echo(line if len(line) <= _WIDTH else f"{where}\n{setting}")

"""The option ``--data`` of all commands but ``run``: given, or as ``run`` would find it.

Example::

    @click.command()
    @DATA
    def status(data: Path) -> None: …
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgeopt_agent.settings import locate_data

__all__ = ["DATA"]


def _located(ctx: click.Context, parameter: click.Parameter, given: Path | None) -> Path:  # noqa: ARG001  # click's call
    return locate_data(given, os.environ)


DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_located,
    help="Where this device keeps its state, if agent.toml does not say.",
)

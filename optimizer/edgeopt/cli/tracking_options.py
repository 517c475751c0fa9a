"""The options of commands whose runs are recorded in MLflow, and what such a command does with them at its end.

Example::

    @click.command()
    @tracking_options
    def quantize(*, tracking: bool, tracking_uri: str | None, **options: Any) -> int: ...
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgeopt.results import RunResult

__all__ = ["record_run", "tracking_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


def tracking_options(command: Command) -> Command:
    """Give ``command`` the parameters ``tracking`` (a bool) and ``tracking_uri`` (``None``: the usual store)."""
    uri = click.option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow's store: a folder, sqlite:///FILE or https://…  Else MLFLOW_TRACKING_URI, or sqlite:///mlflow.db.",
    )
    switch = click.option(
        "--tracking/--no-tracking",
        default=True,
        envvar="EDGEOPT_TRACKING",
        help="Whether to record the run in MLflow; EDGEOPT_TRACKING=0 is --no-tracking.",
    )
    return switch(uri(command))


def record_run(run: RunResult, output: Path, digest: str | None, uri: str | None) -> None:
    """Record ``run`` and say where, on stderr; a failure is a sentence there, and never an exception.

    ``output`` is the directory that was written, ``digest`` the bundle's, ``None`` without one.
    """
    from edgeopt.tracking.connection import default_uri
    from edgeopt.tracking.runs import track_or_warn

    def warn(sentence: str) -> None:
        click.echo(f"warning: {sentence}", err=True)

    tracked = track_or_warn(run, output, digest, default_uri() if uri is None else uri, warn)
    if tracked is not None:
        version = "" if tracked.model_version is None else f", models:/{tracked.model}/{tracked.model_version}"
        click.echo(f"recorded in MLflow at {tracked.uri}: run {tracked.run_id}{version}", err=True)

"""The command line of the fleet server: ``init`` makes a fleet, ``serve`` runs it.

What operators do with a running fleet is in the ``edgeopt`` command. Example::

    edgeopt-fleet init fleet
    edgeopt-fleet serve fleet
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgeopt_contract.commands import run_command

__all__ = ["group", "main"]


@click.group(
    epilog="\b\nExample:\n  edgeopt-fleet init fleet\n  edgeopt-fleet serve fleet",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="edgeopt")
def group() -> None:
    """Serve a fleet of devices: registry, rollouts, telemetry and drift."""


@group.command(epilog="\b\nExample:\n  edgeopt-fleet init fleet --host 127.0.0.1 --http-port 8080 --mqtt-port 1883")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that API and broker listen on.")
@click.option("--http-port", type=click.IntRange(1, 65535), help="Port of the API.  [default: a free one]")
@click.option("--mqtt-port", type=click.IntRange(1, 65535), help="Port of the broker.  [default: a free one]")
@click.option(
    "--tick-seconds",
    type=click.FloatRange(0.01, 86400),
    default=0.5,
    show_default=True,
    help="How often rollouts are looked at.",
)
@click.option(
    "--drift-look-seconds",
    type=click.FloatRange(0.01, 86400),
    default=30.0,
    show_default=True,
    help="How often cohorts are compared with their reference profile.",
)
def init(
    directory: Path,
    host: str,
    http_port: int | None,
    mqtt_port: int | None,
    tick_seconds: float,
    drift_look_seconds: float,
) -> None:
    """Make a new fleet in DIRECTORY: settings, keys and database.

    The operator's address and key are written to DIRECTORY/operator.json.
    """
    from edgeopt_fleet.config import FleetConfig, Home
    from edgeopt_fleet.server import create_fleet, free_port

    config = FleetConfig(
        host=host,
        http_port=http_port or free_port(host),
        mqtt_port=mqtt_port or free_port(host),
        tick_seconds=tick_seconds,
        drift_look_seconds=drift_look_seconds,
    )
    home = Home(directory)
    create_fleet(home, config)
    click.echo(f"made a fleet in {directory}; now run: edgeopt-fleet serve {directory}")
    click.echo(f"for the operator's commands: export EDGEOPT_FLEET={home.operator.absolute()}")


@group.command(epilog="\b\nExample:\n  edgeopt-fleet serve fleet")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--verbose", is_flag=True, help="Say more about what the server does.")
def serve(directory: Path, *, verbose: bool) -> None:
    """Serve the fleet in DIRECTORY until SIGTERM or Ctrl-C: API, rollouts, telemetry and broker."""
    import asyncio
    import logging

    from edgeopt_fleet.config import Home
    from edgeopt_fleet.server import serve as serve_fleet

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("edgeopt_fleet").setLevel(logging.INFO)
    asyncio.run(serve_fleet(Home(directory)))


def main() -> None:
    """Run the command line; the exit codes are those of :class:`edgeopt_contract.errors.ExitCode`."""
    sys.exit(run_command(lambda: group(standalone_mode=False)))

"""The command line of the fleet server: ``init`` makes a fleet, ``serve`` runs it.

What operators do with a running fleet is in the ``edgeopt`` command. Example::

    edgeopt-fleet init fleet
    edgeopt-fleet serve fleet
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import UsageError
from edgeopt_fleet.cli_keys import keys

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
@click.option("--plain", is_flag=True, help="Passwords and no encryption at the broker: only for trying on loopback.")
@click.option("--tls", is_flag=True, help="The API speaks HTTPS with a certificate of the fleet's own CA.")
@click.option("--name", "names", multiple=True, help="Name or address under which devices reach it; repeatable.")
@click.option(
    "--broker",
    type=click.Choice(["embedded", "mosquitto"]),
    default="embedded",
    show_default=True,
    help="Which broker; for mosquitto its files are written to DIRECTORY/broker.",
)
@click.option("--broker-reload", default="", help="Command that makes mosquitto read its files again.")
@click.option("--mqtt-host", default="", help="Where devices reach the broker.  [default: where they reach the API]")
@click.option(
    "--certificate-days",
    type=click.FloatRange(0.0001, 3650),
    default=90.0,
    show_default=True,
    help="How long a device's certificate lasts; it is renewed after two thirds.",
)
def init(directory: Path, http_port: int | None, mqtt_port: int | None, **options: Any) -> None:
    """Make a new fleet in DIRECTORY: settings, keys and database.

    Devices connect to the broker with certificates of the fleet's own CA. The operator's address and key are written to
    DIRECTORY/operator.json.
    """
    from edgeopt_fleet.config import FleetConfig, Home
    from edgeopt_fleet.server import create_fleet, free_port

    host = options["host"]
    try:
        config = FleetConfig(http_port=http_port or free_port(host), mqtt_port=mqtt_port or free_port(host), **options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    home = Home(directory)
    create_fleet(home, config)
    if config.broker == "mosquitto":
        click.echo(f"start the broker first: mosquitto -c {(home.broker / 'mosquitto.conf').absolute()}")
    click.echo(f"made a fleet in {directory}; now run: edgeopt-fleet serve {directory}")
    click.echo("all signing keys are on this server, which is fine for trying out; else see: edgeopt-fleet keys --help")
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


group.add_command(keys)


def main() -> None:
    """Run the command line; the exit codes are those of :class:`edgeopt_contract.errors.ExitCode`."""
    sys.exit(run_command(lambda: group(standalone_mode=False)))

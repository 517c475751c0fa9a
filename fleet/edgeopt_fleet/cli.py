"""The command line of the fleet server: ``init`` makes a fleet, ``serve`` runs it.

What operators do with a running fleet is in the ``edgeopt`` command. Example::

    edgeopt-fleet init fleet
    edgeopt-fleet serve fleet
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import UsageError
from edgeopt_fleet.cli_config import config
from edgeopt_fleet.cli_keys import keys
from edgeopt_fleet.cli_people import audit, users
from edgeopt_fleet.cli_storage import COMMANDS as STORAGE_COMMANDS

if TYPE_CHECKING:
    from edgeopt_fleet.config import Home

__all__ = ["group", "logging_options", "main"]

directory_argument = click.argument("directory", type=click.Path(path_type=Path))


def logging_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every process that runs on."""
    verbose = click.option("--verbose", is_flag=True, help="Say more about what the process does.")
    style = click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        help="Lines for people, or one JSON object a line.  [default: the setting log_format]",
    )
    return verbose(style(command))


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
    type=click.Choice(["embedded", "mosquitto", "nats-cluster"]),
    default="embedded",
    show_default=True,
    help="Which broker; for mosquitto its files are written to DIRECTORY/broker.",
)
@click.option(
    "--broker-node",
    "broker_nodes",
    multiple=True,
    help="With nats-cluster: NAME=HOST:MQTT-PORT:ROUTE-PORT of a node; repeatable, usually three.",
)
@click.option("--database", default="", help="postgresql://…; its tables are made.  [default: SQLite in DIRECTORY]")
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
    from edgeopt_fleet.founding import create_fleet
    from edgeopt_fleet.web import free_port

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
@directory_argument
@logging_options
def serve(directory: Path, **logging: Any) -> None:
    """Serve the fleet in DIRECTORY until SIGTERM or Ctrl-C: API, rollouts, telemetry and broker."""
    from edgeopt_fleet.server import serve as run

    _run(directory, run, **logging)


@group.command(epilog="\b\nExample:\n  edgeopt-fleet api fleet")
@directory_argument
@logging_options
def api(directory: Path, **logging: Any) -> None:
    """Answer the API of the fleet in DIRECTORY, and nothing else; as many such processes as wanted."""
    from edgeopt_fleet.server import serve_api as run

    _run(directory, run, **logging)


@group.command(epilog="\b\nExample:\n  edgeopt-fleet worker fleet")
@directory_argument
@logging_options
def worker(directory: Path, **logging: Any) -> None:
    """Hear the devices, move rollouts on, look for drift; or stand by while other workers do."""
    from edgeopt_fleet.server import serve_worker as run

    _run(directory, run, **logging)


@group.command(epilog="\b\nExample:\n  edgeopt-fleet broker fleet --node a")
@directory_argument
@click.option("--node", required=True, help="Which node of the setting broker_nodes.")
@logging_options
def broker(directory: Path, node: str, **logging: Any) -> None:
    """Run one node of the NATS cluster of the fleet in DIRECTORY."""
    from edgeopt_fleet.server import serve_broker

    _run(directory, lambda home: serve_broker(home, node), **logging)


def _run(
    directory: Path, run: Callable[[Home], Coroutine[Any, Any, None]], *, verbose: bool, log_format: str | None
) -> None:
    """Log as asked, then run until a signal comes."""
    import asyncio
    import logging

    from edgeopt_fleet.config import Home, read_config
    from edgeopt_fleet.logs import configure

    home = Home(directory)
    configure(log_format or read_config(home.config).log_format, logging.INFO if verbose else logging.WARNING)
    asyncio.run(run(home))


group.add_command(config)
group.add_command(keys)
for command in STORAGE_COMMANDS:
    group.add_command(command)
group.add_command(users)
group.add_command(audit)


def main() -> None:
    """Run the command line; the exit codes are those of :class:`edgeopt_contract.errors.ExitCode`."""
    sys.exit(run_command(lambda: group(standalone_mode=False)))

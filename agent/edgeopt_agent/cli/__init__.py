"""The command ``edgeopt-agent``: ``enroll``, ``renew``, ``run``, ``batch``, ``status``, ``doctor``, ``rollback``.

It parses arguments. Exit codes: 0 good, 1 disk or unexpected, 2 bad input, 5 no fleet answers (``enroll`` only: ``run``
waits for a broker).
Example::

    edgeopt-agent enroll --server https://fleet.example --token … --device cam-1 --data /var/lib/edgeopt
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgeopt_agent import AGENT_VERSION
from edgeopt_agent.cli.batch import batch
from edgeopt_agent.cli.data import DATA
from edgeopt_agent.cli.look import doctor, status
from edgeopt_agent.cli.run import run
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import UsageError

__all__ = ["cli", "main"]


def _example(*lines: str) -> str:
    """Return an epilog that click prints as it stands."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


_GROUP_EXAMPLE = _example(
    "edgeopt-agent enroll --server http://10.0.0.1:8000 --token T --device cam-1 --data ./cam-1",
    "edgeopt-agent run --data ./cam-1 --source camera:frames",
)
_ENROLL_EXAMPLE = _example(
    'edgeopt-agent enroll --server https://fleet.example --token "$TOKEN" --device cam-1 \\',
    "    --tag site=oslo --data /var/lib/edgeopt",
)
_RENEW_EXAMPLE = _example(
    "edgeopt-agent renew --data /var/lib/edgeopt",
)
_ROLLBACK_EXAMPLE = _example(
    "edgeopt-agent rollback --data /var/lib/edgeopt",
)


def main() -> None:
    """Run the command line and exit with the documented code."""
    sys.exit(run_command(lambda: cli(standalone_mode=False)))


@click.group(epilog=_GROUP_EXAMPLE, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(AGENT_VERSION, prog_name="edgeopt-agent")
def cli() -> None:
    """Run models on this device and keep them up to date."""


@cli.command(epilog=_ENROLL_EXAMPLE)
@click.option("--server", required=True, help="Address of the fleet, e.g. https://fleet.example.")
@click.option("--token", required=True, envvar="EDGEOPT_TOKEN", help="One-time token [env: EDGEOPT_TOKEN].")
@click.option("--device", required=True, help="Name of this device: letters, digits, '-' and '_'.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag; may be given several times.")
@click.option("--replace", is_flag=True, help="Give up the identity that is there, for instance one that was revoked.")
@DATA
def enroll(server: str, token: str, device: str, tags: tuple[str, ...], data: Path, *, replace: bool) -> None:
    """Make a key on this device and get a certificate for it, with a one-time token.

    The token also says which fleet it is from, so no other one can pose as it. The private key never leaves DATA. If
    the answer was lost, give the same command again.
    """
    from edgeopt_agent.credentials.enrolment import Order, enrol
    from edgeopt_agent.device.machine import read_capabilities
    from edgeopt_contract.enrolment import EnrolToken
    from edgeopt_contract.values import check_device_id

    try:
        order = Order(
            server=server,
            token=EnrolToken.parse(token),
            device=check_device_id(device),
            tags=_read_tags(tags),
            capabilities=read_capabilities(),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    identity = enrol(order, data, replace=replace)
    click.echo(f"{identity.device} is enrolled; its identity is in {data}")


@cli.command(epilog=_RENEW_EXAMPLE)
@DATA
def renew(data: Path) -> None:
    """Get the next certificate now; 'run' does so by itself after two thirds of its life.

    An expired one can be renewed too, unless it was revoked. The agent takes the new one over at its next connection.
    """
    import time

    from edgeopt_agent.credentials.enrolment import renew as renew_identity

    renewed = renew_identity(data, now=time.time())
    until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(renewed.access.valid_until))
    click.echo(f"{renewed.device} has a certificate until {until} UTC")


@cli.command(epilog=_ROLLBACK_EXAMPLE)
@DATA
def rollback(data: Path) -> None:
    """Go back to the bundle before, from this very device; works without a network."""
    from edgeopt_agent.update.orders import order_back

    told = order_back(data)
    click.echo("the agent was told" if told else "no agent runs here: it will go back when it is started")


cli.add_command(batch)
cli.add_command(run)
cli.add_command(status)
cli.add_command(doctor)


def _read_tags(tags: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for tag in tags:
        key, separator, value = tag.partition("=")
        if not separator or not key:
            raise UsageError(f"--tag: expected KEY=VALUE, got {tag!r}")
        pairs[key] = value
    return pairs

"""The command ``edgeopt-agent``: ``enroll``, ``renew``, ``run``, ``batch``, ``status``, ``rollback``. Parses arguments.

Exit codes: 0 good, 1 disk or unexpected, 2 bad input, 5 no fleet answers (``enroll`` only: ``run`` waits for a broker).
Example::

    edgeopt-agent enroll --server https://fleet.example --token … --device cam-1 --data /var/lib/edgeopt
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from edgeopt_agent import AGENT_VERSION
from edgeopt_agent.cli_batch import batch
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
_RUN_EXAMPLE = _example(
    "edgeopt-agent run --data /var/lib/edgeopt --source camera:frames --interval 0.1 --http 8080",
)
_STATUS_EXAMPLE = _example(
    "edgeopt-agent status --data /var/lib/edgeopt --json",
)
_ROLLBACK_EXAMPLE = _example(
    "edgeopt-agent rollback --data /var/lib/edgeopt",
)
_DATA = click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where this device keeps its state."
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
@_DATA
def enroll(server: str, token: str, device: str, tags: tuple[str, ...], data: Path, *, replace: bool) -> None:
    """Make a key on this device and get a certificate for it, with a one-time token.

    The token also says which fleet it is from, so no other one can pose as it. The private key never leaves DATA. If
    the answer was lost, give the same command again.
    """
    from edgeopt_agent.enrolment import Order, enrol
    from edgeopt_agent.machine import read_capabilities
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
@_DATA
def renew(data: Path) -> None:
    """Get the next certificate now; 'run' does so by itself after two thirds of its life.

    An expired one can be renewed too, unless it was revoked. The agent takes the new one over at its next connection.
    """
    import time

    from edgeopt_agent.enrolment import renew as renew_identity

    renewed = renew_identity(data, now=time.time())
    until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(renewed.access.valid_until))
    click.echo(f"{renewed.device} has a certificate until {until} UTC")


@cli.command(epilog=_RUN_EXAMPLE)
@_DATA
@click.option("--source", "sources", multiple=True, help="module:factory, folder:PATH or http[:PORT]; repeatable.")
@click.option("--http", "http_port", type=click.IntRange(0, 65535), help="Short for --source http:PORT; 0 is any.")
@click.option("--interval", type=float, default=0.0, help="Seconds between two items of an iterable source.")
@click.option("--repeat", is_flag=True, help="Start an iterable source again when it ends.")
@click.option("--window", type=float, default=60.0, show_default=True, help="Seconds of one telemetry window.")
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of one inference.")
@click.option("--nice", type=click.IntRange(0, 19), default=0, show_default=True, help="Nice level of the runner.")
@click.option("--memory-limit", type=click.IntRange(64), metavar="MIB", help="Memory of one runner.")
@click.option("--one-runner", is_flag=True, help="There is no memory for two: an update ends the old runner first.")
@click.option("--latency-limit", type=float, metavar="MS", help="A bundle slower than this while it bakes is at fault.")
@click.option("--self-test", type=float, default=86_400.0, show_default=True, help="Seconds between two self-tests.")
@click.option("--infer-timeout", type=float, default=30.0, show_default=True, help="Seconds until a runner hangs.")
@click.option("--block-timeout", type=float, default=10.0, show_default=True, help="Seconds until a block is re-asked.")
@click.option("--delivery", default="auto", show_default=True, help="How blocks come: auto, mqtt or http.")
@click.option("--http-after", type=float, default=60.0, show_default=True, help="auto: seconds without MQTT's blocks.")
@click.option("--max-download-rate", type=float, metavar="KIB", help="KiB a second that a download may take.")
@click.option("--refresh", type=float, default=300.0, show_default=True, help="Seconds until the desired is re-asked.")
@click.option("--resend", type=float, default=10.0, show_default=True, help="Seconds until a report is sent again.")
def run(**options: Any) -> None:
    """Serve models, take updates, report; until SIGTERM."""
    from edgeopt_agent.lean import keep_lean

    keep_lean()  # before anything else is imported
    import asyncio

    from edgeopt_agent.app import run_agent
    from edgeopt_agent.config import AgentConfig
    from edgeopt_agent.log import configure_logging

    http, memory_mib, rate_kib = options["http_port"], options["memory_limit"], options["max_download_rate"]
    config = AgentConfig(
        data=options["data"],
        sources=(*options["sources"], *(() if http is None else (f"http:{http}",))),
        interval_seconds=options["interval"],
        repeat=options["repeat"],
        window_seconds=options["window"],
        threads=options["threads"],
        nice=options["nice"],
        runner_memory_bytes=memory_mib and memory_mib << 20,
        one_runner=options["one_runner"],
        latency_limit_us=None if options["latency_limit"] is None else 1000 * options["latency_limit"],
        self_test_seconds=options["self_test"],
        infer_timeout_seconds=options["infer_timeout"],
        block_timeout_seconds=options["block_timeout"],
        delivery=options["delivery"],
        http_after_seconds=options["http_after"],
        download_bytes_per_second=None if rate_kib is None else rate_kib * 1024,
        refresh_seconds=options["refresh"],
        resend_seconds=options["resend"],
    )
    configure_logging()
    asyncio.run(run_agent(config))


@cli.command(epilog=_STATUS_EXAMPLE)
@_DATA
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(data: Path, *, as_json: bool) -> None:
    """Show what this device runs and what it has still to tell; works without a network."""
    import json

    from edgeopt_agent.status import describe_status, read_status

    shown = read_status(data)
    click.echo(json.dumps(shown) if as_json else describe_status(shown))


@cli.command(epilog=_ROLLBACK_EXAMPLE)
@_DATA
def rollback(data: Path) -> None:
    """Go back to the bundle before, from this very device; works without a network."""
    from edgeopt_agent.orders import order_back

    told = order_back(data)
    click.echo("the agent was told" if told else "no agent runs here: it will go back when it is started")


cli.add_command(batch)


def _read_tags(tags: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for tag in tags:
        key, separator, value = tag.partition("=")
        if not separator or not key:
            raise UsageError(f"--tag: expected KEY=VALUE, got {tag!r}")
        pairs[key] = value
    return pairs

"""``edgeopt rollout approve`` and ``deny``: four eyes, where the fleet or a rollout asks for them.

The fleet refuses whoever created the rollout. Example::

    edgeopt rollout approve v2 --reason "tested on the bench"
"""

from __future__ import annotations

from pathlib import Path

import click

from edgeopt.cli.operate_options import connect, example, fleet_options, print_json

__all__ = ["approve", "deny"]


@click.command(epilog=example('edgeopt rollout approve v2 --reason "tested on the bench"'))
@click.argument("name")
@click.option("--reason", default="", help="Words that stay with the rollout.")
@fleet_options
def approve(name: str, reason: str, fleet: Path | None, *, as_json: bool) -> None:
    """Let a rollout go that somebody else created and that waits for approval."""
    _decide(name, "approve", reason, fleet, as_json=as_json)


@click.command(epilog=example('edgeopt rollout deny v2 --reason "not before the shop closes"'))
@click.argument("name")
@click.option("--reason", required=True, help="Why not; the words stay with the rollout.")
@fleet_options
def deny(name: str, reason: str, fleet: Path | None, *, as_json: bool) -> None:
    """End a rollout that waits for approval, and say why."""
    _decide(name, "deny", reason, fleet, as_json=as_json)


def _decide(name: str, decision: str, reason: str, fleet: Path | None, *, as_json: bool) -> None:
    with connect(fleet) as client:
        answer = client.decide_rollout(name, decision, reason)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"rollout {name} is {answer['state']}")

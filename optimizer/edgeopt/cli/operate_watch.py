"""Following one rollout or shadow over the fleet's events: asked for whenever the fleet tells of it, until it is over.

It shows nothing but, on the error stream, that events broke off. Example::

    for answer in follow(client, "rollouts", "v2", client.rollout, has_ended):
        print(answer["state"])
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from edgeopt_contract.errors import UnreachableError

if TYPE_CHECKING:
    from edgeopt.fleet_client import FleetClient

__all__ = ["follow", "say_lost"]

_RETRY_SECONDS = 1.0
_PATIENCE = 30  # asked in vain so often in a row, it gives up: a server that restarts is back by then


def follow(
    client: FleetClient,
    topic: str,
    name: str,
    ask: Callable[[str], dict[str, Any]],
    is_over: Callable[[dict[str, Any]], bool],
) -> Iterator[dict[str, Any]]:
    """Yield what ``ask`` answers about ``name``, first and at each of its events, until ``is_over`` of an answer.

    It is asked after the stream was opened, so nothing is missed in between. A fleet that does not answer is waited
    for; after half a minute its :class:`UnreachableError` is raised.
    """
    with contextlib.closing(client.events(topic, lost=say_lost)) as events:
        for event in events:
            if event is None or (event.name != "ready" and event.data.get("name") != name):
                continue
            answer = _asked(ask, name)
            yield answer
            if is_over(answer):
                return


def say_lost(why: str) -> None:
    """Tell whoever watches that events broke off; what is shown then is old until they go on."""
    click.echo(f"the fleet's events broke off ({why}); trying to go on where they did", err=True)


def _asked(ask: Callable[[str], dict[str, Any]], name: str) -> dict[str, Any]:
    failures = 0
    while True:
        try:
            return ask(name)
        except UnreachableError as error:
            failures += 1
            if failures > _PATIENCE:
                raise
            if failures == 1:
                say_lost(str(error))
        time.sleep(_RETRY_SECONDS)

"""On whose behalf the program acts at this moment, for the audit log.

A context variable: the API's guard sets it for each request, commands and workers set it once around all they do, and
whatever they call may ask. It decides nothing about rights. Example::

    with acting_as(Actor(name="alice", via="api", role=Role.OPERATOR)):
        rollouts.create(plan, now)               # its audit entry names alice
"""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from edgeopt_fleet.rights import Role

__all__ = ["NOBODY", "WORKER", "Actor", "acting_as", "current_actor", "whoever_types"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts: a user or device by name, and by which way (``api``, ``command`` or ``worker``).

    ``role`` is a user's; ``key`` names the API key that was shown by its beginning.
    """

    name: str
    via: str
    role: Role | None = None
    key: str = ""


NOBODY = Actor(name="nobody", via="api")  # who calls an operation that asks for no key
WORKER = Actor(name="edgeopt-fleet", via="worker")  # the fleet itself: the gate, time-outs, renewals

_ACTING: ContextVar[Actor] = ContextVar("edgeopt_fleet_acting", default=WORKER)


def current_actor() -> Actor:
    """Return who acts now; the fleet itself unless somebody else was named."""
    return _ACTING.get()


@contextlib.contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """Act for ``actor`` while the block runs."""
    token = _ACTING.set(actor)
    try:
        yield
    finally:
        _ACTING.reset(token)


def whoever_types() -> Actor:
    """Return the account of this machine that runs a command on the fleet's directory."""
    return Actor(name=f"command/{getpass.getuser()}", via="command")

"""Who does the work of a role: the rules of a lease.

A lease has an owner until a moment; whoever asks after that moment gets it. Every change of hands, and every new start
of the same owner, raises the *epoch*, so that whoever held it before can be told from who holds it now (Kleppmann, "How
to do distributed locking", 2016: fencing). The clock is an argument. This module does not say where leases are kept.
Example::

    >>> first = claim(Lease(Role.INGEST), "a", now=100.0, seconds=5.0)
    >>> claim(first, "b", now=104.0, seconds=5.0) is None
    True
    >>> second = claim(first, "b", now=106.0, seconds=5.0)
    >>> second.epoch, is_held(first, second)
    (2, False)
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

__all__ = ["Lease", "Role", "claim", "free", "is_held", "prolong"]


class Role(enum.StrEnum):
    """Work that one process does at a time."""

    INGEST = (
        "ingest"  # the fleet's connection to the broker: takes in what devices send, publishes what they should run
    )
    ROLLOUTS = "rollouts"  # moves rollouts on
    DRIFT = "drift"  # looks at cohorts
    TUF = "tuf"  # signs metadata again before they expire
    RETENTION = "retention"  # rolls up and deletes what is old


@dataclass(frozen=True, slots=True)
class Lease:
    """``owner`` does the work of ``role`` until ``expires_at`` (seconds on the database's clock); empty: nobody."""

    role: Role
    owner: str = ""
    epoch: int = 0
    expires_at: float = 0.0
    note: str = ""


def claim(present: Lease, owner: str, *, now: float, seconds: float) -> Lease | None:
    """Return the lease of a process that begins with the work as ``owner``, or None while another one holds it.

    The same owner gets it at once, with a new epoch: it was started anew and knows nothing of what it did before.
    """
    if present.owner not in ("", owner) and now < present.expires_at:
        return None
    return Lease(present.role, owner, present.epoch + 1, now + seconds)


def is_held(mine: Lease, present: Lease) -> bool:
    """Say whether ``mine`` is what stands. Past its time it still is, as long as nobody else has taken it."""
    return (mine.owner, mine.epoch) == (present.owner, present.epoch)


def prolong(mine: Lease, present: Lease, *, now: float, seconds: float) -> Lease | None:
    """Return ``mine`` with more time, or None when it has been taken."""
    return replace(mine, expires_at=now + seconds) if is_held(mine, present) else None


def free(mine: Lease) -> Lease:
    """Return what stands after ``mine`` was handed back: nobody, and the epoch is kept."""
    return Lease(mine.role, epoch=mine.epoch)

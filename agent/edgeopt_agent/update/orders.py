"""What a person at the device may order, with no network: go back to the bundle before.

The order is kept in the journal and the agent is told by a signal; one that does not run, or cannot be reached, carries
it out at its next start. The life cycle decides what it means. Example::

    order_back(Path("/var/lib/edgeopt"))          # True when a running agent was told
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from edgeopt_agent.credentials.identity import load_identity
from edgeopt_agent.device.lock import agent_of
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.update.journal import Journal
from edgeopt_agent.update.lifecycle import why_not_back
from edgeopt_contract.errors import UsageError

__all__ = ["SIGNAL", "order_back"]

SIGNAL = signal.SIGUSR1


def order_back(data: Path) -> bool:
    """Order the device of ``data`` back to the bundle before; say whether a running agent was told.

    Raises :class:`UsageError` when there is nothing to go back to, with the reason, and :class:`StorageError`.
    """
    load_identity(data)
    path = data / "agent.db"
    if not path.exists():
        raise UsageError(f"no agent has run on {data} yet: there is nothing to go back to")
    spool = Spool.open(path, now_ms=time.time_ns() // 1_000_000)
    try:
        journal = Journal(spool)
        reason = why_not_back(journal.load())
        if reason:
            raise UsageError(f"this device cannot go back: {reason}")
        journal.order_back()
    finally:
        spool.close()
    agent = agent_of(data)
    if agent is not None:
        os.kill(agent, SIGNAL)
    return agent is not None

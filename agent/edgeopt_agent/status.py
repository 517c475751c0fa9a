"""What ``edgeopt-agent status`` says, read from the files of a device, whether its agent runs or not.

Example::

    read_status(Path("/var/lib/edgeopt"))["running"]["version"]
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from edgeopt_agent.identity import load_identity
from edgeopt_agent.journal import Journal
from edgeopt_agent.lifecycle import State, Update, switch_wait_seconds
from edgeopt_agent.spool import Spool
from edgeopt_contract.bundle import read_manifest
from edgeopt_contract.errors import BundleError
from edgeopt_contract.values import digest_of

__all__ = ["describe_status", "read_status"]


def read_status(data: Path) -> dict[str, Any]:
    """Return device, running bundle, last update and spool totals.

    Raises :class:`~edgeopt_contract.errors.UsageError` when ``data`` is not that of an enrolled device.
    """
    identity = load_identity(data)
    status: dict[str, Any] = {"device": identity.device, "running": _running(data), "update": None, "spool": None}
    spool = Spool.look_into(data / "agent.db")
    if spool is not None:
        try:
            status["spool"] = asdict(spool.totals())
            status["update"] = _update(Journal(spool).load())
        finally:
            spool.close()
    return status


def describe_status(status: dict[str, Any]) -> str:
    """Return ``status`` as lines for people."""
    running, update, spool = status["running"], status["update"], status["spool"]
    lines = [f"device   {status['device']}"]
    lines.append(
        f"runs     {running['name']} {running['version']} ({running['bundle'][:12]})" if running else "runs     -"
    )
    if update:
        result = f", {update['result']}" if update["result"] else ""
        detail = f": {update['detail']}" if update["detail"] else ""
        if update["switches_in_seconds"]:
            detail = f": may switch in {timedelta(seconds=update['switches_in_seconds'])}"
        lines.append(f"update   {update['job']}: {update['state']}{result}{detail}")
    if spool:
        lines.append(
            f"spool    {spool['last_number']} messages numbered, {spool['unacknowledged']} wait; "
            f"{spool['rows']} inferences, {spool['errors']} errors"
        )
    return "\n".join(lines)


def _running(data: Path) -> dict[str, str] | None:
    """Return what the pointer names."""
    try:
        manifest, raw = read_manifest(data / "slots" / "current")
    except BundleError:
        return None
    return {"bundle": digest_of(raw), "name": manifest.name, "version": manifest.version}


def _update(update: Update) -> dict[str, Any] | None:
    if update.desired is None:
        return None
    return {
        "job": update.job,
        "bundle": update.desired.bundle,
        "state": str(update.state),
        "result": str(update.result) if update.result else None,
        "detail": update.detail,
        "at": int(update.at),
        "switches_in_seconds": _switches_in(update),
    }


def _switches_in(update: Update) -> int | None:
    """Return how long a staged update still waits for its window; None when it does not wait."""
    if update.desired is None or update.state is not State.STAGED:
        return None
    now = time.time()
    return round(switch_wait_seconds(update.desired, now, time.localtime(now).tm_gmtoff))

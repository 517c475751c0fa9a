"""What ``edgeopt-agent status`` says, read from the files of a device, whether its agent runs or not.

Example::

    read_status(Path("/var/lib/edgeopt"))["running"]["version"]
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeopt_agent.credentials.identity import Identity, load_identity
from edgeopt_agent.device.gauges import read_gauges
from edgeopt_agent.device.lock import agent_of
from edgeopt_agent.reports.books import shadow_counts
from edgeopt_agent.reports.counts import ERRORS, FEATURES, ROWS, Counts
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.shadow.lifecycle import Trial
from edgeopt_agent.shadow.record import Records
from edgeopt_agent.update.journal import Journal
from edgeopt_agent.update.lifecycle import Update, switch_wait_seconds
from edgeopt_agent.update.transitions import State
from edgeopt_contract.agreement import AGREED, AGREEMENT, DISAGREED, INCOMPARABLE
from edgeopt_contract.bundle import read_manifest
from edgeopt_contract.errors import BundleError, StorageError
from edgeopt_contract.values import digest_of

__all__ = ["ago", "describe_status", "read_status"]

_OWN_MEMORY = ("agent_bytes", "runner_bytes")  # of this process here, not of the agent


def read_status(data: Path) -> dict[str, Any]:
    """Return device, agent, running bundle, last update and shadow, spool totals, the certificate's end, and gauges.

    Times are seconds since 1970. Raises :class:`~edgeopt_contract.errors.UsageError` when ``data`` is not that of an
    enrolled device.
    """
    identity = load_identity(data)
    status: dict[str, Any] = {
        "device": identity.device,
        "agent": agent_of(data),
        "running": _running(data),
        "update": None,
        "shadow": None,
        "spool": None,
        "certificate_until": _certificate_until(identity),
        "gauges": {name: value for name, value in read_gauges(data).items() if name not in _OWN_MEMORY},
    }
    spool = Spool.look_into(data / "agent.db")
    if spool is not None:
        try:
            status["spool"] = asdict(spool.totals())
            status["update"] = _update(Journal(spool).load())
            status["shadow"] = _shadow(Records(spool).load(), data)
        finally:
            spool.close()
    return status


def describe_status(status: dict[str, Any], now: float) -> str:
    """Return ``status`` as lines for people."""
    running, agent = status["running"], status["agent"]
    lines = [
        f"device       {status['device']}, {f'agent runs (process {agent})' if agent else 'no agent runs'}",
        "runs         -"
        if running is None
        else f"runs         {running['name']} {running['version']} ({running['bundle'][:12]}), "
        f"since {ago(running['since'], now)}",
    ]
    lines += _describe_update(status["update"], now) if status["update"] else []
    lines += _describe_shadow(status["shadow"], now) if status["shadow"] else []
    lines += _describe_spool(status["spool"], now) if status["spool"] else []
    if status["certificate_until"] is not None:
        days = (status["certificate_until"] - now) / 86_400
        lines.append(f"certificate  {f'{days:.0f} days left' if days >= 0 else f'expired {-days:.0f} days ago'}")
    gauges = status["gauges"]
    felt = [f"{gauges['disk_free_bytes'] / 1e6:.0f} MB of disk free"]
    felt += [f"{gauges['memory_bytes'] / 1e6:.0f} MB of memory free"] if "memory_bytes" in gauges else []
    felt += [f"{gauges['temperature_celsius']:.0f} °C"] if "temperature_celsius" in gauges else []
    felt += ["throttled"] if gauges.get("throttled") else []
    lines.append(f"machine      {', '.join(felt)}")
    return "\n".join(lines)


def ago(at: float, now: float) -> str:
    """Return how long ``at`` lies back, in the unit that suits it."""
    seconds = max(0.0, now - at)
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} seconds ago"


def _describe_update(update: dict[str, Any], now: float) -> list[str]:
    result = f", {update['result']}" if update["result"] else ""
    detail = f": {update['detail']}" if update["detail"] else ""
    lines = [f"update       {update['job']}: {update['state']}{result}{detail}, {ago(update['at'], now)}"]
    if update["switch_wait_seconds"]:
        lines.append(f"             may switch in {update['switch_wait_seconds']:.0f} seconds")
    return lines


def _describe_shadow(shadow: dict[str, Any], now: float) -> list[str]:
    detail = f": {shadow['detail']}" if shadow["detail"] else ""
    lines = [f"shadow       {shadow['job']}: {shadow['state']}{detail}, {ago(shadow['at'], now)}"]
    if shadow["state"] == State.SHADOWING:
        hours = max(0.0, shadow["until"] - now) / 3600
        lines.append(f"             {shadow['bundle'][:12]} runs {shadow['share']:.0%} of it, {hours:.1f} h to go")
    if counted := shadow["compared"]:
        judged = counted["agreed"] + counted["disagreed"]
        share = f", {counted['agreed'] / judged:.1%} of {judged} with the same answer" if judged else ""
        lines.append(f"             {counted['rows']} compared since boot{share}, {counted['errors']} errors")
    if shadow["paused"]:
        lines.append(f"             paused: {shadow['paused']}")
    return lines


def _describe_spool(spool: dict[str, Any], now: float) -> list[str]:
    heard = f"last heard of {ago(spool['acknowledged_at'], now)}" if spool["acknowledged_at"] else "never heard of"
    return [
        f"fleet        {heard}; {spool['unacknowledged']} messages wait",
        f"counted      {spool['rows']} inferences, {spool['errors']} errors",
    ]


def _running(data: Path) -> dict[str, Any] | None:
    """Return what the pointer names, and when it was moved there."""
    pointer = data / "slots" / "current"
    try:
        manifest, raw = read_manifest(pointer)
        since = int(pointer.lstat().st_mtime)
    except (BundleError, OSError):
        return None
    return {"bundle": digest_of(raw), "name": manifest.name, "version": manifest.version, "since": since}


def _certificate_until(identity: Identity) -> int | None:
    return identity.access.valid_until if identity.access.mqtt.tls else None


def _update(update: Update) -> dict[str, Any] | None:
    if update.desired is None:
        return None
    waits = update.state is State.STAGED
    now = time.time()
    return {
        "job": update.job,
        "bundle": update.desired.bundle,
        "state": str(update.state),
        "result": str(update.result) if update.result else None,
        "detail": update.detail,
        "at": int(update.at),
        "switch_wait_seconds": switch_wait_seconds(update.desired, now, time.localtime(now).tm_gmtoff) if waits else 0,
    }


def _shadow(trial: Trial, data: Path) -> dict[str, Any] | None:
    if trial.order is None:
        return None
    return {
        "job": trial.job,
        "bundle": trial.order.bundle,
        "share": trial.order.share,
        "until": trial.order.until,
        "state": str(trial.state),
        "detail": trial.detail,
        "paused": trial.paused,
        "at": int(trial.at),
        "compared": _compared(shadow_counts(data, trial.order.bundle, trial.job)),
    }


def _compared(path: Path) -> dict[str, int] | None:
    """Return what is counted in ``path`` since the machine was started; ``None`` when nothing is."""
    try:
        counts = Counts.look_into(path)
        try:
            cells = counts.snapshot()
        finally:
            counts.close()
    except StorageError:
        return None
    features = FEATURES
    for name, size in counts.layout.features:
        if name == AGREEMENT:
            agreement = cells[features : features + size]
            return {
                "rows": cells[ROWS],
                "errors": cells[ERRORS],
                "agreed": agreement[AGREED],
                "disagreed": agreement[DISAGREED],
                "incomparable": agreement[INCOMPARABLE],
            }
        features += size
    return None

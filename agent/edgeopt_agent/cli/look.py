"""``edgeopt-agent status`` and ``doctor``: for the person with the keyboard. Prints, and decides nothing.

Exit codes of ``doctor``: 0 good or warnings, 1 something fails. Example::

    edgeopt-agent doctor --data /var/lib/edgeopt
"""

from __future__ import annotations

from pathlib import Path

import click

from edgeopt_agent.cli.data import DATA
from edgeopt_contract.errors import ExitCode

__all__ = ["doctor", "status"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_STATUS_EXAMPLE = "\b\nExample:\n  edgeopt-agent status --data /var/lib/edgeopt --json"
_DOCTOR_EXAMPLE = "\b\nExample:\n  edgeopt-agent doctor --data /var/lib/edgeopt"


@click.command(epilog=_STATUS_EXAMPLE)
@DATA
@_JSON
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until interrupted.")
def status(data: Path, *, as_json: bool, watch: bool) -> None:
    """Show what this device runs and what it has still to tell; works without a network."""
    import json
    import time

    from edgeopt_agent.device.status import describe_status, read_status

    while True:
        shown = read_status(data)
        if watch and not as_json:
            click.clear()
        click.echo(json.dumps(shown) if as_json else describe_status(shown, time.time()))
        if not watch:
            return
        time.sleep(2)


@click.command(epilog=_DOCTOR_EXAMPLE)
@DATA
@_JSON
@click.pass_context
def doctor(ctx: click.Context, /, data: Path, *, as_json: bool) -> None:
    """Look for what keeps this device from serving, updating or reporting, and say what to do.

    Works with an agent beside it and without, and without a network. The exit code is 1 when something fails.
    """
    import json

    from edgeopt_agent.device.checkup import Verdict, describe, worst
    from edgeopt_agent.device.doctor import examine

    findings = []
    for finding in examine(data):
        findings.append(finding)
        if not as_json:
            click.echo(describe([finding]))
    if as_json:
        rows = [{"check": f.check, "verdict": f.verdict, "seen": f.seen, "advice": f.advice} for f in findings]
        click.echo(json.dumps(rows))
    if worst(findings) is Verdict.FAIL:
        ctx.exit(ExitCode.UNEXPECTED)

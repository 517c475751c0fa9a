"""Options of ``edgeopt rollout create`` that say how a rollout is carried out, under the names of AWS IoT Jobs.

Each is optional; what is not given, the fleet sets. Nothing is decided here. Example::

    @execution_options
    def create(**values): body = {"execution": execution_of(values)}
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from edgeopt.cli.operate_options import duration, moment
from edgeopt_contract.errors import UsageError

__all__ = ["execution_of", "execution_options", "threshold"]

F = TypeVar("F", bound=Callable[..., Any])
_KINDS = ("failed", "rejected", "timed_out", "rolled_back", "any")
_PACE = {
    "maximum_per_minute": "maximum_per_minute",
    "base_rate_per_minute": "base_rate_per_minute",
    "increment_factor": "increment_factor",
    "increase_after_notified": "number_of_notified_things",
    "increase_after_succeeded": "number_of_succeeded_things",
}
_PLAIN = ("device_timeout_seconds", "total_timeout_seconds", "retries", "start_at", "priority")


def threshold(value: str) -> dict[str, Any]:
    """Read ``timed_out:5%:20``: more than 5 % of at least 20 executed devices."""
    match = re.fullmatch(r"([a-z_]+):(\d+(?:\.\d+)?)%(?::(\d{1,7}))?", value)
    if not match or match[1] not in _KINDS:
        raise click.BadParameter(f"expected KIND:PERCENT%[:DEVICES] with a kind of {', '.join(_KINDS)}, got {value!r}")
    return {
        "failure_type": match[1],
        "threshold_percentage": float(match[2]),
        "min_number_of_executed_things": int(match[3] or 1),
    }


_OPTIONS = (
    click.option("--rate", "maximum_per_minute", type=click.IntRange(min=1), help="Most offers a minute."),
    click.option("--base-rate", "base_rate_per_minute", type=click.IntRange(min=1), help="Where the rate begins."),
    click.option("--increment-factor", type=float, help="By how much it grows, 1.1 to 5.  [fleet: 2]"),
    click.option("--increase-after-notified", type=click.IntRange(min=1), help="It grows with so many offers."),
    click.option(
        "--increase-after-succeeded", type=click.IntRange(min=1), help="It grows with so many devices confirmed."
    ),
    click.option(
        "--threshold",
        "thresholds",
        type=threshold,
        multiple=True,
        metavar="KIND:PERCENT%[:DEVICES]",
        help="Roll back when more failed like this, of at least so many executed devices.",
    ),
    click.option("--device-timeout", "device_timeout_seconds", type=duration, help="How long one device may take."),
    click.option("--total-timeout", "total_timeout_seconds", type=duration, help="After how long it is cancelled."),
    click.option("--retries", type=click.IntRange(0, 10), help="How often a failed device is asked again.  [fleet: 0]"),
    click.option("--start-at", type=moment, metavar="TIME", help="It starts no sooner, like 2026-12-01T02:00."),
    click.option("--priority", type=click.IntRange(0, 1000), help="The higher one has a device.  [fleet: 500]"),
)


def execution_options(command: F) -> F:
    """Give ``command`` the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def execution_of(values: dict[str, Any]) -> dict[str, Any]:
    """Take the options out of ``values`` and return them as the fleet reads them; empty when none was given."""
    pace = {theirs: values.pop(ours) for ours, theirs in _PACE.items()}
    given = {name: value for name, value in pace.items() if value is not None}
    if given and "maximum_per_minute" not in given:
        raise UsageError("--base-rate and what goes with it need --rate, the most devices a minute")
    plain = {name: values.pop(name) for name in _PLAIN}
    thresholds = list(values.pop("thresholds"))
    return (
        {name: value for name, value in plain.items() if value is not None}
        | ({"pace": given} if given else {})
        | ({"thresholds": thresholds} if thresholds else {})
    )

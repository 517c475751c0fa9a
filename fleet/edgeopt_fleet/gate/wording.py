"""A finding as a sentence.

Pure. Units are those of the policy. Example::

sentence(finding)    # 'the confidence fell by 0.400 (surely by 0.350, at most 0.100 allowed) on 1 device, …'
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeopt_fleet.gate.comparing import FEW
from edgeopt_fleet.gate.findings import Finding, Standing
from edgeopt_fleet.gate.policy import Metric

__all__ = ["TITLES", "amount", "count", "names", "sentence", "unmeasured"]

_MOST_NAMES = 5

TITLES: dict[Metric, str] = {
    Metric.ERRORS: "errors",
    Metric.LATENCY: "latency (p95)",
    Metric.MEDIAN: "latency (p50)",
    Metric.CONFIDENCE: "confidence",
    Metric.CLASS_MIX: "class mix",
    Metric.DRIFT: "input drift",
    Metric.DIVERGENCE: "golden divergence",
}
_VERBS: dict[Metric, tuple[str, str]] = {  # when it became worse, and when it did not
    Metric.ERRORS: ("the share of errors rose by", "the share of errors fell by"),
    Metric.LATENCY: ("the 95th percentile of latency rose by", "the 95th percentile of latency fell by"),
    Metric.CONFIDENCE: ("the confidence fell by", "the confidence rose by"),
    Metric.CLASS_MIX: ("the answered classes moved by", "the answered classes moved, less than elsewhere, by"),
    Metric.DRIFT: ("the inputs moved away from the reference by", "the inputs moved towards the reference by"),
    Metric.DIVERGENCE: ("the golden outputs are off by", "the golden outputs are off by"),
}


def sentence(finding: Finding) -> str:
    """Return the finding in words; units are those of the policy."""
    metric, amounts = finding.metric, finding
    where = f" in hardware class {finding.group}" if finding.group else ""
    verb = _VERBS[metric][0 if finding.estimate >= 0 else 1]
    sure = f"surely by {amount(metric, max(amounts.lower, 0.0))}"
    if finding.standing is Standing.FINE and finding.devices >= FEW:
        sure = f"surely by no more than {amount(metric, max(amounts.upper, 0.0))}"
    allowed = f"at most {amount(metric, finding.allowed)} allowed"
    text = (
        f"{verb} {amount(metric, abs(finding.estimate))}{where} ({sure}, {allowed}) "
        f"on {count(finding.devices, 'device')}, {_against(finding)}"
    )
    if finding.standing is Standing.UNKNOWN:
        text += "; not yet known"
    elif finding.devices < FEW and finding.standing is Standing.FINE:
        text += "; few devices: passed by the threshold"
    return text if finding.decides else f"{text}; only shown, it decides nothing"


def _against(finding: Finding) -> str:
    if finding.metric is Metric.DIVERGENCE:
        return "against the golden outputs"
    if finding.controls:
        return f"against {count(finding.controls, 'control device')}"
    return "against no control device: each against its own baseline only"


def unmeasured(metrics: Sequence[Metric]) -> str:
    """Say which metrics were not judged."""
    titles = ", ".join(TITLES[metric] for metric in metrics)
    return f"not judged: {titles}; no device has been measured both before and after the update"


def amount(metric: Metric, value: float, *, signed: bool = False) -> str:
    """Return ``value`` in the metric's unit, with its sign if that is asked for."""
    sign = "+" if signed else ""
    if metric in (Metric.LATENCY, Metric.MEDIAN):
        return f"{math.expm1(value):{sign}.1%}"
    return f"{value:{sign}.2%}" if metric is Metric.ERRORS else f"{value:{sign}.3f}"


def names(devices: Sequence[str], marked: npt.NDArray[np.bool_] | None = None) -> str:
    """Return the first few names, in order; of those that are ``marked``."""
    chosen = sorted(devices if marked is None else (devices[int(place)] for place in np.flatnonzero(marked)))
    return ", ".join(chosen[:_MOST_NAMES]) + (" …" if len(chosen) > _MOST_NAMES else "")


def count(number: int, noun: str, plural: str = "s") -> str:
    """Return ``1 device`` or ``2 devices``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{plural}"

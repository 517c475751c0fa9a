"""Every metric of a wave, and of each hardware class of it, compared and classified.

Pure. What the classes mean for the rollout is :mod:`edgeopt_fleet.gate.judging`'s part. Example::

    found = find(evidence, policy)
    [(one.metric, one.group) for one in found.of(Standing.WORSE)]
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from edgeopt_fleet.gate.comparing import FEW, Comparison, Noise, compare, without
from edgeopt_fleet.gate.evidence import Devices, Evidence
from edgeopt_fleet.gate.policy import METRICS, Metric, Policy
from edgeopt_fleet.gate.spending import Shares, abort_error, critical, look_share

__all__ = [
    "OF_THE_WORLD",
    "PRIORS",
    "Finding",
    "Findings",
    "Standing",
    "bounds",
    "counted",
    "find",
    "names_of",
    "sharing",
]

Floats = npt.NDArray[np.float64]

_LEAST_ROWS = 2
_LEAST_CLASS_CONTROLS = 3  # a class with fewer controls of its own is compared with all of them

# What the world does to some devices and not to others, too: with few of them it cannot be told from the bundle.
OF_THE_WORLD = frozenset({Metric.CLASS_MIX, Metric.DRIFT})

# Standard deviation between devices of a change when nothing has changed, beyond what the number of rows explains.
# Measured by benchmarks/fleet/variances.py; how, and the figures, stand in docs/guides/gate.md.
PRIORS: dict[Metric, float] = {
    Metric.ERRORS: 0.005,
    Metric.LATENCY: 0.15,
    Metric.CONFIDENCE: 0.01,
    Metric.CLASS_MIX: 0.05,
    Metric.DRIFT: 0.05,
    Metric.DIVERGENCE: 0.1,
    Metric.MEDIAN: 0.15,
}


class Standing(StrEnum):
    """What is known of one metric of one group."""

    WORSE = "worse"  # surely worse than allowed
    FINE = "fine"  # surely no worse than allowed
    UNKNOWN = "unknown"
    UNMEASURED = "unmeasured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One metric of one group; ``group`` is a hardware class, empty for the whole wave.

    The group became worse by ``estimate``, surely by ``lower``, surely by no more than ``upper``, of ``allowed``.
    ``decides`` is false for what is only shown: by the policy's wish, or because so few devices cannot tell.
    """

    metric: Metric
    group: str
    standing: Standing
    estimate: float
    lower: float
    upper: float
    allowed: float
    devices: int
    controls: int
    decides: bool


@dataclass(frozen=True, slots=True)
class Findings:
    """All findings, those of the whole wave first, and the names of devices that were set aside in any of them."""

    items: tuple[Finding, ...]
    aside: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """Whether anything could be compared."""
        return any(one.standing is not Standing.UNMEASURED for one in self.items)

    @property
    def blocking(self) -> list[Finding]:
        """The findings for whose certainty a promotion waits.

        Of a hardware class it waits only when there are some devices and they look worse than allowed: the next wave
        has more of them.
        """
        return [one for one in self.of(Standing.UNKNOWN) if not one.group or _looks_worse(one)]

    def of(self, standing: Standing) -> list[Finding]:
        """Return the findings that decide and stand so."""
        return [one for one in self.items if one.standing is standing and one.decides]


def _looks_worse(finding: Finding) -> bool:
    return finding.devices >= FEW and finding.estimate > finding.allowed


def find(evidence: Evidence, policy: Policy) -> Findings:
    """Compare all metrics for the wave and for each of its hardware classes."""
    wave, controls = evidence.exposed.devices, evidence.controls
    ours, theirs = counted(wave, policy.minimum_rows), counted(controls, policy.minimum_rows)
    ours = np.where(evidence.exposed.failed, np.nan, ours)  # only devices that bake or have confirmed
    present = np.unique(wave.hardware[np.isfinite(ours).any(axis=0)])
    classes = [int(place) for place in present] if len(present) > 1 else []
    shares = sharing(evidence.waves, len(evidence.history) + 1, len(classes), policy)
    errors = abort_error(policy.false_abort, shares)
    prior = np.array([PRIORS[metric] for metric in METRICS])
    noise = Noise(wave.noise.astype(np.float64), controls.noise.astype(np.float64))
    whole = compare(ours, theirs, noise, prior)
    promotion = policy.false_promotion * look_share(shares.look)
    figures = (whole, *bounds(whole, errors.overall, promotion))
    items = [_finding(row, "", figures, policy) for row in range(len(METRICS))]
    for place in classes:
        mine, against = wave.hardware == place, _controls_of(controls, theirs, place)
        part = compare(
            without(ours[:, mine], whole.treated_aside[:, mine]),
            without(theirs[:, against], whole.controls_aside[:, against]),
            Noise(noise.treated[:, mine], noise.controls[:, against]),
            prior,
        )
        figures = (part, *bounds(part, errors.each_class, promotion))
        items += [_finding(row, evidence.hardware[place], figures, policy) for row in range(len(METRICS))]
    aside = names_of(wave, whole.treated_aside) | names_of(controls, whole.controls_aside)
    return Findings(tuple(items), tuple(sorted(aside)))


def sharing(waves: int, look: int, classes: int, policy: Policy) -> Shares:
    """Return among what the error is shared at this look; metrics that decide nothing get none."""
    deciding = len(METRICS) - len(set(policy.dry_run))
    return Shares(waves=waves, look=look, metrics=deciding, classes=classes)


def bounds(compared: Comparison, abort: float, promotion: float) -> tuple[Floats, Floats]:
    """Return how much worse each group surely is, at error ``abort``, and surely at most is, at ``promotion``."""
    lower = compared.estimate - critical(abort, compared.freedom) * compared.error
    upper = compared.estimate + critical(promotion, compared.freedom) * compared.error
    return lower, upper


def counted(devices: Devices, minimum_rows: int) -> Floats:
    """Return the changes that count (metrics, n): on at least so many rows on both sides; the others are NaN."""
    least = max(minimum_rows, _LEAST_ROWS)
    enough = (devices.before >= least) & (devices.after >= least)
    changes = devices.changes.astype(np.float64)
    levels = METRICS.index(Metric.DIVERGENCE)  # a level needs no rows
    judged = np.where(enough, changes, np.nan)
    judged[levels] = changes[levels]
    return judged


def _controls_of(controls: Devices, changes: Floats, place: int | None) -> npt.NDArray[np.bool_]:
    """Mark the controls of a class; all of them when the class has too few of its own."""
    everyone = np.ones(len(controls.names), dtype=bool)
    if place is None:
        return everyone
    own = controls.hardware == place
    return own if np.isfinite(changes[:, own]).any(axis=0).sum() >= _LEAST_CLASS_CONTROLS else everyone


def _finding(row: int, group: str, figures: tuple[Comparison, Floats, Floats], policy: Policy) -> Finding:
    compared, lower, upper = figures
    metric = METRICS[row]
    allowed = policy.allowed(metric)
    estimate, low, high = float(compared.estimate[row]), float(lower[row]), float(upper[row])
    devices = int(compared.treated[row])
    few = devices < FEW or compared.controls[row] < FEW
    within = high <= allowed or (devices < FEW and estimate <= allowed)
    standing = Standing.WORSE if low > allowed else Standing.FINE if within else Standing.UNKNOWN
    return Finding(
        metric=metric,
        group=group,
        standing=standing if devices else Standing.UNMEASURED,
        estimate=estimate,
        lower=low,
        upper=high,
        allowed=allowed,
        devices=devices,
        controls=int(compared.controls[row]),
        decides=metric not in policy.dry_run and not (few and metric in OF_THE_WORLD),
    )


def names_of(devices: Devices, aside: npt.NDArray[np.bool_]) -> set[str]:
    """Return the names of the devices that were set ``aside`` (metrics, n) in any metric."""
    return {devices.names[place] for place in np.flatnonzero(aside.any(axis=0))}

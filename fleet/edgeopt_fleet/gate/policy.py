"""When a wave passes: the rules of one rollout's gate, checked when they are made.

Pure. Names and meanings of ``interval``, ``initial_delay``, ``count``, ``failure_limit``, ``inconclusive_limit``,
``consecutive_error_limit`` and ``dry_run`` are those of Argo Rollouts' AnalysisTemplate; times carry their unit. What
is allowed of a metric is how much *worse* it may become, and may be zero. Example::

    Policy(minimum_rows=200, max_latency_increase=0.05, max_confidence_drop=0.01, count=2)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from edgeopt_contract.windows import Window

__all__ = ["COMPARED", "METRICS", "Margins", "Metric", "Policy"]


class Metric(StrEnum):
    """What is compared, before and after the update. Of each a greater number is worse. New ones come last."""

    ERRORS = "errors"  # share of inferences that did not answer
    LATENCY = "latency"  # logarithm of the 95th percentile
    CONFIDENCE = "confidence"  # mean confidence, with its sign turned
    CLASS_MIX = "class_mix"  # how far the answered classes moved from the device's own baseline
    DRIFT = "drift"  # how far the inputs are from the bundle's own reference
    DIVERGENCE = "divergence"  # of the golden outputs, in units of the tolerance; not a change but a level
    MEDIAN = "latency_p50"  # logarithm of the median latency; the gate does not judge it, only arms are compared by it


# The order of rows in arrays of evidence: of what the gate judges, and of what is compared between two arms.
COMPARED: tuple[Metric, ...] = tuple(Metric)
METRICS: tuple[Metric, ...] = COMPARED[:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """How two arms are compared: which differences are too small to matter, and how sure one must be.

    ``confidence`` is that of all intervals together. Each arm must serve ``minimum_rows``, each of its devices at least
    ``device_rows`` before and after. Differences up to a margin count as none; of latency they are relative.
    """

    confidence: float = 0.95
    minimum_rows: int = 1000
    device_rows: int = 50
    errors: float = 0.005
    latency: float = 0.05
    confidence_points: float = 0.01
    class_mix: float = 0.1
    drift: float = 0.1
    divergence: float = 0.2

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"expected confidence from 0.5 on and below 1, got {self.confidence}")
        if self.minimum_rows < 0 or self.device_rows < 0:
            raise ValueError("expected minimum_rows and device_rows from 0 on")
        for name in ("errors", "latency", "confidence_points", "class_mix", "drift", "divergence"):
            _between(0, getattr(self, name), 1e6, f"a margin of {name} from 0 on")

    def of(self, metric: Metric) -> float:
        """Return the margin of ``metric``, in the units of the evidence."""
        if metric in (Metric.LATENCY, Metric.MEDIAN):
            return math.log1p(self.latency)
        return float(getattr(self, "confidence_points" if metric is Metric.CONFIDENCE else metric))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a wave passes. ``bake_seconds``, ``not_before`` (seconds since 1970) and ``window`` are for the devices.

    ``count`` successful looks promote; more than ``failure_limit`` failed ones roll back. More than
    ``inconclusive_limit`` undecided ones, or ``consecutive_error_limit`` intervals without any data, pause (``None``:
    only the step timeout does). ``dry_run`` names metrics that are measured and shown but decide nothing.
    ``false_abort`` is the chance that a rollout without fault is rolled back, over all its waves, looks, metrics and
    hardware classes; ``false_promotion`` that a wave which is just worse than allowed passes.
    """

    failure_threshold: float = 0.1
    bake_seconds: float = 60.0
    minimum_executed: int = 1
    minimum_rows: int = 50
    max_error_increase: float = 0.05  # of the share of errors, absolute
    max_latency_increase: float = 0.5  # of the 95th percentile, relative
    max_confidence_drop: float = 0.1  # absolute
    max_class_shift: float = 0.5  # chi-square distance
    max_drift: float = 0.5  # chi-square distance
    max_divergence: float = 1.0  # tolerances
    interval_seconds: float = 5.0
    initial_delay_seconds: float = 0.0
    count: int = 1
    failure_limit: int = 0
    inconclusive_limit: int | None = None
    consecutive_error_limit: int | None = None
    dry_run: tuple[str, ...] = ()
    false_abort: float = 0.002
    false_promotion: float = 0.05
    step_timeout_seconds: float = 3600.0
    not_before: int | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        _between(0, self.failure_threshold, 1, "failure_threshold from 0 to 1")
        _between(0, self.bake_seconds, 30 * 86400, "bake_seconds from 0 to 30 days")
        if self.minimum_executed < 1 or self.minimum_rows < 0:
            raise ValueError("expected minimum_executed from 1 on and minimum_rows from 0 on")
        if not 0 < self.max_confidence_drop <= 1:
            raise ValueError(f"expected max_confidence_drop above 0 and up to 1, got {self.max_confidence_drop}")
        for name in ("max_error_increase", "max_latency_increase", "max_class_shift", "max_drift", "max_divergence"):
            _between(0, getattr(self, name), 1e6, f"{name} from 0 on")
        self._check_looks()
        if not 0 < self.step_timeout_seconds < math.inf:
            raise ValueError(f"expected step_timeout_seconds above 0, got {self.step_timeout_seconds}")
        if self.not_before is not None and not 0 <= self.not_before < 2**53:
            raise ValueError(f"expected not_before as seconds since 1970, got {self.not_before}")

    def _check_looks(self) -> None:
        _between(0.001, self.interval_seconds, 30 * 86400, "interval_seconds above 0, up to 30 days")
        _between(0, self.initial_delay_seconds, 30 * 86400, "initial_delay_seconds from 0 to 30 days")
        if (
            self.count < 1
            or min(self.failure_limit, self.inconclusive_limit or 0, self.consecutive_error_limit or 0) < 0
        ):
            raise ValueError("expected count from 1 on, and failure, inconclusive and error limits from 0 on")
        unknown = sorted(set(self.dry_run) - set(METRICS))
        if unknown:
            raise ValueError(f"expected dry_run among {', '.join(METRICS)}, got {', '.join(unknown)}")
        for name in ("false_abort", "false_promotion"):
            if not 0 < getattr(self, name) <= 0.5:
                raise ValueError(f"expected {name} above 0 and up to 0.5, got {getattr(self, name)}")

    def allowed(self, metric: Metric) -> float:
        """Return how much worse ``metric`` may become, in the units of the evidence."""
        if metric is Metric.LATENCY:
            return math.log1p(self.max_latency_increase)
        return {
            Metric.ERRORS: self.max_error_increase,
            Metric.CONFIDENCE: self.max_confidence_drop,
            Metric.CLASS_MIX: self.max_class_shift,
            Metric.DRIFT: self.max_drift,
            Metric.DIVERGENCE: self.max_divergence,
        }[metric]


def _between(low: float, value: float, high: float, what: str) -> None:
    if not low <= value <= high:
        raise ValueError(f"expected {what}, got {value}")

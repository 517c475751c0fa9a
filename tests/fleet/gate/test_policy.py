"""A policy that cannot work cannot be made."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgeopt_fleet.gate import METRICS, Metric, Policy


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_threshold": 1.1},
        {"failure_threshold": float("nan")},
        {"bake_seconds": -1},
        {"minimum_executed": 0},
        {"minimum_rows": -1},
        {"max_confidence_drop": 0},
        {"max_latency_increase": -0.1},
        {"max_error_increase": float("nan")},
        {"max_divergence": float("inf")},
        {"interval_seconds": 0},
        {"initial_delay_seconds": -1},
        {"count": 0},
        {"failure_limit": -1},
        {"inconclusive_limit": -1},
        {"consecutive_error_limit": -1},
        {"dry_run": ("speed",)},
        {"false_abort": 0},
        {"false_promotion": 0.6},
        {"step_timeout_seconds": 0},
        {"step_timeout_seconds": float("nan")},
        {"not_before": -1},
    ],
)
def test_a_wrong_policy_cannot_be_made(wrong: dict[str, Any]) -> None:
    """A malformed threshold is refused, it does not silently never fire (hawkBit)."""
    with pytest.raises(ValueError, match="expected"):
        Policy(**wrong)


def test_what_is_allowed_is_in_the_units_of_the_evidence() -> None:
    """Latency is compared as a logarithm, so a rise of a half is log 1.5; every metric has its limit."""
    policy = Policy(max_latency_increase=0.5, max_confidence_drop=0.02)
    assert math.log(1.5) == pytest.approx(policy.allowed(Metric.LATENCY))
    assert 0.02 == policy.allowed(Metric.CONFIDENCE)
    assert all(policy.allowed(metric) >= 0 for metric in METRICS)

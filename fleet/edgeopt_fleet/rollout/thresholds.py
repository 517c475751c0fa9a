"""When too many devices failed: thresholds per kind of failure, counted on executed devices.

Pure. The fields are those of AWS IoT Jobs' abort criteria (``failureType``, ``minNumberOfExecutedThings``,
``thresholdPercentage``); what follows is not that queued devices are spared, but that exposed ones go back. A device
that has not ended is in no denominator: ten failures of ten are 100 %, whatever the size of the fleet (hawkBit divides
by the whole group). Example::

    too_many(Threshold(Failure.TIMED_OUT, 10.0, 20), executed=30, failed={Failure.TIMED_OUT: 4})      # True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Failure", "Threshold", "failed_of", "too_many"]


class Failure(StrEnum):
    """How an update can fail. ``ANY`` is for thresholds: all kinds together."""

    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    ROLLED_BACK = "rolled_back"  # by the device itself, after it had switched
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Threshold:
    """More than ``percentage`` of at least ``minimum_executed`` executed devices failing this way is too many."""

    failure: Failure
    percentage: float
    minimum_executed: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.percentage <= 100:
            raise ValueError(f"expected thresholdPercentage from 0 to 100, got {self.percentage}")
        if self.minimum_executed < 1:
            raise ValueError(f"expected minNumberOfExecutedThings from 1 on, got {self.minimum_executed}")


def failed_of(threshold: Threshold, failed: Mapping[Failure, int]) -> int:
    """Return how many of ``failed`` (by kind) the threshold counts."""
    return sum(failed.values()) if threshold.failure is Failure.ANY else failed.get(threshold.failure, 0)


def too_many(threshold: Threshold, executed: int, failed: Mapping[Failure, int]) -> bool:
    """Say whether the threshold is exceeded: never below its floor, and never without an executed device."""
    if executed < threshold.minimum_executed:
        return False
    return failed_of(threshold, failed) * 100 > threshold.percentage * executed

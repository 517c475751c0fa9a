"""What the API takes and gives about how a rollout is judged and carried out, as pydantic models with examples.

Shapes only. Example::

    PolicyModel(minimum_rows=200).policy()
    ExecutionModel.of(record.execution)
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field

from edgeopt_contract.windows import Window
from edgeopt_fleet.api.views import FromText, StrictRequest
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.rollout import (
    Execution,
    Failure,
    Pace,
    Threshold,
)

__all__ = [
    "ExecutionModel",
    "PaceModel",
    "PolicyModel",
    "ThresholdModel",
    "WindowModel",
    "check_execution",
    "check_policy",
]


class WindowModel(StrictRequest):
    """When devices may switch: from ``start`` to ``end`` in their local time; no days means every day."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    start: str = Field(examples=["02:00"])
    end: str = Field(examples=["04:00"], description="an end before the start is on the next day")
    days: list[str] = Field(default=[], examples=[["sat", "sun"]])


class PolicyModel(StrictRequest):
    """When a wave passes."""

    failure_threshold: float = Field(default=0.1, description="share of executed devices that may fail")
    bake_seconds: float = Field(default=60.0, description="how long a device must run without fault to confirm")
    minimum_executed: int = Field(default=1, description="devices of a wave that must have executed")
    minimum_rows: int = Field(default=50, description="rows that each executed device must have served")
    max_confidence_drop: float = Field(default=0.1, description="absolute fall of mean confidence that is allowed")
    max_error_increase: float = Field(default=0.05, description="absolute rise of the share of errors")
    max_latency_increase: float = Field(default=0.5, description="relative rise of the 95th percentile")
    max_class_shift: float = Field(default=0.5, description="of the answered classes, chi-square distance")
    max_drift: float = Field(default=0.5, description="of the inputs from the reference profile, chi-square distance")
    max_divergence: float = Field(default=1.0, description="of the golden outputs, in units of the tolerance")
    interval_seconds: float = Field(default=5.0, description="between two looks of the gate")
    initial_delay_seconds: float = Field(default=0.0, description="from a wave's start to the first look")
    count: int = Field(default=1, description="successful looks that promote")
    failure_limit: int = Field(default=0, description="failed looks beyond which the rollout is rolled back")
    inconclusive_limit: int | None = Field(
        default=None, examples=[3], description="undecided looks beyond which it is paused"
    )
    consecutive_error_limit: int | None = Field(
        default=None, examples=[5], description="looks without data, before it is paused"
    )
    dry_run: list[str] = Field(
        default=[], examples=[["drift"]], description="metrics that are shown and decide nothing"
    )
    false_abort: float = Field(default=0.002, description="chance that a rollout without fault is rolled back")
    false_promotion: float = Field(default=0.05, description="chance that a wave just worse than allowed passes")
    step_timeout_seconds: float = Field(default=3600.0, description="a wave that holds longer pauses the rollout")
    not_before: int | None = Field(default=None, examples=[1764000000], description="devices switch no sooner")
    window: WindowModel | None = Field(default=None, description="devices switch only inside")

    def policy(self) -> Policy:
        """Return what is asked for. Raises ``ValueError`` for what cannot be."""
        values = self.model_dump() | {"dry_run": tuple(self.dry_run)}
        if self.window is not None:
            values["window"] = Window(start=self.window.start, end=self.window.end, days=tuple(self.window.days))
        return Policy(**values)


def check_policy(model: PolicyModel) -> PolicyModel:
    """Return ``model`` if it can be. Raises ``ValueError``."""
    model.policy()
    return model


class PaceModel(StrictRequest):
    """How many devices a minute are offered the bundle; the names are those of AWS IoT Jobs.

    With ``base_rate_per_minute`` the rate begins there and is multiplied by ``increment_factor`` each time so many
    devices more were notified, or succeeded.
    """

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    maximum_per_minute: int = Field(examples=[100])
    base_rate_per_minute: int | None = Field(default=None, examples=[10])
    increment_factor: float = Field(default=2.0, description="1.1 to 5")
    number_of_notified_things: int | None = Field(default=None, examples=[100])
    number_of_succeeded_things: int | None = Field(default=None, examples=[50])


class ThresholdModel(StrictRequest):
    """When too many devices failed: more than ``threshold_percentage`` of at least so many executed ones."""

    failure_type: Annotated[Failure, FromText] = Field(examples=["timed_out"])
    threshold_percentage: float = Field(examples=[5.0])
    min_number_of_executed_things: int = Field(default=1, examples=[20])


class ExecutionModel(StrictRequest):
    """How a rollout is carried out."""

    pace: PaceModel | None = Field(default=None, description="no rate: a wave is offered the bundle at once")
    thresholds: list[ThresholdModel] = Field(default=[], description="beside the policy's failure_threshold")
    device_timeout_seconds: float | None = Field(
        default=None,
        examples=[1800.0],
        description="from a device's first report to its end; not while it waits for its window",
    )
    total_timeout_seconds: float | None = Field(
        default=None, examples=[604800.0], description="then the rollout is cancelled"
    )
    retries: int = Field(default=0, description="0 to 10; only a device's last attempt is counted as a failure")
    start_at: int | None = Field(default=None, examples=[1764000000], description="it begins no sooner")
    priority: int = Field(default=500, description="0 to 1000; the higher one has a device that two want")

    def execution(self) -> Execution:
        """Return what is asked for. Raises ``ValueError`` for what cannot be."""
        return Execution(
            pace=None if self.pace is None else Pace(**self.pace.model_dump()),
            thresholds=tuple(
                Threshold(one.failure_type, one.threshold_percentage, one.min_number_of_executed_things)
                for one in self.thresholds
            ),
            **self.model_dump(exclude={"pace", "thresholds"}),
        )

    @classmethod
    def of(cls, execution: Execution) -> Self:
        """Show one."""
        return cls(
            pace=None if execution.pace is None else PaceModel.model_validate(execution.pace),
            thresholds=[
                ThresholdModel(
                    failure_type=one.failure,
                    threshold_percentage=one.percentage,
                    min_number_of_executed_things=one.minimum_executed,
                )
                for one in execution.thresholds
            ],
            device_timeout_seconds=execution.device_timeout_seconds,
            total_timeout_seconds=execution.total_timeout_seconds,
            retries=execution.retries,
            start_at=execution.start_at,
            priority=execution.priority,
        )


def check_execution(model: ExecutionModel) -> ExecutionModel:
    """Return ``model`` if it can be. Raises ``ValueError``."""
    model.execution()
    return model

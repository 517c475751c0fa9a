"""What the API takes and gives about two arms of a rollout, as pydantic models with examples.

Shapes only. Example::

    ComparisonView.of(record, rows, comparisons, now).model_dump()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from edgeopt_fleet.api.views import DIGEST_EXAMPLE, StrictRequest
from edgeopt_fleet.gate import Margins
from edgeopt_fleet.gate.arms import Difference
from edgeopt_fleet.gate.replaying import Compared
from edgeopt_fleet.gate.verdict import rounded
from edgeopt_fleet.rollout import ARMS, Arm, Count, Rollout, State, Trial
from edgeopt_fleet.store.rollout_reports import RolloutReport

__all__ = ["ArmModel", "ArmView", "ComparedView", "ComparisonView", "DifferenceView", "ObservationModel"]


class ArmModel(StrictRequest):
    """One of two arms: a bundle, and the percent of the cohort's devices that get it."""

    bundle: str = Field(examples=[DIGEST_EXAMPLE[:12]], description="digest or unique prefix; may be what devices run")
    percent: int = Field(examples=[50], description="1 to 99; what both leave over keeps what it runs")


class ObservationModel(StrictRequest):
    """How long both arms are watched after the last wave, and how they are compared then."""

    model_config = ConfigDict(extra="forbid", strict=True, from_attributes=True)

    seconds: float = Field(
        default=86400.0, description="after the last wave; up to as long again while rows are missing"
    )
    confidence: float = Field(default=0.95, description="of all intervals together, 0.5 to below 1")
    minimum_rows: int = Field(default=1000, description="that each arm must serve")
    device_rows: int = Field(default=50, description="that a device must serve, before and after, to be compared")
    errors: float = Field(default=0.005, description="margin: a difference of the share of errors that does not matter")
    latency: float = Field(default=0.05, description="margin, relative, of the 50th and the 95th percentile")
    confidence_points: float = Field(default=0.01, description="margin of mean confidence, absolute")
    class_mix: float = Field(default=0.1, description="margin, chi-square distance")
    drift: float = Field(default=0.1, description="margin, chi-square distance")
    divergence: float = Field(default=0.2, description="margin, in units of the tolerance of the golden outputs")

    def trial(self, arms: Sequence[ArmModel]) -> Trial:
        """Return what is asked for. Raises ``ValueError`` for what cannot be."""
        margins = Margins(**self.model_dump(exclude={"seconds"}))
        pair = tuple(Arm(bundle=arm.bundle, percent=arm.percent) for arm in arms)
        return Trial(arms=pair, observe_seconds=self.seconds, margins=margins)

    @classmethod
    def of(cls, trial: Trial) -> Self:
        """Show what a trial says."""
        names = [name for name in cls.model_fields if name != "seconds"]
        return cls(seconds=trial.observe_seconds, **{name: getattr(trial.margins, name) for name in names})


class ArmView(BaseModel):
    """One arm: what it gets, and how far its devices came."""

    arm: Literal["A", "B"]
    bundle: str = Field(examples=[DIGEST_EXAMPLE])
    bundle_name: str = Field(examples=["digits 2"])
    percent: int = Field(examples=[50])
    members: int = Field(examples=[25])
    notified: int = Field(examples=[25])
    confirmed: int = Field(examples=[24])
    failed: int = Field(examples=[1])
    returned: int = Field(examples=[0], description="went back to what they ran before")

    @classmethod
    def all_of(cls, report: RolloutReport) -> list[Self]:
        """Show both arms of a rollout; nothing without two."""
        record = report.rollout
        if record.trial is None:
            return []
        tally = record.tally
        return [
            cls(
                arm="A" if arm == "A" else "B",
                bundle=one.bundle,
                bundle_name=report.bundle_names.get(one.bundle, ""),
                percent=one.percent,
                members=tally.total(Count.MEMBERS, arm),
                notified=tally.total(Count.NOTIFIED, arm),
                confirmed=tally.total(Count.CONFIRMED, arm),
                failed=sum(tally.failed(arm=arm).values()),
                returned=tally.total(Count.RETURNED, arm),
            )
            for arm, one in zip(ARMS, record.trial.arms, strict=True)
        ]


class DifferenceView(BaseModel):
    """One metric of one group: B minus A, more is worse; of latency the logarithm of the ratio."""

    metric: str = Field(examples=["latency"])
    group: str = Field(examples=[""], description="a hardware class; empty for all devices")
    side: str = Field(examples=["b_better"], description="a_better, b_better, alike, unknown or unmeasured")
    estimate: float | None = Field(examples=[-0.095])
    lower: float | None = Field(examples=[-0.12])
    upper: float | None = Field(examples=[-0.07])
    margin: float = Field(examples=[0.049])
    devices_a: int = Field(examples=[50])
    devices_b: int = Field(examples=[50])
    more_devices: int | None = Field(
        default=None, examples=[12], description="in each arm, about so many more would decide"
    )
    more_hours: float | None = Field(default=None, examples=[6.5], description="or about so much more time")

    @classmethod
    def of(cls, one: Difference) -> Self:
        """Show one difference; what is not known is null."""
        figures = {name: rounded(getattr(one, name)) for name in ("estimate", "lower", "upper")}
        return cls(
            metric=one.metric,
            group=one.group,
            side=one.side,
            margin=one.margin,
            devices_a=one.devices_a,
            devices_b=one.devices_b,
            more_devices=one.more_devices,
            more_hours=one.more_hours,
            **figures,
        )


class ComparedView(BaseModel):
    """One comparison of both arms, made again from its stored evidence."""

    at: float = Field(examples=[1764000000.0])
    number: int = Field(examples=[1], description="of the comparisons of this rollout; later ones must be surer")
    result: str = Field(examples=["b_better"], description="a_better, b_better, trade_off, alike or not_enough_data")
    reasons: list[str] = Field(examples=[["B is better: it is faster (p95)"]], description="the first says it all")
    confidence: float = Field(examples=[0.95])
    differences: list[DifferenceView]
    same: bool = Field(examples=[True], description="the verdict is the stored one, byte for byte")
    code: str = Field(examples=["arms-1"], description="the rules that compared")

    @classmethod
    def of(cls, compared: Compared) -> Self:
        """Show one comparison."""
        verdict = compared.verdict
        return cls(
            at=compared.stored.at,
            number=verdict.number,
            result=verdict.result,
            reasons=list(verdict.reasons),
            confidence=verdict.confidence,
            differences=[DifferenceView.of(one) for one in verdict.differences],
            same=compared.same,
            code=compared.stored.code,
        )


class ComparisonView(BaseModel):
    """How two arms compare. Before the observation is over nothing is: a look in between would cost certainty."""

    name: str = Field(examples=["digits-ab"])
    state: str = Field(examples=["observing"])
    compared: ComparedView | None = Field(default=None, description="once the observation is over")
    observed_seconds: float = Field(examples=[3600.0], description="so far")
    observe_seconds: float = Field(examples=[86400.0], description="in all")
    rows: dict[str, int] = Field(examples=[{"A": 5120, "B": 5005}], description="served by each arm so far")
    minimum_rows: int = Field(examples=[1000], description="that each arm must serve")
    kept: str = Field(default="", examples=["B"], description="the arm that somebody decided for: A, B or both")

    @classmethod
    def of(cls, record: Rollout, rows: Mapping[str, int], found: Sequence[Compared], now: float) -> Self:
        """Show the newest comparison, or how far the observation is."""
        trial = record.trial
        assert trial is not None  # whoever asks has looked
        end = {State.OBSERVING: now, State.SUCCEEDED: record.updated_at}.get(record.state)
        told = [found[-1].evidence] if found else []
        return cls(
            name=record.name,
            state=record.state,
            compared=ComparedView.of(found[-1]) if found else None,
            observed_seconds=told[0].seconds
            if told
            else 0.0
            if end is None
            else max(end - record.step_started_at, 0.0),
            observe_seconds=trial.observe_seconds,
            rows={"A": int(told[0].a.after.sum()), "B": int(told[0].b.after.sum())} if told else dict(rows),
            minimum_rows=trial.margins.minimum_rows,
            kept=record.kept,
        )

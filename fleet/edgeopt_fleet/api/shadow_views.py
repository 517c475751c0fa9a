"""What the API takes and gives about shadows, as pydantic models with examples.

Shapes only. Example::

    ShadowView.of(shadows.report("next")).model_dump()
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import msgspec
from pydantic import AfterValidator, BaseModel, Field

from edgeopt_fleet.api.views import DIGEST_EXAMPLE, Name, Next, StrictRequest
from edgeopt_fleet.gate.shadow import ShadowVerdict
from edgeopt_fleet.gate.shadow_evidence import ClassAgreement, DeviceAgreement, ShadowPolicy
from edgeopt_fleet.gate.shadow_figures import Interval
from edgeopt_fleet.store.shadow_looks import ComparedSoFar, Judged
from edgeopt_fleet.store.shadow_rows import WAITING, ShadowReport
from edgeopt_fleet.store.shadows import ShadowPlan
from edgeopt_fleet.store.tables import ShadowMemberRow

__all__ = [
    "AgreementView",
    "ClassAgreementView",
    "DeviceAgreementView",
    "FiguresView",
    "IntervalView",
    "ShadowList",
    "ShadowLookList",
    "ShadowLookView",
    "ShadowMemberView",
    "ShadowPolicyModel",
    "ShadowRequest",
    "ShadowVerdictView",
    "ShadowView",
]

_REASON = "the challenger agrees on 97.20% of requests (surely on 96.10% to 98.04%, at least 95.00% wanted)"
_MOST_SECONDS = 2**53 - 1


class ShadowPolicyModel(StrictRequest):
    """When a challenger is recommended."""

    minimum_agreement: float = Field(default=0.95, description="mean over all devices, which must surely be reached")
    minimum_class_agreement: float = Field(default=0.8, description="of every class that has class_rows rows")
    minimum_rows: int = Field(default=50, description="compared, on a device that counts")
    minimum_devices: int = Field(default=1, description="that count")
    class_rows: int = Field(default=30, description="from so many rows on a class is judged")
    max_error_share: float = Field(default=0.01, description="of the challenger's own runs")
    max_latency_ratio: float = Field(default=2.0, description="of medians, challenger to champion, by hardware class")
    max_failed_share: float = Field(default=0.1, description="of the devices that began")
    false_recommendation: float = Field(default=0.05, description="chance to recommend one that agrees less, ever")
    false_refusal: float = Field(default=0.05, description="chance to refuse one that agrees enough, ever")

    def policy(self) -> ShadowPolicy:
        """Return what is asked for. Raises ``ValueError`` for what cannot be."""
        return ShadowPolicy(**self.model_dump())


def _check_policy(model: ShadowPolicyModel) -> ShadowPolicyModel:
    model.policy()
    return model


class ShadowRequest(StrictRequest):
    """A shadow to create."""

    name: Name = Field(examples=["digits-3-beside"])
    bundle: str = Field(examples=[DIGEST_EXAMPLE[:12]], description="the challenger: digest or unique prefix")
    cohort: str = Field(default="all", examples=["all"])
    share: float = Field(gt=0, le=1, examples=[0.1], description="of the answered requests that it runs, too")
    until: int = Field(ge=1, le=_MOST_SECONDS, examples=[1764600000], description="when it ends, within 90 days")
    at_once: int = Field(default=100, ge=1, le=10**6, description="devices that run it at a time")
    rows_each: int | None = Field(
        default=None, ge=1, le=_MOST_SECONDS, examples=[2000],
        description="a device that compared so many makes room for the next; null: it goes on to the end",
    )  # fmt: skip
    policy: Annotated[ShadowPolicyModel, AfterValidator(_check_policy)] = Field(default_factory=ShadowPolicyModel)
    start: bool = True

    def plan(self) -> ShadowPlan:
        """Return what is asked for."""
        return ShadowPlan(policy=self.policy.policy(), **self.model_dump(exclude={"policy", "start"}))


class ShadowMemberView(BaseModel):
    """One device of a shadow; ``running`` while it is to run the challenger."""

    device: str = Field(examples=["cam-3"])
    state: str = Field(
        examples=["shadowing"],
        description="waiting, asked, what the device said last, or serves_it: it answers with it",
    )
    running: bool = Field(examples=[True])
    detail: str = Field(default="", examples=["it takes other inputs than what serves"])

    @classmethod
    def of(cls, row: ShadowMemberRow) -> Self:
        """Show one member."""
        state = row.state or ("asked" if row.offered else WAITING)
        return cls(device=row.device, state=state, running=row.open, detail=row.detail)


class ShadowVerdictView(BaseModel):
    """What was said of a challenger at the newest look, and why."""

    at: float = Field(examples=[1764000000.0])
    number: int = Field(examples=[3], description="of the looks")
    decision: str = Field(examples=["recommend"], description="recommend, do_not_recommend or not_enough")
    reasons: list[str] = Field(examples=[[_REASON]])


class ShadowView(BaseModel):
    """A shadow as it stands. In lists without members."""

    name: str = Field(examples=["digits-3-beside"])
    bundle: str = Field(examples=[DIGEST_EXAMPLE])
    bundle_name: str = Field(examples=["digits 3"])
    cohort: str = Field(examples=["all"])
    share: float = Field(examples=[0.1])
    until: int = Field(examples=[1764600000])
    at_once: int = Field(examples=[100])
    rows_each: int | None = Field(examples=[2000])
    policy: ShadowPolicyModel
    state: str = Field(examples=["running"], description="draft, running or ended")
    reason: str = Field(default="", examples=["its time was over"], description="why it ended")
    tally: dict[str, int] = Field(examples=[{"shadowing": 20, "waiting": 80}], description="devices by state")
    members: list[ShadowMemberView]
    verdict: ShadowVerdictView | None = Field(description="of the newest look; null before the first")
    created_by: str = Field(examples=["alice"])
    created_at: int = Field(examples=[1764000000])
    updated_at: int = Field(examples=[1764000600])

    @classmethod
    def of(cls, report: ShadowReport) -> Self:
        """Show one shadow."""
        row, look = report.row, report.look
        said: dict[str, Any] = {} if look is None else msgspec.json.decode(look.verdict)
        names = ("name", "bundle", "cohort", "share", "until", "at_once", "rows_each", "state", "reason", "created_by")
        return cls(
            bundle_name=report.bundle_name,
            policy=ShadowPolicyModel(**row.policy),
            tally=dict(report.tally),
            members=[ShadowMemberView.of(member) for member in report.members],
            verdict=None if look is None else ShadowVerdictView(
                at=look.at, number=look.number, decision=said["decision"], reasons=said["reasons"]
            ),
            created_at=int(row.created_at),
            updated_at=int(row.updated_at),
            **{name: getattr(row, name) for name in names},
        )  # fmt: skip


class ShadowList(BaseModel):
    """Shadows, newest first."""

    items: list[ShadowView]
    next: Next = None


class IntervalView(BaseModel):
    """A share, and between what it surely lies."""

    share: float = Field(examples=[0.972])
    lower: float = Field(examples=[0.961])
    upper: float = Field(examples=[0.9804])

    @classmethod
    def of(cls, interval: Interval | None) -> Self | None:
        """Show one, if there is one."""
        return None if interval is None else cls(share=interval.share, lower=interval.lower, upper=interval.upper)


class ClassAgreementView(BaseModel):
    """Rows for which the champion answered this class."""

    label: str = Field(examples=["7"])
    agreed: int = Field(examples=[180])
    disagreed: int = Field(examples=[12])

    @classmethod
    def of(cls, one: ClassAgreement) -> Self:
        """Show one class."""
        return cls(label=one.label, agreed=one.agreed, disagreed=one.disagreed)


class DeviceAgreementView(BaseModel):
    """What one device compared; medians in microseconds, of the same requests."""

    device: str = Field(examples=["cam-3"])
    hardware: str = Field(examples=["aarch64-dotprod"])
    state: str = Field(examples=["shadowing"])
    compared: int = Field(examples=[400])
    agreed: int = Field(examples=[392])
    incomparable: int = Field(examples=[0], description="other shapes, NaN or infinity: they count as not agreed")
    errors: int = Field(examples=[0])
    champion_us: float | None = Field(examples=[5200.0])
    challenger_us: float | None = Field(examples=[4100.0])

    @classmethod
    def of(cls, one: DeviceAgreement) -> Self:
        """Show one device."""
        return cls(**{name: getattr(one, name) for name in cls.model_fields})


class FiguresView(BaseModel):
    """The figures behind a verdict: of devices that compared ``minimum_rows``, each counting the same."""

    decision: str = Field(examples=["recommend"])
    reasons: list[str] = Field(examples=[[_REASON]])
    devices: int = Field(examples=[20])
    rows: int = Field(examples=[8000])
    over_all: IntervalView | None
    errors: IntervalView | None
    worst_class: ClassAgreementView | None
    worst_class_agreement: IntervalView | None = Field(description="of that class, on the devices that compared")
    latency_ratio: dict[str, float] = Field(examples=[{"aarch64-dotprod": 0.79}], description="by hardware class")

    @classmethod
    def of(cls, verdict: ShadowVerdict) -> Self:
        """Show one verdict."""
        found = verdict.agreement
        return cls(
            decision=verdict.decision,
            reasons=list(verdict.reasons),
            devices=found.devices,
            rows=found.rows,
            over_all=IntervalView.of(found.over_all),
            errors=IntervalView.of(found.errors),
            worst_class=None if found.worst is None else ClassAgreementView.of(found.worst),
            worst_class_agreement=IntervalView.of(found.worst_share),
            latency_ratio={hardware: ratio.median for hardware, ratio in found.latency.items()},
        )


class AgreementView(BaseModel):
    """What was compared so far, and what the newest look said of it (``at`` null: there was none, this would be said).

    Decide by the look: what is compared between looks has not spent its share of the errors that were allowed.
    """

    name: str = Field(examples=["digits-3-beside"])
    at: float | None = Field(examples=[1764000000.0])
    look: FiguresView
    members: int = Field(examples=[100], description="devices about which something is said")
    devices: list[DeviceAgreementView]
    classes: list[ClassAgreementView]

    @classmethod
    def of(cls, name: str, found: ComparedSoFar) -> Self:
        """Show it."""
        return cls(
            name=name,
            at=found.at,
            look=FiguresView.of(found.verdict),
            members=found.evidence.members,
            devices=[DeviceAgreementView.of(one) for one in found.evidence.devices],
            classes=[ClassAgreementView.of(one) for one in found.evidence.classes],
        )


class ShadowLookView(BaseModel):
    """One look, judged again; ``same``: from the stored evidence the verdict is the stored one, byte for byte."""

    at: float = Field(examples=[1764000000.0])
    number: int = Field(examples=[1])
    code: str = Field(examples=["shadow-1"], description="the rules that judged")
    same: bool = Field(examples=[True])
    figures: FiguresView

    @classmethod
    def of(cls, judged: Judged) -> Self:
        """Show one look."""
        figures = FiguresView.of(judged.verdict)
        return cls(at=judged.at, number=judged.number, code=judged.code, same=judged.same, figures=figures)


class ShadowLookList(BaseModel):
    """The newest looks at a shadow, oldest first; ``same`` when every verdict is the stored one."""

    same: bool = Field(examples=[True])
    what_if: dict[str, str] = Field(examples=[{"minimum_agreement": "0.97"}], description="changes of the policy")
    items: list[ShadowLookView]

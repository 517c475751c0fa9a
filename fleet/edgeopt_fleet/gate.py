"""The gate of a wave: promote, hold or roll back, from what its devices lived through.

Pure. It does not collect evidence and does not act. The rules, in this order:

1. A wave without members is promoted: there is nobody to ask.
2. More failures among *executed* devices than the policy allows, in the wave or over all waves: roll back.
3. The model's confidence on the wave's devices fell, against each device's own baseline and beyond what the
   control devices saw in the same time (difference in differences), and its lower bound is above what the policy
   allows: roll back. If only the estimate is above it: hold, more rows will tell.
4. Anything unknown (an online member that has not executed, fewer executed than the minimum, a confirmed device
   that has not served enough rows) holds. No data never promotes. A hold past the step timeout says so.
5. Otherwise promote.

Example::

    verdict = judge(evidence, Policy(minimum_rows=200))
    verdict.decision, verdict.reasons[0].text
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgeopt_contract.windows import Window

__all__ = [
    "ControlEvidence",
    "Criterion",
    "Decision",
    "DeviceEvidence",
    "Evidence",
    "Moments",
    "Outcome",
    "Policy",
    "Reason",
    "Verdict",
    "judge",
]

# One-sided 2.3e-4 a look: the gate looks again and again at data that grow, so a look must be nearly certain.
_Z = 3.5
# Rows of one device resemble their neighbours: their mean varies more than that of independent rows would.
_DESIGN_EFFECT = 2.0
# Least standard deviation between devices, in units of confidence: one canary cannot show it, yet it is there.
_LEAST_SPREAD = 0.01


_REASON_LENGTH = 200  # characters of a device's own words in a verdict


class Decision(StrEnum):
    """What the gate says of a wave."""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLL_BACK = "roll_back"


class Criterion(StrEnum):
    """What a reason is about."""

    MEMBERS = "members"
    FAILURES = "failures"
    CONFIDENCE = "confidence"
    EXECUTED = "executed"
    WINDOW = "window"
    ROWS = "rows"
    TIMEOUT = "timeout"


class Outcome(StrEnum):
    """How a member's update ended. ``None`` stands for: not yet."""

    CONFIRMED = "confirmed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a wave passes. ``bake_seconds``, ``not_before`` (seconds since 1970) and ``window`` are for the devices."""

    failure_threshold: float = 0.1
    bake_seconds: float = 60.0
    minimum_executed: int = 1
    minimum_rows: int = 50
    max_confidence_drop: float = 0.1
    step_timeout_seconds: float = 3600.0
    not_before: int | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.failure_threshold <= 1:
            raise ValueError(f"expected failure_threshold from 0 to 1, got {self.failure_threshold}")
        if not 0 <= self.bake_seconds <= 30 * 86400:
            raise ValueError(f"expected bake_seconds from 0 to 30 days, got {self.bake_seconds}")
        if self.minimum_executed < 1 or self.minimum_rows < 0:
            raise ValueError("expected minimum_executed from 1 on and minimum_rows from 0 on")
        if not 0 < self.max_confidence_drop <= 1:
            raise ValueError(f"expected max_confidence_drop above 0 and up to 1, got {self.max_confidence_drop}")
        if not 0 < self.step_timeout_seconds < math.inf:
            raise ValueError(f"expected step_timeout_seconds above 0, got {self.step_timeout_seconds}")
        if self.not_before is not None and not 0 <= self.not_before < 2**53:
            raise ValueError(f"expected not_before as seconds since 1970, got {self.not_before}")


@dataclass(frozen=True, slots=True)
class Moments:
    """Number, sum and sum of squares of some confidences; they add up exactly over windows."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        """The mean; NaN without values."""
        return self.total / self.n if self.n else math.nan

    @property
    def mean_variance(self) -> float:
        """The variance of the mean, allowing for correlated rows; NaN without values."""
        if not self.n:
            return math.nan
        return max(self.squares / self.n - self.mean**2, 0.0) * _DESIGN_EFFECT / self.n

    def __sub__(self, earlier: Moments) -> Moments:
        return Moments(self.n - earlier.n, self.total - earlier.total, self.squares - earlier.squares)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvidence:
    """One exposed device. ``new`` and ``old`` are its confidences on the new and the previous bundle.

    ``failure`` says why its update failed; ``waiting``: it has everything and waits for its maintenance window.
    """

    device: str
    wave: int
    online: bool
    outcome: Outcome | None
    failure: str = ""
    waiting: bool = False
    rows: int = 0  # answered on the new bundle since its wave began
    new: Moments = Moments()
    old: Moments = Moments()


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEvidence:
    """One device that ran one and the same bundle before and after the wave began."""

    device: str
    before: Moments
    after: Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the gate knows. ``devices`` are all exposed ones, of this wave (``wave``) and of earlier waves."""

    wave: int
    wave_members: int
    age_seconds: float
    devices: tuple[DeviceEvidence, ...]
    controls: tuple[ControlEvidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence of a verdict, and what it is about."""

    criterion: Criterion
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer. ``timed_out``: it held for longer than the policy's step timeout."""

    decision: Decision
    reasons: tuple[Reason, ...]
    timed_out: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """What must change for this verdict to be news; the numbers inside the sentences may move."""
        return (self.decision, *sorted({reason.criterion for reason in self.reasons}))


def judge(evidence: Evidence, policy: Policy) -> Verdict:
    """Judge the current wave; see the module's docstring for the rules."""
    if evidence.wave_members == 0:
        return Verdict(Decision.PROMOTE, (Reason(Criterion.MEMBERS, "the wave has no members: nothing to wait for"),))
    wave = [device for device in evidence.devices if device.wave == evidence.wave]
    failures, too_many = _judge_failures(wave, evidence.devices, policy)
    confidence, certainty = _judge_confidence(wave, evidence.controls, policy)
    if too_many or certainty is Decision.ROLL_BACK:
        against = ([failures] if too_many else []) + ([confidence] if certainty is Decision.ROLL_BACK else [])
        return Verdict(Decision.ROLL_BACK, tuple(against))
    missing = _missing(wave, evidence.wave_members, policy)
    if certainty is Decision.HOLD:
        missing.append(confidence)
    if not missing:
        rows = sum(device.rows for device in wave)
        served = Reason(Criterion.ROWS, f"the wave's devices served {rows} rows on the new bundle")
        return Verdict(Decision.PROMOTE, (failures, served, confidence))
    if evidence.age_seconds <= policy.step_timeout_seconds:
        return Verdict(Decision.HOLD, tuple(missing))
    late = f"the wave has taken {evidence.age_seconds:.0f} s, more than the {policy.step_timeout_seconds:.0f} s allowed"
    return Verdict(Decision.HOLD, (*missing, Reason(Criterion.TIMEOUT, late)), timed_out=True)


def _judge_failures(
    wave: Sequence[DeviceEvidence], everyone: Sequence[DeviceEvidence], policy: Policy
) -> tuple[Reason, bool]:
    """Say how many of the executed devices failed, and whether those are too many."""
    worst = (-1.0, 0, 0, "")
    failures = Counter(device.failure for device in everyone if device.outcome is Outcome.FAILED and device.failure)
    for devices, where in ((wave, "in this wave"), (everyone, "over all waves")):
        executed = sum(device.outcome is not None for device in devices)
        failed = sum(device.outcome is Outcome.FAILED for device in devices)
        worst = max(worst, (failed / executed if executed else 0.0, failed, executed, where))
    share, failed, executed, where = worst
    text = (
        f"{failed} of {executed} executed devices failed {where} "
        f"({share:.0%}, at most {policy.failure_threshold:.0%} allowed)"
    )
    if failures:
        reason, times = min(failures.items(), key=lambda item: (-item[1], item[0]))
        text += f"; most often ({times} of {failures.total()}): {reason[:_REASON_LENGTH]}"
    return Reason(Criterion.FAILURES, text), share > policy.failure_threshold


def _missing(wave: Sequence[DeviceEvidence], members: int, policy: Policy) -> list[Reason]:
    """Return what is not yet known of the wave. An offline device is not waited for, but proves nothing either."""
    reasons = []
    executed = [device for device in wave if device.outcome is not None]
    pending = [device.device for device in wave if device.outcome is None and device.online and not device.waiting]
    waiting = [device.device for device in wave if device.outcome is None and device.online and device.waiting]
    needed = min(policy.minimum_executed, members)
    if pending:
        text = f"not executed yet although online: {len(pending)} ({_names(pending)})"
        reasons.append(Reason(Criterion.EXECUTED, text))
    if waiting:
        reasons.append(Reason(Criterion.WINDOW, f"waiting for the window: {len(waiting)} ({_names(waiting)})"))
    if len(executed) < needed:
        text = f"executed: {len(executed)} of {members}, at least {needed} must"
        reasons.append(Reason(Criterion.EXECUTED, text))
    confirmed = [device for device in executed if device.outcome is Outcome.CONFIRMED]
    proven = [device for device in confirmed if device.rows >= policy.minimum_rows]
    behind = [device for device in confirmed if device.rows < policy.minimum_rows and device.online]
    if behind:
        least = min(behind, key=lambda device: (device.rows, device.device))
        text = (
            f"{least.device} has served {least.rows} rows on the new bundle, at least {policy.minimum_rows} are needed"
        )
        reasons.append(Reason(Criterion.ROWS, text))
    elif len(proven) < needed:
        text = f"proven on {policy.minimum_rows} rows of the new bundle: {len(proven)}, at least {needed} must"
        reasons.append(Reason(Criterion.ROWS, text))
    return reasons


def _judge_confidence(
    wave: Sequence[DeviceEvidence], controls: Sequence[ControlEvidence], policy: Policy
) -> tuple[Reason, Decision]:
    """Judge the fall of confidence by difference in differences.

    Each wave device's change (new bundle against its own previous one) minus the controls' mean change. The
    standard error adds what varies within devices (from the rows) to what varies between them (from the spread of
    the changes, never below :data:`_LEAST_SPREAD`); with many devices this is somewhat too cautious, with one it
    is all there is. Why the device is the unit: Bertrand et al. 2004, doi 10.1162/003355304772839588.
    """
    least = max(policy.minimum_rows, 2)
    treated = [d for d in wave if d.new.n >= least and d.old.n >= least]
    if not treated:
        text = f"the confidence was not judged: no device has {least} rows both before and after the update"
        return Reason(Criterion.CONFIDENCE, text), Decision.PROMOTE
    usable = [c for c in controls if c.before.n >= least and c.after.n >= least]
    changes = [d.new.mean - d.old.mean for d in treated]
    drifts = [c.after.mean - c.before.mean for c in usable]
    drop = _mean(drifts) - _mean(changes)
    within = sum(d.new.mean_variance + d.old.mean_variance for d in treated) / len(treated) ** 2
    if usable:
        within += sum(c.after.mean_variance + c.before.mean_variance for c in usable) / len(usable) ** 2
    spread = max(_pooled_variance(changes, drifts), _LEAST_SPREAD**2)
    between = spread * (1 / len(treated) + (1 / len(usable) if usable else 0.0))
    low = drop - _Z * math.sqrt(within + between)
    against = (
        _count(len(usable), "control device") if usable else "no control device: each against its own baseline only"
    )
    text = (
        f"the confidence fell by {drop:.3f} (surely by {max(low, 0.0):.3f}, at most "
        f"{policy.max_confidence_drop:.3f} allowed) on {_count(len(treated), 'device')}, against {against}"
    )
    if drop <= policy.max_confidence_drop:
        return Reason(Criterion.CONFIDENCE, text), Decision.PROMOTE
    certain = low > policy.max_confidence_drop
    return Reason(Criterion.CONFIDENCE, text), Decision.ROLL_BACK if certain else Decision.HOLD


def _names(devices: Sequence[str]) -> str:
    return ", ".join(sorted(devices)[:5]) + (" …" if len(devices) > 5 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _pooled_variance(*groups: Sequence[float]) -> float:
    """Return the variance around each group's own mean, pooled; 0 where no group has two values."""
    freedom = sum(max(len(group) - 1, 0) for group in groups)
    squares = sum(sum((value - _mean(group)) ** 2 for value in group) for group in groups)
    return squares / freedom if freedom else 0.0

"""How a challenger agreed with the champion beside which it ran: the figures of one look, with bounds.

Pure. Devices and windows are the units, and the error of a look is shared as :mod:`edgeopt_fleet.gate.shadow` says,
which judges them. Example::

    agreement = agreement_of(evidence, ShadowPolicy())
    agreement.over_all                       # Interval(share=0.996, lower=0.981, upper=0.999)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from edgeopt_fleet.gate.bounds import effective, lower_bound, median_lower, median_upper, upper_bound
from edgeopt_fleet.gate.shadow_evidence import ClassAgreement, ShadowEvidence, ShadowPolicy
from edgeopt_fleet.gate.spending import look_share

__all__ = ["Agreement", "Interval", "Ratio", "agreement_of", "errors_at", "members_of"]

_LIMITS = 4  # for which it may be refused with some error: agreement, errors, classes, times


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A share, and between what it surely lies, at the errors that the look may make."""

    share: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Times challenger/champion: their median over the devices asked, and what it surely is over all; inf: unknown."""

    median: float
    lower: float
    upper: float
    devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The figures of one look; ``over_all`` and ``errors`` are None while no device counts.

    ``devices`` count, ``rows`` they compared in ``windows`` effective ones. ``worst`` is a class that surely agrees too
    little, or else the one of which the least is sure, of those with enough rows; ``latency`` is by hardware class.
    """

    devices: int
    rows: int
    windows: float
    over_all: Interval | None = None
    errors: Interval | None = None
    worst: ClassAgreement | None = None
    worst_share: Interval | None = None
    latency: Mapping[str, Ratio]


def agreement_of(evidence: ShadowEvidence, policy: ShadowPolicy) -> Agreement:
    """Return the figures of the devices that have compared enough rows."""
    counted = [one for one in evidence.devices if one.compared >= policy.minimum_rows]
    slow: dict[str, list[float]] = {}
    for one in counted:
        if one.champion_us and one.challenger_us is not None:
            slow.setdefault(one.hardware, []).append(one.challenger_us / one.champion_us)
    windows = effective([one.windows for one in counted])
    shares = [one.agreed / one.compared for one in counted]
    failed = [one.errors / (one.errors + one.compared) for one in counted]
    worst, worst_share = _worst(evidence, policy)
    return Agreement(
        devices=len(counted),
        rows=sum(one.compared for one in counted),
        windows=windows,
        over_all=_interval(shares, windows, evidence, policy) if counted else None,
        errors=_interval(failed, windows, evidence, policy) if counted else None,
        worst=worst,
        worst_share=worst_share,
        latency={hardware: _ratio(hardware, slow, evidence, policy) for hardware in sorted(slow)},
    )


def _worst(evidence: ShadowEvidence, policy: ShadowPolicy) -> tuple[ClassAgreement | None, Interval | None]:
    """Return the class that speaks most against the challenger, with bounds that hold for all classes at once."""
    wrong, refused = errors_at(evidence, policy, len(evidence.classes))
    found = []
    for one in evidence.classes:
        if one.agreed + one.disagreed >= policy.class_rows:
            share = one.agreed / (one.agreed + one.disagreed)
            low, high = lower_bound(share, one.windows, wrong), upper_bound(share, one.windows, refused)
            found.append((one, Interval(share=share, lower=low, upper=high)))
    limit = policy.minimum_class_agreement
    first = min(found, key=lambda pair: (pair[1].upper >= limit, pair[1].lower, pair[0].label), default=None)
    return (None, None) if first is None else first


def _ratio(hardware: str, slow: Mapping[str, list[float]], evidence: ShadowEvidence, policy: ShadowPolicy) -> Ratio:
    """Return how much slower it is on a hardware class, with bounds that hold for all hardware classes at once."""
    wrong, refused = errors_at(evidence, policy, len(slow))
    values, members = slow[hardware], members_of(evidence, hardware)
    return Ratio(
        median=median(values),
        lower=median_lower(values, members, refused),
        upper=median_upper(values, members, wrong),
        devices=len(values),
    )


def members_of(evidence: ShadowEvidence, hardware: str) -> int:
    """Return how many devices a hardware class has; all of the cohort where nobody counted them."""
    return evidence.hardware.get(hardware, evidence.members)


def errors_at(evidence: ShadowEvidence, policy: ShadowPolicy, among: int) -> tuple[float, float]:
    """Return the chances to recommend and to refuse wrongly that each of so many may have at this look."""
    each = look_share(evidence.number) / max(among, 1)
    return policy.false_recommendation * each, policy.false_refusal * each / _LIMITS


def _interval(shares: Sequence[float], windows: float, evidence: ShadowEvidence, policy: ShadowPolicy) -> Interval:
    """Return the mean of ``shares`` over the devices asked, and bounds of the mean over all members."""
    mean, asked = fmean(shares), len(shares)
    others = max(1 - asked / max(evidence.members, 1), 0.0)  # the share of members about which nothing is known
    wrong, refused = errors_at(evidence, policy, 2)  # half for windows, half for devices
    low, high = lower_bound(mean, windows, wrong), upper_bound(mean, windows, refused)
    return Interval(
        share=mean,
        lower=max(lower_bound(low, asked, wrong), low * (1 - others)),
        upper=min(upper_bound(high, asked, refused), high * (1 - others) + others),
    )

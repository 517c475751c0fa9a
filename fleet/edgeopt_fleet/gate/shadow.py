"""May a challenger answer? Judged by how it agreed with the champion beside which it ran; it recommends, no more.

Pure. The device is the unit: each counts as much as any other, however many rows it sent, so that a busy one does not
speak for the fleet, and a device on which everything is different is one device. Within a device the unit is the
window, because rows that follow each other resemble each other. Two errors are bounded by
:mod:`edgeopt_fleet.gate.bounds` and share what a look may err: what the devices that were asked would have said with
endless windows, and what the others would have said. Of the latter there is a second bound that needs no chance:
at worst they all disagree; so a fleet of which every device was asked needs no large number of them. Looks share the
error as those of the gate do (:func:`~edgeopt_fleet.gate.spending.look_share`).

Classes are judged on the devices that compared, by the same bounds, all at once (Bonferroni: each has its part of the
error); so are hardware classes, by bounds of the median over all their members of the ratio of times that a device
measures; that a median on a device errs, too, is not part of it. Nothing is recommended unless agreement, classes and
times are surely within their limits, so the error of a recommendation is that of one limit, whichever is broken
(intersection-union test: Berger 1982, Technometrics 24, page 295). A refusal may come from any of four, with errors,
which share its error. Rules, in this order:

1. Too many devices failed at it, surely too many errors, surely too little agreement over all or in a class, or
   surely too slow on a hardware class: do not recommend.
2. Nothing to compare, too few devices, an agreement, a class or a time that is not surely within its limit, or errors
   on the wrong side without being surely so: not enough yet, with how many more rows or devices it takes.
3. Otherwise: recommend.

Example::

    verdict = judge(evidence, ShadowPolicy())
    verdict.decision, verdict.reasons[0]
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from edgeopt_contract.values import canonical_json
from edgeopt_fleet.gate.bounds import devices_needed, lower_bound, values_needed
from edgeopt_fleet.gate.shadow_evidence import DeviceAgreement, ShadowEvidence, ShadowPolicy
from edgeopt_fleet.gate.shadow_figures import Agreement, Interval, Ratio, agreement_of, errors_at, members_of
from edgeopt_fleet.gate.spending import look_share
from edgeopt_fleet.gate.verdict import rounded
from edgeopt_fleet.gate.wording import count

__all__ = ["CODE", "Decision", "ShadowVerdict", "canonical", "judge"]

CODE = "shadow-2"  # raised whenever the same evidence may be judged otherwise
_FAILED = "failed"
_NEXT = 0.25  # of this look's error the next one has at least so much: (k / (k + 1))^2


class Decision(StrEnum):
    """What is said of a challenger."""

    RECOMMEND = "recommend"
    DO_NOT_RECOMMEND = "do_not_recommend"
    NOT_ENOUGH = "not_enough"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowVerdict:
    """What is said, why, and from which figures."""

    decision: Decision
    reasons: tuple[str, ...]
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class _Found:
    """Sentences that speak against the challenger, that hold it back, and for it."""

    against: list[str]
    doubts: list[str]
    favour: list[str]


def judge(evidence: ShadowEvidence, policy: ShadowPolicy) -> ShadowVerdict:
    """Judge one look; see the module's docstring for the rules."""
    found = _Found([], [], [])
    _judge_failures(evidence.devices, policy, found)
    agreement = agreement_of(evidence, policy)
    if agreement.over_all is None:
        most = max((one.compared for one in evidence.devices), default=0)
        found.doubts.append(
            f"no device has compared {policy.minimum_rows} rows yet; the furthest has {most}, "
            f"{count(policy.minimum_rows - most, 'more row')} needed"
        )
    else:
        _judge_agreement(evidence, policy, agreement, found)
        _judge_errors(policy, agreement, found)
        _judge_classes(evidence, policy, agreement, found)
        _judge_latency(evidence, policy, agreement, found)
    if found.against:
        return ShadowVerdict(decision=Decision.DO_NOT_RECOMMEND, reasons=tuple(found.against), agreement=agreement)
    if found.doubts:
        return ShadowVerdict(decision=Decision.NOT_ENOUGH, reasons=tuple(found.doubts), agreement=agreement)
    return ShadowVerdict(decision=Decision.RECOMMEND, reasons=tuple(found.favour), agreement=agreement)


def _judge_failures(devices: Iterable[DeviceAgreement], policy: ShadowPolicy, found: _Found) -> None:
    began = [one for one in devices if one.compared or one.errors or one.state == _FAILED]
    failed = [one for one in began if one.state == _FAILED]
    if failed and len(failed) > policy.max_failed_share * len(began):
        found.against.append(
            f"{len(failed)} of {count(len(began), 'device')} failed to run it "
            f"(at most {policy.max_failed_share:.0%} allowed), such as {failed[0].device}"
        )


def _judge_agreement(evidence: ShadowEvidence, policy: ShadowPolicy, agreement: Agreement, found: _Found) -> None:
    seen = agreement.over_all
    assert seen is not None  # the caller looked
    text = (
        f"the challenger agrees on {seen.share:.2%} of requests (surely on {seen.lower:.2%} to {seen.upper:.2%}, at "
        f"least {policy.minimum_agreement:.2%} wanted), {count(agreement.rows, 'row')} on {agreement.devices} of "
        f"{count(evidence.members, 'device')}"
    )
    if seen.upper < policy.minimum_agreement:
        found.against.append(text)
    elif agreement.devices < policy.minimum_devices:
        missing = policy.minimum_devices - agreement.devices
        found.doubts.append(f"{text}; {count(missing, 'more device')} needed")
    elif seen.lower < policy.minimum_agreement:
        found.doubts.append(f"{text}; {_missing(evidence, policy, agreement)}")
    else:
        found.favour.append(text)


def _missing(evidence: ShadowEvidence, policy: ShadowPolicy, agreement: Agreement) -> str:
    """Say how many more rows on these devices, or devices, it takes if the agreement stays what it is."""
    seen, limit = agreement.over_all, policy.minimum_agreement
    assert seen is not None  # the caller looked
    if seen.share <= limit:
        return "as it stands that is not enough, but not surely so: more rows, or more devices, will tell"
    alpha = policy.false_recommendation * look_share(evidence.number + 1) / 2
    # Half of the distance is for the windows, half for the devices; less for the windows when there are many already.
    middle = max((seen.share + limit) / 2, lower_bound(seen.share, agreement.windows, alpha))
    devices = min(int(values_needed(middle, limit, alpha)), math.ceil(evidence.members * limit / middle))
    everybody = agreement.devices >= evidence.members
    wanted = values_needed(seen.share, limit if everybody else middle, alpha)
    rows = math.ceil(max(wanted - agreement.windows, 1) * agreement.rows / max(agreement.windows, 1))
    parts = []
    if not everybody and agreement.devices < devices:
        parts.append(count(min(devices, evidence.members) - agreement.devices, "more device"))
    if wanted > agreement.windows or not parts:
        parts.append(f"about {count(rows, 'more row')}")
    return f"{' and '.join(parts)} needed at this agreement"


def _judge_errors(policy: ShadowPolicy, agreement: Agreement, found: _Found) -> None:
    seen = agreement.errors
    assert seen is not None  # the caller looked
    text = f"it failed at {seen.share:.2%} of its runs (at most {policy.max_error_share:.2%} allowed)"
    if seen.lower > policy.max_error_share:
        found.against.append(text)
    elif seen.share > policy.max_error_share:
        found.doubts.append(f"{text}, but not surely so: more rows needed")
    else:
        found.favour.append(text)


def _judge_classes(evidence: ShadowEvidence, policy: ShadowPolicy, agreement: Agreement, found: _Found) -> None:
    worst, seen, limit = agreement.worst, agreement.worst_share, policy.minimum_class_agreement
    if worst is None or seen is None:
        return
    rows = worst.agreed + worst.disagreed
    text = (
        f"worst class: {worst.label!r} agrees on {seen.share:.2%} of {count(rows, 'row')} (surely on "
        f"{seen.lower:.2%} to {seen.upper:.2%}, at least {limit:.2%} wanted)"
    )
    if seen.upper < limit:
        found.against.append(text)
    elif seen.lower >= limit:
        found.favour.append(text)
    elif seen.share <= limit:
        found.doubts.append(f"{text}, which is not surely too little: more rows of it needed")
    else:
        later, _ = errors_at(evidence, policy, len(evidence.classes))
        missing = max(values_needed(seen.share, limit, later * _NEXT) - worst.windows, 1)
        more = math.ceil(missing * rows / max(worst.windows, 1))
        found.doubts.append(f"{text}; about {count(more, 'more row')} of it needed at this agreement")


def _judge_latency(evidence: ShadowEvidence, policy: ShadowPolicy, agreement: Agreement, found: _Found) -> None:
    limit = policy.max_latency_ratio
    for hardware, ratio in agreement.latency.items():
        text = f"on {hardware or 'unknown hardware'} it takes {ratio.median:.2f} times the champion's time"
        allowed = f"at most {limit:g} times allowed"
        if ratio.lower > limit:
            found.against.append(f"{text} (surely {ratio.lower:.2f} or more, {allowed})")
        elif ratio.upper <= limit:
            found.favour.append(f"{text} (surely {ratio.upper:.2f} or less, {allowed})")
        elif math.isinf(ratio.upper):
            wrong, _ = errors_at(evidence, policy, len(agreement.latency))
            missing = devices_needed(members_of(evidence, hardware), wrong * _NEXT) - ratio.devices
            found.doubts.append(f"{text} ({allowed}); {count(max(missing, 1), 'more device')} of it needed")
        else:
            found.doubts.append(
                f"{text} (surely {max(ratio.lower, 0):.2f} to {ratio.upper:.2f}, {allowed}), which is not surely "
                "within it: more devices of it will tell"
            )


def canonical(verdict: ShadowVerdict) -> bytes:
    """Return the whole verdict as canonical JSON; figures have six significant digits."""
    found = verdict.agreement
    return canonical_json(
        {
            "decision": str(verdict.decision),
            "reasons": verdict.reasons,
            "devices": found.devices,
            "rows": found.rows,
            "windows": rounded(found.windows),
            "over_all": _plain(found.over_all),
            "errors": _plain(found.errors),
            "worst": None if found.worst is None else [found.worst.label, found.worst.agreed, found.worst.disagreed],
            "worst_share": _plain(found.worst_share),
            "latency": {hardware: _times(ratio) for hardware, ratio in found.latency.items()},
        }
    )


def _plain(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [rounded(one) for one in (interval.share, interval.lower, interval.upper)]


def _times(ratio: Ratio) -> list[float | None]:
    return [rounded(one) for one in (ratio.median, ratio.lower, ratio.upper)]

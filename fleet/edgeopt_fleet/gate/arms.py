"""Two arms compared: is B better than A, worse, alike, or is that not known yet? Device is the unit, as in the gate.

Pure. It compares what the gate compares, by the gate's own test (:mod:`edgeopt_fleet.gate.comparing`), with B as the
treated and A as the controls. Devices were drawn by lot: what differs between the arms is the bundle, or chance. Rules:

1. All intervals together hold with the stated confidence: the error is shared over metrics, over the whole and its
   hardware classes, and over comparisons made so far, as that of the gate's looks is.
2. An interval that lies within the margin is *alike*; one that does not hold zero says which arm is better; any other
   says *not known*, and how many more devices in each arm, or hours, would decide.
3. Better in one metric and worse in another is a trade-off, for people to weigh. What is not known of one metric does
   not hide what is sure of another; with too few rows nothing is said.
4. Where few devices had served anything before (a first installation), their levels are compared, not their changes;
   then how the class mix changed is not known.

Example::

    found = compare_arms(evidence, Margins(latency=0.05))
    found.result, found.text             # (Result.B, 'B is better: the 95th percentile of latency is lower by 9.1% …')
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from edgeopt_contract.errors import MessageError
from edgeopt_contract.values import canonical_json
from edgeopt_fleet.gate.arms_wording import reasons_of
from edgeopt_fleet.gate.comparing import FEW, Comparison, Noise, compare, without
from edgeopt_fleet.gate.evidence import Devices, Tally, devices_of
from edgeopt_fleet.gate.findings import OF_THE_WORLD, PRIORS, Floats, bounds, counted, names_of
from edgeopt_fleet.gate.policy import COMPARED, Margins, Metric
from edgeopt_fleet.gate.spending import Shares, abort_error
from edgeopt_fleet.gate.stored import pack, unpack
from edgeopt_fleet.gate.verdict import rounded

__all__ = [
    "ArmsEvidence",
    "ArmsVerdict",
    "Difference",
    "Result",
    "Side",
    "canonical_arms",
    "compare_arms",
    "decode_arms",
    "encode_arms",
]

_FORMAT = 1
_MOST_DEVICES = 10**7  # a need beyond that is as good as never
_EFFICIENCY = 0.88  # a trimmed mean of normal values varies like the mean of so many times as many (Wilcox, ch. 3)


class Side(StrEnum):
    """What one metric of one group says."""

    A = "a_better"
    B = "b_better"
    ALIKE = "alike"
    UNKNOWN = "unknown"
    UNMEASURED = "unmeasured"


class Result(StrEnum):
    """What the comparison comes to."""

    A = "a_better"
    B = "b_better"
    TRADE_OFF = "trade_off"
    ALIKE = "alike"
    NOT_ENOUGH = "not_enough_data"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArmsEvidence:
    """What each arm's devices lived through. ``changes`` of both have the rows of COMPARED.

    ``number`` counts the comparisons of this rollout from 1, ``seconds`` is how long the arms were observed, ``levels``
    says that devices had no past to compare with. Tallies are of the updates themselves.
    """

    number: int
    seconds: float
    levels: bool
    hardware: tuple[str, ...]
    a: Devices
    b: Devices
    tally_a: Tally
    tally_b: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of one group (a hardware class; empty for all): B is worse than A by ``estimate``, in its interval.

    ``more_devices`` in each arm, or ``more_hours``, would decide what is unknown; None where that cannot be said.
    """

    metric: Metric
    group: str
    side: Side
    estimate: float
    lower: float
    upper: float
    margin: float
    devices_a: int
    devices_b: int
    more_devices: int | None = None
    more_hours: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmsVerdict:
    """The comparison's answer; ``reasons`` are sentences, ``text`` the first of them: what it comes to."""

    result: Result
    reasons: tuple[str, ...]
    number: int
    confidence: float
    differences: tuple[Difference, ...]

    @property
    def text(self) -> str:
        """What it comes to, in one sentence."""
        return self.reasons[0]


def compare_arms(evidence: ArmsEvidence, margins: Margins) -> ArmsVerdict:
    """Compare the arms; see the module's docstring for the rules."""
    a, b = evidence.a, evidence.b
    ours, theirs = _counted(b, evidence, margins), _counted(a, evidence, margins)
    here = [set(d.hardware[np.isfinite(v).any(axis=0)].tolist()) for d, v in ((a, theirs), (b, ours))]
    both = sorted(here[0] & here[1])
    classes = both if len(both) > 1 else []
    shares = Shares(waves=1, look=evidence.number, metrics=len(COMPARED), classes=len(classes))
    errors = abort_error((1.0 - margins.confidence) / 2, shares)  # half of it at each end of an interval
    prior = np.array([PRIORS[metric] for metric in COMPARED])
    quiet = Noise(b.noise.astype(np.float64), a.noise.astype(np.float64))
    whole = compare(ours, theirs, quiet, prior)
    found = _differences("", whole, errors.overall, evidence, margins)
    for place in classes:
        mine, others = b.hardware == place, a.hardware == place
        part = compare(
            without(ours[:, mine], whole.treated_aside[:, mine]),
            without(theirs[:, others], whole.controls_aside[:, others]),
            Noise(quiet.treated[:, mine], quiet.controls[:, others]),
            prior,
        )
        found += _differences(evidence.hardware[place], part, errors.each_class, evidence, margins)
    aside = names_of(b, whole.treated_aside) | names_of(a, whole.controls_aside)
    rows = int(a.after.sum()), int(b.after.sum())
    result = Result.NOT_ENOUGH if min(rows) < margins.minimum_rows else _result(found)
    return ArmsVerdict(
        result=result,
        reasons=reasons_of(result, found, evidence, margins, sorted(aside)),
        number=evidence.number,
        confidence=margins.confidence,
        differences=tuple(found),
    )


def _counted(devices: Devices, evidence: ArmsEvidence, margins: Margins) -> Floats:
    """Return the changes that count (COMPARED, n); levels need no rows before."""
    if not evidence.levels:
        return counted(devices, margins.device_rows)
    before = np.maximum(devices.before, devices.after)
    full = Devices(
        names=devices.names,
        hardware=devices.hardware,
        before=before,
        after=devices.after,
        changes=devices.changes,
        noise=devices.noise,
    )
    return counted(full, margins.device_rows)


def _differences(
    group: str, compared: Comparison, error: float, evidence: ArmsEvidence, margins: Margins
) -> list[Difference]:
    lower, upper = bounds(compared, error, error)
    found = []
    for row, metric in enumerate(COMPARED):
        margin = margins.of(metric)
        n_a, n_b = int(compared.controls[row]), int(compared.treated[row])
        low, high, estimate = float(lower[row]), float(upper[row]), float(compared.estimate[row])
        side = _side(metric, (n_a, n_b), (low, high), margin)
        need = _need(row, estimate, high - estimate, float(compared.error[row]), evidence, margin)
        more = need if side is Side.UNKNOWN else (None, None)
        found.append(
            Difference(
                metric=metric,
                group=group,
                side=side,
                estimate=estimate if n_a and n_b else math.nan,
                lower=low if n_a and n_b else math.nan,
                upper=high if n_a and n_b else math.nan,
                margin=margin,
                devices_a=n_a,
                devices_b=n_b,
                more_devices=None if more[0] is None else math.ceil(min(n_a, n_b) * more[0]),
                more_hours=more[1],
            )
        )
    return found


def _side(metric: Metric, devices: tuple[int, int], interval: tuple[float, float], margin: float) -> Side:
    """Say what an interval of B - A means; more is worse. The world moves few devices as a bundle would."""
    if not all(devices):
        return Side.UNMEASURED
    if min(devices) < FEW and metric in OF_THE_WORLD:
        return Side.UNKNOWN
    low, high = interval
    if -margin <= low and high <= margin:
        return Side.ALIKE
    if low > 0:
        return Side.A
    return Side.B if high < 0 else Side.UNKNOWN


def _need(
    row: int, estimate: float, width: float, error: float, evidence: ArmsEvidence, margin: float
) -> tuple[float | None, float | None]:
    """Return by which share of its devices each arm must grow, or how many more hours, for an interval to decide.

    An interval decides when its half width is below the estimate's distance from zero, or from the margin. It shrinks
    with the root of the devices; more hours shrink only the part of it that comes from few rows after the update.
    """
    target = max(abs(estimate), margin - abs(estimate))
    if not (math.isfinite(width) and width > 0 and target > 0):
        return None, None
    factor = (width / target) ** 2
    if factor <= 1 or factor > _MOST_DEVICES:
        return None, None
    from_rows = 0.0
    for devices in (evidence.a, evidence.b):
        served = np.isfinite(devices.changes[row]) & (devices.after > 0)
        if not served.any():
            return factor - 1, None
        before = devices.before[served] / (devices.before[served] + devices.after[served])
        late = devices.noise[row][served] * (1.0 if evidence.levels else before)  # its part of both sides' noise
        from_rows += float(late.mean()) / int(served.sum())
    rows_share = min(from_rows / _EFFICIENCY / error**2, 1.0)
    left = 1 / factor - (1 - rows_share)  # of the variance, once the rest is as small as it can be
    if left <= 0 or evidence.seconds <= 0:
        return factor - 1, None
    return factor - 1, evidence.seconds / 3600 * (rows_share / left - 1)


def _result(found: list[Difference]) -> Result:
    sides = {one.side for one in found}
    if {Side.A, Side.B} <= sides:
        return Result.TRADE_OFF
    if Side.A in sides or Side.B in sides:
        return Result.A if Side.A in sides else Result.B
    whole = {one.side for one in found if not one.group}
    return Result.NOT_ENOUGH if Side.UNKNOWN in whole or Side.ALIKE not in whole else Result.ALIKE


def canonical_arms(verdict: ArmsVerdict) -> bytes:
    """Return the whole verdict as canonical JSON, in the form of :func:`edgeopt_fleet.gate.canonical`."""
    return canonical_json(
        {
            "result": str(verdict.result),
            "reasons": list(verdict.reasons),
            "number": verdict.number,
            "confidence": verdict.confidence,
            "differences": [_plain(one) for one in verdict.differences],
        }
    )


def _plain(one: Difference) -> dict[str, Any]:
    return {
        "metric": str(one.metric),
        "group": one.group,
        "side": str(one.side),
        **{name: rounded(getattr(one, name)) for name in ("estimate", "lower", "upper", "margin")},
        "devices_a": one.devices_a,
        "devices_b": one.devices_b,
        "more_devices": one.more_devices,
        "more_hours": None if one.more_hours is None else rounded(one.more_hours),
    }


def encode_arms(evidence: ArmsEvidence) -> bytes:
    """Return ``evidence`` as canonical bytes; see :mod:`edgeopt_fleet.gate.stored`."""
    return pack(_FORMAT, evidence)


def decode_arms(stored: bytes) -> ArmsEvidence:
    """Return what :func:`encode_arms` was given. Raises :class:`MessageError` when ``stored`` is not that."""
    try:
        number, seconds, levels, hardware, a, b, tally_a, tally_b = unpack(_FORMAT, stored)
        return ArmsEvidence(
            number=number,
            seconds=seconds,
            levels=levels,
            hardware=tuple(hardware),
            a=devices_of(a),
            b=devices_of(b),
            tally_a=Tally(*tally_a),
            tally_b=Tally(*tally_b),
        )
    except (ValueError, TypeError) as error:
        raise MessageError(f"stored evidence cannot be read: {error}") from error

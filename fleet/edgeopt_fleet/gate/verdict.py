"""What the gate answers: a decision, its reasons in words, and the figures behind them. Pure; shapes only.

:func:`canonical` gives the bytes that are stored and compared at a replay. Example::

    canonical(verdict)      # b'{"decision":"hold","findings":[…],"look":"early",…}'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from edgeopt_contract.values import canonical_json
from edgeopt_fleet.gate.evidence import Look
from edgeopt_fleet.gate.findings import Finding

__all__ = ["Criterion", "Decision", "Reason", "Verdict", "canonical", "rounded", "together"]

_DIGITS = 6  # significant ones: what two machines agree on


class Decision(StrEnum):
    """What the gate says of a wave."""

    PROMOTE = "promote"
    HOLD = "hold"
    ROLL_BACK = "roll_back"


class Criterion(StrEnum):
    """What a reason is about; the metrics are among them."""

    MEMBERS = "members"
    FAILURES = "failures"
    ERRORS = "errors"
    LATENCY = "latency"
    CONFIDENCE = "confidence"
    CLASS_MIX = "class_mix"
    DRIFT = "drift"
    DIVERGENCE = "divergence"
    HARDWARE = "hardware"
    UNMEASURED = "unmeasured"
    DEVICES = "devices"
    EXECUTED = "executed"
    WINDOW = "window"
    ROWS = "rows"
    LOOKS = "looks"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Reason:
    """One sentence of a verdict, and what it is about."""

    criterion: Criterion
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer. ``timed_out``: a person must look, the wave was held for too long or too often.

    ``look`` is what this look came to, the ``number``-th of the wave; ``None`` when there was nothing to compare.
    """

    decision: Decision
    reasons: tuple[Reason, ...]
    timed_out: bool = False
    look: Look | None = None
    number: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether this look compared something, and so spent error; another one is due an interval later."""
        return self.look is not None

    @property
    def key(self) -> tuple[str, ...]:
        """What must change for this verdict to be news; the numbers inside the sentences may move."""
        return (self.decision, *sorted({reason.criterion for reason in self.reasons}))


def together(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Return what the verdicts on both arms come to: the worse decision, its reasons first, each naming its arm."""
    order = (Decision.ROLL_BACK, Decision.HOLD, Decision.PROMOTE)
    ranked = sorted(verdicts.items(), key=lambda item: (order.index(item[1].decision), item[0]))
    tested = [one for _, one in ranked if one.tested]
    return Verdict(
        decision=ranked[0][1].decision,
        reasons=tuple(replace(r, text=f"arm {arm}: {r.text}") for arm, one in ranked for r in one.reasons),
        timed_out=any(one.timed_out for _, one in ranked),
        look=tested[0].look if tested else None,
    )


def canonical(verdict: Verdict) -> bytes:
    """Return the whole verdict as canonical JSON; figures have six significant digits, unknown ones are null."""
    return canonical_json(
        {
            "decision": str(verdict.decision),
            "reasons": [[str(reason.criterion), reason.text] for reason in verdict.reasons],
            "timed_out": verdict.timed_out,
            "look": None if verdict.look is None else str(verdict.look),
            "number": verdict.number,
            "findings": [_plain(finding) for finding in verdict.findings],
        }
    )


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "metric": str(finding.metric),
        "group": finding.group,
        "standing": str(finding.standing),
        **{name: rounded(getattr(finding, name)) for name in ("estimate", "lower", "upper", "allowed")},
        "devices": finding.devices,
        "controls": finding.controls,
        "decides": finding.decides,
    }


def rounded(value: float) -> float | None:
    """Return ``value`` with the digits that two machines agree on; None for what is no number."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None

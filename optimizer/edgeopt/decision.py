"""What becomes of the int8 variant: shipped, left out for the float model, or refused. And why, in words.

Rules, in order:

1. A variant that was timed on the target's kind of CPU and is not faster (the lower bound of its ratio is at most
   one) is not chosen. The float model is, whose accuracy is its own: PASS.
2. Otherwise the accuracy gate's verdict is the verdict; on PASS the variant is chosen.

Pure. Example::

    decide(judgement, speed, agreement=0.99).chosen          # "int8", "fp32" or None
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.gate import Judgement, Verdict
from edgeopt.timing import Speed

__all__ = ["FP32", "INT8", "Decision", "decide"]

INT8 = "int8"
FP32 = "fp32"
_CHANGED_ANSWERS = 0.02  # more than this share of changed answers is worth a word, whatever the accuracy says


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict of the whole run, the variant that ships (``None``: nothing does), and the reasons."""

    verdict: Verdict
    chosen: str | None
    reasons: tuple[str, ...]


def decide(judgement: Judgement, speed: Speed | None, agreement: float) -> Decision:
    """Decide from the gate's judgement of int8, its speed (``None``: cannot be measured here) and its agreement."""
    accuracy = _explain(judgement)
    if speed is not None and speed.ratio_low <= 1:
        slow = (
            f"int8 is not faster: fp32 takes {speed.baseline_ms:.3f} ms, int8 {speed.variant_ms:.3f} ms; the ratio is "
            f"{speed.ratio:.2f} ({speed.ratio_low:.2f} to {speed.ratio_high:.2f}), and its lower bound is not above 1"
        )
        kept = "the bundle carries the fp32 model, whose accuracy is the baseline's"
        return Decision(Verdict.PASS, FP32, (slow, kept, f"for the record, int8: {accuracy}"))
    reasons = [accuracy]
    if speed is not None:
        reasons.append(f"int8 is {speed.ratio:.2f} times as fast ({speed.ratio_low:.2f} to {speed.ratio_high:.2f})")
    if judgement.verdict is not Verdict.PASS:
        reasons.append("no bundle is written")
        return Decision(judgement.verdict, None, tuple(reasons))
    if 1 - agreement > _CHANGED_ANSWERS:
        reasons.append(f"beware: {1 - agreement:.1%} of the answers differ from the float model's")
    return Decision(Verdict.PASS, INT8, tuple(reasons))


def _explain(judgement: Judgement) -> str:
    """Say what the gate found, and what to do about it."""
    confidence = f"{judgement.confidence:.0%}"
    bounds = f"between {judgement.drop_lower * 100:.2f} and {judgement.drop_upper * 100:.2f} points"
    seen = f"a drop of {judgement.drop * 100:.2f} points on {judgement.n} samples"
    margin = f"{judgement.margin * 100:g} points"
    if judgement.verdict is Verdict.PASS:
        return f"{seen}; at {confidence} confidence at most {judgement.drop_upper * 100:.2f}, and {margin} are allowed"
    if judgement.verdict is Verdict.FAIL:
        return (
            f"{seen}; at {confidence} confidence at least {judgement.drop_lower * 100:.2f}, and only {margin} are "
            "allowed: calibrate with data more like what the device sees, or allow a greater drop"
        )
    if judgement.samples_needed is None:
        advice = "the drop seen is not below what is allowed, so more samples would hardly help: allow a greater drop"
    else:
        advice = f"about {judgement.samples_needed} certification samples like these would decide it"
    return f"{seen}; the true drop lies {bounds}, and {margin} are allowed: {advice}"

"""What becomes of the int8 variant: shipped, left out for the float model, or refused. And why, in words.

Rules, in order:

1. A variant that was timed on the target's kind of CPU and is not faster (the lower bound of its ratio is at most
   one) is not chosen. The float model is, whose accuracy is its own: PASS.
2. Otherwise the accuracy gate's verdict is the verdict; on PASS the variant is chosen.

Pure. Example::

    decide(judgement, speed, 0.99, wording).chosen          # "int8", "fp32" or None
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.gate import Judgement, Verdict
from edgeopt.timing import Speed
from edgeopt.wording import Wording

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


def decide(judgement: Judgement, speed: Speed | None, agreement: float, wording: Wording) -> Decision:
    """Decide from the gate's judgement of int8, its speed (``None``: cannot be measured here) and its agreement."""
    accuracy = _explain(judgement, wording)
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


def _explain(judgement: Judgement, wording: Wording) -> str:
    """Say what the gate found, and what to do about it."""
    confidence = f"{judgement.confidence * 100:g} % confidence"
    lower, upper = wording.number(judgement.drop_lower), wording.drop(judgement.drop_upper)
    seen = f"a drop of {wording.drop(judgement.drop)} on {judgement.n} samples"
    allowed = f"allowed: {wording.margin(judgement.margin)}"
    if judgement.verdict is Verdict.PASS:
        return f"{seen}, at most {upper} at {confidence} ({allowed})"
    if judgement.verdict is Verdict.FAIL:
        at_least = wording.drop(judgement.drop_lower)
        advice = "calibrate with data more like what the device sees, or allow a greater drop"
        return f"{seen}, at least {at_least} at {confidence} ({allowed}): {advice}"
    if judgement.samples_needed is None:
        advice = "the drop seen is not below what is allowed, so more samples would hardly help: allow a greater drop"
    else:
        advice = f"about {judgement.samples_needed} certification samples like these would decide it"
    return f"{seen}, so the true one lies between {lower} and {upper} ({allowed}): {advice}"

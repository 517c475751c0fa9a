"""What becomes of the int8 variant: shipped, left out for the float model, or refused. And why, in words.

Rules, in order:

1. A variant that was timed on the target's kind of CPU and is not faster (the lower bound of its ratio is at most
   one) is not chosen. The float model is, whose accuracy is its own: PASS.
2. Otherwise the gate's verdict over all criteria is the verdict; on PASS the variant is chosen.

Pure. Example::

    decide(criteria, speed, 0.99, wording).chosen          # "int8", "fp32" or None
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt.criteria import ClassDrop, Criterion, Name, joint_verdict
from edgeopt.gate import Verdict
from edgeopt.timing import Speed
from edgeopt.wording import Wording

__all__ = ["FP32", "INT8", "Decision", "decide"]

INT8 = "int8"
FP32 = "fp32"
_CHANGED_ANSWERS = 0.02  # more than this share of changed answers is worth a word, whatever the accuracy says
_NAMED_CLASSES = 5  # more of them would bury the other reasons; report.json has all


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict of the whole run, the variant that ships (``None``: nothing does), and the reasons."""

    verdict: Verdict
    chosen: str | None
    reasons: tuple[str, ...]


def decide(criteria: Sequence[Criterion], speed: Speed | None, agreement: float, wording: Wording) -> Decision:
    """Decide from what int8 was held against, its speed (``None``: cannot be measured here) and its agreement."""
    judged = [_explain(criterion, wording) for criterion in criteria]
    if speed is not None and speed.ratio_low <= 1:
        slow = (
            f"int8 is not faster: fp32 takes {speed.baseline_ms:.3f} ms, int8 {speed.variant_ms:.3f} ms; the ratio is "
            f"{speed.ratio:.2f} ({speed.ratio_low:.2f} to {speed.ratio_high:.2f}), and its lower bound is not above 1"
        )
        kept = "the bundle carries the fp32 model, whose accuracy is the baseline's"
        return Decision(Verdict.PASS, FP32, (slow, kept, *(f"for the record, int8: {reason}" for reason in judged)))
    reasons = list(judged)
    if speed is not None:
        reasons.append(f"int8 is {speed.ratio:.2f} times as fast ({speed.ratio_low:.2f} to {speed.ratio_high:.2f})")
    verdict = joint_verdict(criterion.verdict for criterion in criteria)
    if verdict is not Verdict.PASS:
        reasons.append("no bundle is written")
        return Decision(verdict, None, tuple(reasons))
    if 1 - agreement > _CHANGED_ANSWERS:
        reasons.append(f"beware: {1 - agreement:.1%} of the answers differ from the float model's")
    return Decision(Verdict.PASS, INT8, tuple(reasons))


def _explain(criterion: Criterion, wording: Wording) -> str:
    """Say what was found for one criterion, and what to do about it."""
    sure = f"{criterion.confidence * 100:g} % confidence"
    if criterion.name is Name.DROP:
        return f"overall: {_drop(criterion, sure, criterion.limit, wording)}"
    if criterion.name is Name.AGREEMENT:
        return f"agreement with the float model: {_agreement(criterion, sure)}"
    allowed = criterion.limit
    if criterion.verdict is Verdict.PASS:
        worst = next(one for one in criterion.classes if one.label == criterion.label)
        return f"worst class of {len(criterion.classes)}: class {worst.label}: {_drop(worst, sure, allowed, wording)}"
    short = [one for one in criterion.classes if one.verdict is criterion.verdict]
    named = [f"class {one.label}: {_drop(one, sure, allowed, wording)}" for one in short[:_NAMED_CLASSES]]
    more = [f"and {len(short) - _NAMED_CLASSES} more classes"] if len(short) > _NAMED_CLASSES else []
    return "worst class: " + "; ".join([*named, *more])


def _drop(seen: Criterion | ClassDrop, sure: str, limit: float, wording: Wording) -> str:
    """Say what a drop was held against, overall or of one class."""
    allowed = f"allowed: {wording.margin(limit)}"
    if seen.value is None or seen.bound is None or seen.lower is None or seen.upper is None:
        return f"no certification sample ({allowed}){_more(seen)}"
    found = f"a drop of {wording.drop(seen.value)} on {seen.n} samples"
    if seen.verdict is Verdict.PASS:
        return f"{found}, at most {wording.drop(seen.bound)} at {sure} ({allowed})"
    if seen.verdict is Verdict.FAIL:
        advice = "calibrate with data more like what the device sees, or allow a greater drop"
        return f"{found}, at least {wording.drop(seen.bound)} at {sure} ({allowed}): {advice}"
    between = f"so the true one lies between {wording.number(seen.lower)} and {wording.drop(seen.upper)} ({allowed})"
    if seen.samples_needed is None:
        advice = (
            ": the drop seen is too near what is allowed, or above it, for more samples to help: allow a greater drop"
        )
        return f"{found}, {between}{advice}"
    return f"{found}, {between}{_more(seen)}"


def _agreement(seen: Criterion, sure: str) -> str:
    """Say what the agreement was held against."""
    shares = Wording(is_share=True)
    found, asked = f"{shares.score(seen.value or 0.0)} on {seen.n} samples", f"asked for: {seen.limit * 100:g} %"
    bound, low, high = (shares.score(share or 0.0) for share in (seen.bound, seen.lower, seen.upper))
    if seen.verdict is Verdict.PASS:
        return f"{found}, at least {bound} at {sure} ({asked})"
    if seen.verdict is Verdict.FAIL:
        return f"{found}, at most {bound} at {sure} ({asked}): calibrate with data more like what the device sees"
    between = f"so the true one lies between {low} and {high} ({asked})"
    if seen.samples_needed is None:
        return f"{found}, {between}: more samples would hardly help: ask for less"
    return f"{found}, {between}{_more(seen)}"


def _more(seen: Criterion | ClassDrop) -> str:
    """Return how many certification samples are lacking, as the end of a sentence; empty if no number is known."""
    if seen.samples_needed is None:
        return ""
    more = seen.samples_needed - seen.n
    return f": about {seen.samples_needed} certification samples like these would decide it, {more} more"

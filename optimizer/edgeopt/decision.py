"""What a target gets: the variant that was certified, fp32, or nothing. And why, in words.

Rules, in order:

1. Where the search found nothing that is faster than fp32, or smaller and as fast, fp32 is chosen, whose accuracy is
   its own: PASS.
2. Otherwise the gate's verdict over all criteria is the verdict; on PASS the variant is chosen.

Pure. Example::

    decide("int8", criteria, gain, 0.99, wording).chosen          # "int8" or None
    decide_fp32([], best, wording).chosen                         # "fp32"
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgeopt.criteria import ClassDrop, Criterion, Name, joint_verdict
from edgeopt.gate import Verdict
from edgeopt.results import SpeedResult
from edgeopt.wording import Wording, size

__all__ = ["FP32", "Decision", "Gain", "decide", "keep_fp32", "worst"]

FP32 = "fp32"
_CHANGED_ANSWERS = 0.02  # more than this share of changed answers is worth a word, whatever the accuracy says
_NAMED_CLASSES = 5  # more of them would bury the other reasons; report.json has all
_SEVERITY = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict for a target, the variant it gets (``None``: nothing), and the reasons."""

    verdict: Verdict
    chosen: str | None
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gain:
    """What a variant is good for: its speed beside fp32 (``None``: cannot be measured here), and bytes of both."""

    speed: SpeedResult | None
    size_bytes: int
    fp32_bytes: int

    @property
    def words(self) -> str:
        """Both in one clause, for instance ``1.50 times as fast (1.40 to 1.60), 5.07 MB instead of 18.55 MB``."""
        sizes = f"{size(self.size_bytes)} instead of {size(self.fp32_bytes)}"
        if self.speed is None:
            return sizes
        return f"{_ratio(self.speed)}, {sizes}"


def decide(variant: str, criteria: Sequence[Criterion], gain: Gain, agreement: float, wording: Wording) -> Decision:
    """Decide about a variant that is worth having, from what it was held against."""
    reasons = [_explain(criterion, wording) for criterion in criteria]
    reasons.append(f"{variant} is {gain.words}")
    verdict = joint_verdict(criterion.verdict for criterion in criteria)
    if verdict is not Verdict.PASS:
        reasons.append("no bundle is written")
        return Decision(verdict, None, tuple(reasons))
    if 1 - agreement > _CHANGED_ANSWERS:
        reasons.append(f"beware: {1 - agreement:.1%} of the answers differ from the float model's")
    return Decision(Verdict.PASS, variant, tuple(reasons))


def keep_fp32(refused: Sequence[tuple[str, Gain]]) -> Decision:
    """Decide for fp32; ``refused`` are the variants that looked best, with what they would have gained."""
    reasons = [f"{title} is not worth it: {_no_gain(gain)}" for title, gain in refused]
    if not refused:
        reasons.append("nothing that kept its accuracy on the selection split is faster, or smaller and not slower")
    reasons.append("the bundle carries the fp32 model, whose accuracy is the baseline's")
    return Decision(Verdict.PASS, FP32, tuple(reasons))


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of the targets' verdicts: FAIL before INCONCLUSIVE before PASS."""
    return max(verdicts, key=_SEVERITY.index)


def _no_gain(gain: Gain) -> str:
    """Say why a variant is neither faster nor smaller enough."""
    sizes = f"it takes {size(gain.size_bytes)} instead of {size(gain.fp32_bytes)}"
    if gain.speed is None:
        return sizes
    speed = gain.speed
    return (
        f"fp32 takes {speed.baseline_ms:.3f} ms, this {speed.variant_ms:.3f} ms; the ratio is {speed.ratio:.2f} "
        f"({speed.ratio_low:.2f} to {speed.ratio_high:.2f}), and {sizes}"
    )


def _ratio(speed: SpeedResult) -> str:
    return f"{speed.ratio:.2f} times as fast ({speed.ratio_low:.2f} to {speed.ratio_high:.2f})"


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

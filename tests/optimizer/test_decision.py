"""What ships, and the reasons that are given."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt.criteria import Classes, Criterion, Limits, PairedScores, judge_all
from edgeopt.decision import Gain, decide, keep_fp32, worst
from edgeopt.gate import Verdict
from edgeopt.results import SpeedResult
from edgeopt.wording import Wording, milliseconds, size

SHARE = Wording(is_share=True)


def _judgement(lost: int, n: int) -> tuple[Criterion, ...]:
    variant = np.ones(n)
    variant[:lost] = 0
    paired = PairedScores(baseline=np.ones(n), variant=variant, agreement=variant)
    return judge_all(paired, Limits(max_drop=0.01, confidence=0.95)).criteria


def _three(lost: int, sizes: tuple[int, ...], known: int = 0) -> tuple[Criterion, ...]:
    """Judge by all criteria; ``lost`` samples of class 0 are lost, and ``known`` classes have no sample at all."""
    of_sample = np.repeat(np.arange(len(sizes)), sizes)
    variant = np.ones(len(of_sample))
    variant[:lost] = 0
    classes = Classes(of_sample, tuple(range(len(sizes) + known)))
    paired = PairedScores(baseline=np.ones(len(of_sample)), variant=variant, agreement=variant, classes=classes)
    limits = Limits(max_drop=0.01, confidence=0.95, max_class_drop=0.05, min_agreement=0.95)
    return judge_all(paired, limits).criteria


def _speed(low: float, ratio: float = 1.5) -> SpeedResult:
    return SpeedResult(
        baseline_ms=3.0, variant_ms=3.0 / ratio, ratio=ratio, ratio_low=low, ratio_high=2.0, ratios=(ratio,), rounds=60
    )


PASSING, FAILING, OPEN = _judgement(0, 1000), _judgement(100, 1000), _judgement(5, 700)
FASTER = Gain(_speed(1.2), 5_070_000, 18_550_000)
UNTIMED = Gain(None, 5_070_000, 18_550_000)


@pytest.mark.parametrize("gain", [FASTER, UNTIMED])
@pytest.mark.parametrize(
    ("judgement", "verdict", "chosen"),
    [
        (PASSING, Verdict.PASS, "int8"),
        (FAILING, Verdict.FAIL, None),
        (OPEN, Verdict.INCONCLUSIVE, None),
    ],
)
def test_the_gates_verdict_is_the_verdict(
    judgement: tuple[Criterion, ...], verdict: Verdict, chosen: str | None, gain: Gain
) -> None:
    """What is worth having ships if it passes, and nothing ships if it does not."""
    decision = decide("int8", judgement, gain, 0.99, SHARE)
    assert (verdict, chosen) == (decision.verdict, decision.chosen)


def test_reasons_say_what_was_seen_and_what_to_do() -> None:
    """Each reason carries the numbers that it rests on."""
    reasons = "; ".join(decide("int8", FAILING, FASTER, 0.9, SHARE).reasons)
    assert "a drop of 10.00 points on 1000 samples" in reasons
    assert "allowed: 1 point" in reasons
    assert "no bundle is written" in reasons
    reasons = "; ".join(decide("int8", OPEN, FASTER, 0.9, SHARE).reasons)
    assert f"about {OPEN[0].samples_needed} certification samples" in reasons
    assert "int8 is 1.50 times as fast (1.20 to 2.00), 5.07 MB instead of 18.55 MB" in reasons


def test_fp32_stays_with_what_the_others_would_have_gained() -> None:
    """Each variant that looked good and was refused is named with both times, the ratio and both sizes."""
    decision = keep_fp32([("int8, minmax", Gain(_speed(0.5, 0.6), 100_000, 50_000))])
    assert (Verdict.PASS, "fp32") == (decision.verdict, decision.chosen)
    slow, kept = decision.reasons
    assert slow.startswith("int8, minmax is not worth it: fp32 takes 3.000 ms, this 5.000 ms; the ratio is 0.60")
    assert "it takes 100.0 kB instead of 50.0 kB" in slow
    assert "the bundle carries the fp32 model, whose accuracy is the baseline's" == kept
    assert "kept its accuracy on the selection split" in keep_fp32([]).reasons[0]


def test_the_worst_verdict_of_the_targets_counts() -> None:
    """One target that fails spoils the run; one without enough data leaves it open."""
    assert Verdict.PASS is worst([Verdict.PASS, Verdict.PASS])
    assert Verdict.INCONCLUSIVE is worst([Verdict.PASS, Verdict.INCONCLUSIVE])
    assert Verdict.FAIL is worst([Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS])


def test_each_criterion_is_named_with_its_verdict_and_its_numbers() -> None:
    """When all hold, each says by how much."""
    decision = decide("int8", _three(0, (1000, 1000)), UNTIMED, 1.0, SHARE)
    assert (Verdict.PASS, "int8") == (decision.verdict, decision.chosen)
    overall, worst_class, agreement, _ = decision.reasons
    assert overall.startswith("overall: a drop of 0.00 points on 2000 samples, at most 0.")
    assert worst_class.startswith("worst class of 2: class 0: a drop of 0.00 points on 1000 samples, at most 0.")
    assert agreement.startswith("agreement with the float model: 100.00 % on 2000 samples, at least 99.")
    assert agreement.endswith("at 95 % confidence (asked for: 95 %)")


def test_a_collapsed_class_is_named_although_the_mean_holds() -> None:
    """Trap 10: three points of accuracy hide in one class of thirty; the whole fails for that class alone."""
    decision = decide("int8", _three(40, (50, 5000, 5000)), UNTIMED, 0.996, SHARE)
    assert (Verdict.FAIL, None) == (decision.verdict, decision.chosen)
    overall, worst_class, agreement, _, end = decision.reasons
    assert "at most" in overall
    assert worst_class.startswith("worst class: class 0: a drop of 80.00 points on 50 samples, at least ")
    assert "class 1" not in worst_class
    assert "at least" in agreement
    assert "no bundle is written" == end


def test_a_short_class_is_named_with_how_many_more_samples_it_needs() -> None:
    """Classes with few samples, and with none, leave it open; the rest of many is counted."""
    criteria = _three(0, (1000, 20), known=1)
    decision = decide("int8", criteria, UNTIMED, 1.0, SHARE)
    assert Verdict.INCONCLUSIVE is decision.verdict
    short = criteria[1].classes[1].samples_needed
    assert short is not None
    assert "class 1: a drop of 0.00 points on 20 samples, so the true one lies" in decision.reasons[1]
    assert f"about {short} certification samples like these would decide it, {short - 20} more" in decision.reasons[1]
    assert "class 2: no certification sample (allowed: 5 points): about" in decision.reasons[1]
    many = decide("int8", _three(0, (1000, *[20] * 8)), UNTIMED, 1.0, SHARE)
    assert many.reasons[1].endswith("; and 3 more classes")


@pytest.mark.parametrize(
    ("lost", "n", "words"),
    [
        (200, 1000, "80.00 % on 1000 samples, at most "),
        (20, 500, "certification samples like these would decide it"),
        (60, 1000, "more samples would hardly help: ask for less"),
    ],
)
def test_agreement_in_words(lost: int, n: int, words: str) -> None:
    """Failed, open for lack of samples, and open where samples do not help."""
    reasons = decide("int8", _three(lost, (n,)), UNTIMED, 1.0, SHARE).reasons
    (reason,) = [text for text in reasons if text.startswith("agreement")]
    assert words in reason


def test_many_changed_answers_are_told_although_accuracy_holds() -> None:
    """One number hides a collapse: the share of changed answers is named from 2 % on."""
    many, few = (decide("int8", PASSING, UNTIMED, agreement, SHARE).reasons for agreement in (0.93, 0.99))
    assert any("7.0% of the answers differ" in reason for reason in many)
    assert not any("differ" in reason for reason in few)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ("98.25 %", SHARE.score(0.9825)),
        ("1.17 points", SHARE.drop(0.0117)),
        ("\N{MINUS SIGN}0.10", SHARE.number(-0.001)),
        ("0.00", SHARE.number(-0.0000001)),
        ("1 point", SHARE.margin(0.01)),
        ("0.5 points", SHARE.margin(0.005)),
        ("0.05", Wording(is_share=False).margin(0.05)),
        ("\N{MINUS SIGN}0.0125", Wording(is_share=False).score(-0.0125)),
        ("0.0125", Wording(is_share=False).drop(0.0125)),
        ("5.07 MB", size(5_070_000)),
        ("1.3 kB", size(1254)),
        ("not measured", milliseconds(None)),
        ("0.043 ms", milliseconds(0.0431)),
    ],
)
def test_numbers_in_words(expected: str, words: str) -> None:
    """A share is written in per cent, its differences in points; other metrics stay plain numbers."""
    assert expected == words

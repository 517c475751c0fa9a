"""What ships, and the reasons that are given."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt.criteria import Classes, Criterion, Limits, PairedScores, judge_all
from edgeopt.decision import decide
from edgeopt.gate import Verdict
from edgeopt.timing import Speed
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


def _speed(low: float, ratio: float = 1.5) -> Speed:
    return Speed(
        baseline_ms=3.0, variant_ms=3.0 / ratio, ratio=ratio, ratio_low=low, ratio_high=2.0, confidence=0.95, rounds=60
    )


PASSING, FAILING, OPEN = _judgement(0, 1000), _judgement(100, 1000), _judgement(5, 700)


@pytest.mark.parametrize(
    ("judgement", "speed", "verdict", "chosen"),
    [
        (PASSING, _speed(1.2), Verdict.PASS, "int8"),
        (FAILING, _speed(1.2), Verdict.FAIL, None),
        (OPEN, _speed(1.2), Verdict.INCONCLUSIVE, None),
        (PASSING, _speed(0.9), Verdict.PASS, "fp32"),
        (PASSING, _speed(1.0), Verdict.PASS, "fp32"),  # not proved to be faster
        (FAILING, _speed(0.9), Verdict.PASS, "fp32"),
        (OPEN, _speed(0.9), Verdict.PASS, "fp32"),
        (PASSING, None, Verdict.PASS, "int8"),
        (FAILING, None, Verdict.FAIL, None),
        (OPEN, None, Verdict.INCONCLUSIVE, None),
    ],
)
def test_every_case(
    judgement: tuple[Criterion, ...], speed: Speed | None, verdict: Verdict, chosen: str | None
) -> None:
    """Not faster: the float model ships. Otherwise the gate's verdict is the verdict."""
    decision = decide(judgement, speed, 0.99, SHARE)
    assert (verdict, chosen) == (decision.verdict, decision.chosen)


def test_reasons_say_what_was_seen_and_what_to_do() -> None:
    """Each reason carries the numbers that it rests on."""
    reasons = "; ".join(decide(FAILING, _speed(1.2), 0.9, SHARE).reasons)
    assert "a drop of 10.00 points on 1000 samples" in reasons
    assert "allowed: 1 point" in reasons
    assert "no bundle is written" in reasons
    reasons = "; ".join(decide(OPEN, _speed(1.2), 0.9, SHARE).reasons)
    assert f"about {OPEN[0].samples_needed} certification samples" in reasons
    reasons = "; ".join(decide(PASSING, _speed(0.5, 0.6), 0.9, SHARE).reasons)
    assert "int8 is not faster: fp32 takes 3.000 ms, int8 5.000 ms" in reasons


def test_each_criterion_is_named_with_its_verdict_and_its_numbers() -> None:
    """When all hold, each says by how much."""
    decision = decide(_three(0, (1000, 1000)), None, 1.0, SHARE)
    assert (Verdict.PASS, "int8") == (decision.verdict, decision.chosen)
    overall, worst, agreement = decision.reasons
    assert overall.startswith("overall: a drop of 0.00 points on 2000 samples, at most 0.")
    assert worst.startswith("worst class of 2: class 0: a drop of 0.00 points on 1000 samples, at most 0.")
    assert agreement.startswith("agreement with the float model: 100.00 % on 2000 samples, at least 99.")
    assert agreement.endswith("at 95 % confidence (asked for: 95 %)")


def test_a_collapsed_class_is_named_although_the_mean_holds() -> None:
    """Trap 10: three points of accuracy hide in one class of thirty; the whole fails for that class alone."""
    decision = decide(_three(40, (50, 5000, 5000)), None, 0.996, SHARE)
    assert (Verdict.FAIL, None) == (decision.verdict, decision.chosen)
    overall, worst, agreement, end = decision.reasons
    assert "at most" in overall
    assert worst.startswith("worst class: class 0: a drop of 80.00 points on 50 samples, at least ")
    assert "class 1" not in worst
    assert "at least" in agreement
    assert "no bundle is written" == end


def test_a_short_class_is_named_with_how_many_more_samples_it_needs() -> None:
    """Classes with few samples, and with none, leave it open; the rest of many is counted."""
    criteria = _three(0, (1000, 20), known=1)
    decision = decide(criteria, None, 1.0, SHARE)
    assert Verdict.INCONCLUSIVE is decision.verdict
    short = criteria[1].classes[1].samples_needed
    assert short is not None
    assert "class 1: a drop of 0.00 points on 20 samples, so the true one lies" in decision.reasons[1]
    assert f"about {short} certification samples like these would decide it, {short - 20} more" in decision.reasons[1]
    assert "class 2: no certification sample (allowed: 5 points): about" in decision.reasons[1]
    many = decide(_three(0, (1000, *[20] * 8)), None, 1.0, SHARE)
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
    (reason,) = [text for text in decide(_three(lost, (n,)), None, 1.0, SHARE).reasons if text.startswith("agreement")]
    assert words in reason


def test_a_slow_variant_keeps_all_its_findings_for_the_record() -> None:
    """The float model ships whatever the criteria say, and they are told."""
    decision = decide(_three(40, (50, 5000)), _speed(0.9), 1.0, SHARE)
    assert (Verdict.PASS, "fp32") == (decision.verdict, decision.chosen)
    assert 3 == sum(reason.startswith("for the record, int8: ") for reason in decision.reasons)


def test_many_changed_answers_are_told_although_accuracy_holds() -> None:
    """One number hides a collapse: the share of changed answers is named from 2 % on."""
    assert any("7.0% of the answers differ" in reason for reason in decide(PASSING, None, 0.93, SHARE).reasons)
    assert not any("differ" in reason for reason in decide(PASSING, None, 0.99, SHARE).reasons)


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

"""What ships, and the reasons that are given."""

from __future__ import annotations

import numpy as np
import pytest

from edgeopt.decision import decide
from edgeopt.gate import Judgement, Verdict, judge
from edgeopt.timing import Speed
from edgeopt.wording import Wording, milliseconds, size

SHARE = Wording(is_share=True)


def _judgement(lost: int, n: int) -> Judgement:
    variant = np.ones(n)
    variant[:lost] = 0
    return judge(np.ones(n), variant, margin=0.01, confidence=0.95)


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
def test_every_case(judgement: Judgement, speed: Speed | None, verdict: Verdict, chosen: str | None) -> None:
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
    assert f"about {OPEN.samples_needed} certification samples" in reasons
    reasons = "; ".join(decide(PASSING, _speed(0.5, 0.6), 0.9, SHARE).reasons)
    assert "int8 is not faster: fp32 takes 3.000 ms, int8 5.000 ms" in reasons


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

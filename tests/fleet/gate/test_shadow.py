from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_contract.errors import MessageError
from edgeopt_fleet.gate.shadow import Decision, canonical, judge
from edgeopt_fleet.gate.shadow_evidence import (
    ClassAgreement,
    DeviceAgreement,
    ShadowEvidence,
    ShadowPolicy,
    decode,
    encode,
)

POLICY = ShadowPolicy()


def device(number: int, agreed: int, compared: int, **values: Any) -> DeviceAgreement:
    """Return what one device compared, in windows of ten rows."""
    defaults: dict[str, Any] = {"hardware": "pi", "state": "shadowing", "windows": compared / 10}
    return DeviceAgreement(device=f"cam-{number}", agreed=agreed, compared=compared, **defaults | values)


def of_class(label: str, agreed: int, disagreed: int) -> ClassAgreement:
    """Return the rows of one class, in windows of ten rows."""
    return ClassAgreement(label=label, agreed=agreed, disagreed=disagreed, windows=(agreed + disagreed) / 10)


def evidence(devices: list[DeviceAgreement], *, members: int = 0, number: int = 1, **values: Any) -> ShadowEvidence:
    """Return a look; without another number, every member was asked."""
    return ShadowEvidence(number=number, members=members or len(devices), devices=tuple(devices), **values)


def test_without_anything_it_is_not_enough() -> None:
    """No data is no recommendation, with the rows that are missing."""
    verdict = judge(evidence([]), POLICY)
    assert Decision.NOT_ENOUGH is verdict.decision
    assert "50 more rows needed" in verdict.reasons[0]
    verdict = judge(evidence([device(1, 40, 40)]), POLICY)
    assert (Decision.NOT_ENOUGH, 0) == (verdict.decision, verdict.agreement.devices)
    assert "10 more rows needed" in verdict.reasons[0]


def test_a_small_cohort_of_which_all_were_asked_can_be_recommended() -> None:
    """Three of three devices, some thousand rows each: nobody is left who could disagree."""
    verdict = judge(evidence([device(n, 1980, 2000) for n in range(3)]), POLICY)
    assert Decision.RECOMMEND is verdict.decision
    assert "agrees on 99.00% of requests" in verdict.reasons[0]
    assert verdict.agreement.over_all is not None
    assert 0.95 <= verdict.agreement.over_all.lower < 0.99


def test_three_of_a_hundred_say_little_of_the_others() -> None:
    """It names how many devices more it takes; when they agree as much, that is enough."""
    few = judge(evidence([device(n, 2000, 2000) for n in range(3)], members=1000), POLICY)
    assert Decision.NOT_ENOUGH is few.decision
    words = few.reasons[0].split("; ")[1]
    missing = int(words.split(" more device")[0])
    enough = judge(evidence([device(n, 2000, 2000) for n in range(3 + missing)], members=1000, number=2), POLICY)
    assert Decision.RECOMMEND is enough.decision, enough.reasons


def test_as_many_rows_more_as_it_says_are_enough() -> None:
    """At the same agreement, at the next look."""
    few = judge(evidence([device(n, 99, 100) for n in range(3)]), POLICY)
    assert Decision.NOT_ENOUGH is few.decision
    rows = int(few.reasons[0].split("about ")[1].split(" more")[0].replace(",", ""))
    hundreds = 1 + -(-rows // 300)
    more = judge(evidence([device(n, 99 * hundreds, 100 * hundreds) for n in range(3)], number=2), POLICY)
    assert Decision.RECOMMEND is more.decision, more.reasons


def test_a_busy_device_does_not_speak_for_the_others() -> None:
    """A million rows that agree on one device, and two devices on which nothing does: a third agrees."""
    devices = [device(1, 10**6, 10**6), device(2, 0, 1000), device(3, 0, 1000)]
    verdict = judge(evidence(devices), POLICY)
    assert Decision.DO_NOT_RECOMMEND is verdict.decision
    assert verdict.agreement.over_all is not None
    assert pytest.approx(1 / 3) == verdict.agreement.over_all.share


def test_one_window_with_all_the_rows_is_one_window() -> None:
    """Rows that follow each other resemble each other: ten thousand of them in one window prove nothing."""
    devices = [device(n, 10_000, 10_000, windows=1.0) for n in range(3)]
    assert Decision.NOT_ENOUGH is judge(evidence(devices), POLICY).decision


GOOD = [device(n, 1980, 2000, champion_us=100.0, challenger_us=80.0) for n in range(3)]


@pytest.mark.parametrize(
    ("devices", "values", "words"),
    [
        ([dataclasses.replace(one, errors=200) for one in GOOD], {}, "failed at 9.09% of its runs"),
        ([dataclasses.replace(one, challenger_us=250.0) for one in GOOD], {}, "on pi it takes 2.50 times"),
        ([*GOOD, device(9, 0, 0, state="failed")], {}, "1 of 4 devices failed to run it"),
        (
            GOOD,
            {"classes": (of_class("7", 500, 500),)},
            "worst class: '7' agrees on 50.00%",
        ),
        ([device(n, 1000, 2000) for n in range(3)], {}, "agrees on 50.00% of requests"),
    ],
)
def test_each_fault_alone_speaks_against_it(devices: list[DeviceAgreement], values: Any, words: str) -> None:
    """In words, and only the fault is named."""
    assert Decision.RECOMMEND is judge(evidence(GOOD), POLICY).decision
    verdict = judge(evidence(devices, **values), POLICY)
    assert Decision.DO_NOT_RECOMMEND is verdict.decision
    assert words in verdict.reasons[0]
    assert 1 == len(verdict.reasons)


@pytest.mark.parametrize(
    ("devices", "values", "words"),
    [
        ([dataclasses.replace(one, errors=25) for one in GOOD], {}, "not surely so"),
        (GOOD, {"classes": (of_class("7", 23, 7),)}, "more rows of it needed"),
        (GOOD, {"classes": (of_class("7", 85, 15),)}, "more rows of it needed at this agreement"),
        (
            [*(dataclasses.replace(one, challenger_us=250.0) for one in GOOD[:2]), *GOOD[2:]],
            {"members": 4, "hardware": {"pi": 4}, "number": 2},
            "more devices of it will tell",
        ),
        (
            [device(9, 1980, 2000, champion_us=1.0, challenger_us=1.0, hardware="x86"), *GOOD],
            {"hardware": {"pi": 3, "x86": 9}},
            "on x86 it takes 1.00 times the champion's time (at most 2 times allowed); 4 more devices of it needed",
        ),
    ],
)
def test_what_is_wrong_but_not_surely_so_holds_it_back(devices: list[DeviceAgreement], values: Any, words: str) -> None:
    """Neither recommended nor refused."""
    verdict = judge(evidence(devices, **values), POLICY)
    assert Decision.NOT_ENOUGH is verdict.decision
    assert any(words in reason for reason in verdict.reasons), verdict.reasons


def test_a_class_with_few_rows_is_not_judged() -> None:
    """And of those with enough the worst is named."""
    classes = (
        of_class("rare", 0, 29),
        of_class("good", 990, 10),
        of_class("worse", 930, 70),
    )
    verdict = judge(evidence(GOOD, classes=classes), POLICY)
    assert Decision.RECOMMEND is verdict.decision
    assert classes[2] == verdict.agreement.worst


@st.composite
def looks(draw: st.DrawFn) -> ShadowEvidence:
    """Any evidence that there can be."""
    devices = []
    for number in range(draw(st.integers(0, 6))):
        compared = draw(st.integers(0, 10**6))
        us = st.none() | st.floats(1, 1e8)
        devices.append(
            DeviceAgreement(
                device=f"cam-{number}",
                hardware=draw(st.sampled_from(["", "pi-5", "x86"])),
                state=draw(st.sampled_from(["", "shadowing", "failed", "done"])),
                compared=compared,
                agreed=draw(st.integers(0, compared)),
                errors=draw(st.integers(0, 10**6)),
                windows=draw(st.floats(0, 1e5)),
                champion_us=draw(us),
                challenger_us=draw(us),
            )
        )
    classes = [
        ClassAgreement(label=str(n), agreed=draw(st.integers(0, 1000)), disagreed=draw(st.integers(1, 1000)))
        for n in range(draw(st.integers(0, 3)))
    ]
    return evidence(
        devices,
        members=len(devices) + draw(st.integers(0, 50)),
        number=draw(st.integers(1, 99)),
        classes=tuple(classes),
    )


@given(looks())
def test_stored_evidence_judges_to_the_same_bytes(look: ShadowEvidence) -> None:
    """Whatever it is, there is a verdict with words; what was stored gives it again."""
    verdict = judge(look, POLICY)
    assert verdict.reasons
    assert look == decode(encode(look))
    assert canonical(verdict) == canonical(judge(decode(encode(look)), POLICY))


@pytest.mark.parametrize("stored", [b"", b"x", encode(evidence([]))[:-3]])
def test_evidence_that_is_none_is_refused(stored: bytes) -> None:
    """It names what was expected."""
    with pytest.raises(MessageError, match="stored evidence"):
        decode(stored)


@pytest.mark.parametrize(
    "wrong",
    [{"minimum_agreement": 1.1}, {"minimum_rows": 0}, {"max_latency_ratio": 0.0}, {"false_recommendation": 0.0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_rules_that_cannot_be_do_not_exist(wrong: dict[str, Any]) -> None:
    """They are refused where they are made."""
    with pytest.raises(ValueError, match="expected"):
        ShadowPolicy(**wrong)


def test_a_class_that_is_surely_wrong_is_named_before_one_that_is_less_sure() -> None:
    """Many rows at 70% say more than few at 60%; rows of few windows say nothing."""
    sure, unsure = of_class("sure", 7000, 3000), of_class("unsure", 30, 20)
    verdict = judge(evidence(GOOD, classes=(unsure, sure)), POLICY)
    assert (Decision.DO_NOT_RECOMMEND, sure) == (verdict.decision, verdict.agreement.worst)
    in_one_window = dataclasses.replace(sure, windows=1.0)
    assert Decision.NOT_ENOUGH is judge(evidence(GOOD, classes=(unsure, in_one_window)), POLICY).decision


# --- how often it errs ------------------------------------------------------------------------------------------------

RUNS = 400


def _decisions(random: np.random.Generator, truths: np.ndarray, asked: int, alike: int) -> set[Decision]:
    """Let devices of these true agreements be watched over five looks, ``alike`` windows of ten the same; what is said.

    Within a device disagreement comes in bursts: whole windows disagree, as a camera that looks at one thing does.
    """
    chosen = random.choice(len(truths), asked, replace=False)
    agreed, windows, said = np.zeros(asked), 0, set()
    for number in range(1, 6):
        more = 8 * number
        bursts = random.random((asked, more)) < truths[chosen][:, None]
        agreed += np.where(
            random.random((asked, more)) < alike / 10,
            10 * bursts,
            random.binomial(10, truths[chosen][:, None], (asked, more)),
        ).sum(axis=1)
        windows += more
        devices = [device(n, int(a), 10 * windows) for n, a in enumerate(agreed)]
        said.add(judge(evidence(devices, members=len(truths), number=number), POLICY).decision)
    return said


@pytest.mark.gate
@pytest.mark.parametrize("alike", [0, 10])
@pytest.mark.parametrize(
    ("name", "truths", "asked"),
    [
        ("every device a little below", np.full(20, 0.949), 20),
        ("all disagreement on one device of nineteen", np.r_[0.0, np.ones(18)], 19),
        ("all disagreement on six of a hundred, half of them asked", np.r_[np.zeros(6), np.ones(94)], 50),
        ("all disagreement on six of a hundred, sixty asked", np.r_[np.zeros(6), np.ones(94)], 60),
        ("half the disagreement on few devices", np.r_[np.full(6, 0.5), np.full(94, 0.975)], 90),
    ],
)
def test_a_challenger_that_agrees_too_little_is_rarely_recommended(
    name: str, truths: np.ndarray, asked: int, alike: int
) -> None:
    """At most as often as stated, over five looks, however disagreement lies on devices and in time."""
    assert truths.mean() < POLICY.minimum_agreement
    random = np.random.default_rng([len(name), asked, alike])
    wrong = sum(Decision.RECOMMEND in _decisions(random, truths, asked, alike) for _ in range(RUNS))
    assert wrong <= POLICY.false_recommendation * RUNS, f"{name}: {wrong} of {RUNS}"


@pytest.mark.gate
def test_one_that_agrees_enough_is_rarely_refused_and_mostly_recommended() -> None:
    """Just enough: refused at most as often as stated. Well enough, on all of a small cohort: nearly always."""
    random = np.random.default_rng(5)
    truths = np.r_[0.0, np.ones(19)]
    refused = sum(Decision.DO_NOT_RECOMMEND in _decisions(random, truths, 20, 10) for _ in range(RUNS))
    assert refused <= POLICY.false_refusal * RUNS
    good = sum(Decision.RECOMMEND in _decisions(random, np.full(20, 0.99), 20, 10) for _ in range(RUNS))
    assert good >= 0.9 * RUNS


@pytest.mark.gate
@pytest.mark.parametrize("alike", [0, 10])
def test_a_challenger_that_is_worse_in_one_class_is_rarely_recommended(alike: int) -> None:
    """Four of five classes agree, one just too little, over five looks; a hair within all limits is rarely refused."""
    random = np.random.default_rng([7, alike])
    below, within = np.r_[0.799, np.full(4, 0.995)], np.full(5, 0.8)
    kind = ShadowPolicy(minimum_agreement=0.5)
    wrong = sum(Decision.RECOMMEND in _classes_said(random, below, alike, kind) for _ in range(RUNS))
    assert wrong <= POLICY.false_recommendation * RUNS
    refused = sum(Decision.DO_NOT_RECOMMEND in _classes_said(random, within, alike, kind) for _ in range(RUNS))
    assert refused <= POLICY.false_refusal * RUNS
    good = sum(Decision.RECOMMEND in _classes_said(random, np.full(5, 0.97), alike, kind) for _ in range(RUNS))
    assert good >= 0.9 * RUNS, "and one that is good is found to be"


def _classes_said(random: np.random.Generator, truths: np.ndarray, alike: int, policy: ShadowPolicy) -> set[Decision]:
    """Let ten devices be watched over five looks, whose windows hold ten rows of one class each; what is said."""
    agreed, windows, said = np.zeros((10, len(truths))), 0, set()
    for number in range(1, 6):
        more = 4 * number
        shape = (10, len(truths), more)
        rows = random.binomial(10, np.broadcast_to(truths[:, None], shape))
        bursts = 10 * (random.random(shape) < truths[:, None])
        agreed += np.where(random.random(shape) < alike / 10, bursts, rows).sum(axis=2)
        windows += more
        devices = [device(n, int(a), 10 * windows * len(truths)) for n, a in enumerate(agreed.sum(axis=1))]
        found = zip(range(len(truths)), agreed.sum(axis=0), strict=True)
        classes = tuple(of_class(str(n), int(a), int(100 * windows - a)) for n, a in found)
        said.add(judge(evidence(devices, number=number, classes=classes), policy).decision)
    return said


@pytest.mark.gate
@pytest.mark.parametrize("asked", [3, 12, 25, 49])
def test_a_challenger_that_is_too_slow_is_rarely_recommended(asked: int) -> None:
    """On just more than half of a hardware class's 50 devices it is; on just half of them it is rarely refused."""
    random = np.random.default_rng([9, asked])
    slow = sum(Decision.RECOMMEND in _times_said(random, 26, asked) for _ in range(RUNS))
    assert slow <= POLICY.false_recommendation * RUNS
    refused = sum(Decision.DO_NOT_RECOMMEND in _times_said(random, 25, asked) for _ in range(RUNS))
    assert refused <= POLICY.false_refusal * RUNS
    if asked > 20:  # of twelve every one must be fast, and among 50 with two slow ones that is every second draw
        found = sum(Decision.RECOMMEND in _times_said(random, 2, asked) for _ in range(RUNS))
        assert found >= 0.9 * RUNS, "and one that is fast nearly everywhere is found to be"


def _times_said(random: np.random.Generator, slow: int, asked: int) -> set[Decision]:
    """Ask more and more of 50 devices, on ``slow`` of which it takes too long; what is said over five looks."""
    ratios = random.permutation(np.r_[np.full(slow, 2.2), np.full(50 - slow, 1.5)])
    loose = ShadowPolicy(minimum_agreement=0.0)
    said = set()
    for number in range(1, 6):
        some = ratios[: max(asked * number // 5, 1)]
        devices = [device(n, 990, 1000, champion_us=100.0, challenger_us=100.0 * r) for n, r in enumerate(some)]
        look = evidence(devices, members=50, number=number, hardware={"pi": 50})
        said.add(judge(look, loose).decision)
    return said

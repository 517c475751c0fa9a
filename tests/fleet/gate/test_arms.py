"""What the comparison of two arms says, and when it says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeopt_contract.errors import MessageError
from edgeopt_fleet.gate import COMPARED, Devices, Margins, Metric, Tally
from edgeopt_fleet.gate.arms import (
    ArmsEvidence,
    ArmsVerdict,
    Difference,
    Result,
    Side,
    canonical_arms,
    compare_arms,
    decode_arms,
    encode_arms,
)

MARGINS = Margins(minimum_rows=1000, device_rows=50)


def arm(n: int, effect: Mapping[Metric, float] | None = None, *, seed: int = 0, **words: Any) -> Devices:
    """Return ``n`` devices of which every metric changed by ``effect``, give or take a hundredth."""
    changes = np.random.default_rng(seed).normal(0, 0.01, (len(COMPARED), n))
    for metric, amount in (effect or {}).items():
        changes[COMPARED.index(metric)] += amount
    values: dict[str, Any] = {
        "names": tuple(f"d{seed}-{place:03}" for place in range(n)),
        "hardware": np.zeros(n, dtype=np.int32),
        "before": np.full(n, 500),
        "after": np.full(n, 500),
        "changes": changes,
        "noise": np.full((len(COMPARED), n), 1e-5),
    }
    return Devices(**values | words)


def told(a: Devices, b: Devices, **words: Any) -> ArmsEvidence:
    """Return what is known of two arms after a day."""
    values: dict[str, Any] = {
        "number": 1, "seconds": 86400.0, "levels": False, "hardware": ("x",),
        "tally_a": Tally(len(a.names), 0), "tally_b": Tally(len(b.names), 1),
    }  # fmt: skip
    return ArmsEvidence(a=a, b=b, **values | words)


def of(verdict: ArmsVerdict, metric: Metric, group: str = "") -> Difference:
    """Return one difference."""
    (found,) = [one for one in verdict.differences if (one.metric, one.group) == (metric, group)]
    return found


@pytest.mark.parametrize(
    ("effect", "result", "text"),
    [
        ({Metric.LATENCY: 0.2}, Result.A, "A is better: B is slower (p95)"),
        ({Metric.MEDIAN: -0.2}, Result.B, "B is better: it is faster (p50)"),
        ({Metric.ERRORS: -0.1}, Result.B, "B is better: it fails less often"),
        (
            {Metric.LATENCY: -0.2, Metric.CONFIDENCE: 0.1},
            Result.TRADE_OFF,
            "a trade-off: B is faster (p95), but is less confident",
        ),
        ({}, Result.ALIKE, "no difference larger than the margins"),
    ],
)
def test_what_it_comes_to(effect: dict[Metric, float], result: Result, text: str) -> None:
    """Better, worse, both, or neither; the first sentence says it."""
    wide = Margins(errors=0.02, confidence_points=0.02)
    verdict = compare_arms(told(arm(50), arm(50, effect, seed=1)), wide)
    assert (result, text) == (verdict.result, verdict.text)
    assert "arm B: 1 of 50 updates failed" in verdict.reasons


def test_the_estimate_is_b_minus_a_with_an_interval_around_it() -> None:
    """Arms in the other order give the opposite."""
    a, b = arm(50), arm(50, {Metric.LATENCY: 0.2}, seed=1)
    there, back = (of(compare_arms(told(*pair), MARGINS), Metric.LATENCY) for pair in ((a, b), (b, a)))
    assert pytest.approx(0.2, abs=0.01) == there.estimate
    assert there.lower < there.estimate < there.upper
    assert pytest.approx((-there.upper, -there.estimate), rel=0.05) == (back.lower, back.estimate)
    assert (Side.A, Side.B) == (there.side, back.side)


def test_a_difference_within_the_margin_is_none_however_sure() -> None:
    """Statistically certain and too small to matter."""
    pair = told(arm(200), arm(200, {Metric.LATENCY: 0.03}, seed=1))
    assert Side.ALIKE is of(compare_arms(pair, MARGINS), Metric.LATENCY).side
    assert Side.A is of(compare_arms(pair, replace(MARGINS, latency=0.01)), Metric.LATENCY).side


def test_too_few_rows_say_nothing_whatever_the_figures_are() -> None:
    """No data is no verdict, and which arm lacks them is named."""
    few = arm(50, {Metric.LATENCY: 3.0}, seed=1, after=np.full(50, 10))
    verdict = compare_arms(told(arm(50), few), MARGINS)
    assert (Result.NOT_ENOUGH, "not enough data") == (verdict.result, verdict.text)
    assert "arm B has served 500 rows, at least 1000 are needed" in verdict.reasons


def test_nobody_in_an_arm_is_not_enough() -> None:
    """Every metric is unmeasured."""
    verdict = compare_arms(told(arm(50), arm(0)), MARGINS)
    assert Result.NOT_ENOUGH is verdict.result
    assert {Side.UNMEASURED} == {one.side for one in verdict.differences}
    assert b"NaN" not in canonical_arms(verdict)


def test_what_is_not_known_names_what_would_decide() -> None:
    """More devices always; more hours only where rows are what is missing."""
    noisy = np.full((len(COMPARED), 12), 0.02)
    spread = np.random.default_rng(3).normal(0, 0.14, (len(COMPARED), 12))
    quick = told(arm(12, changes=spread, noise=noisy, before=np.full(12, 10**6)), arm(12, noise=noisy, seed=1))
    unknown = of(compare_arms(quick, MARGINS), Metric.LATENCY)
    assert Side.UNKNOWN is unknown.side
    assert unknown.more_devices is not None
    assert unknown.more_devices > 12
    wide = np.random.default_rng(4).normal(0, 0.3, (len(COMPARED), 12))
    slow = of(compare_arms(told(arm(12, changes=wide), arm(12, seed=1)), MARGINS), Metric.LATENCY)
    assert (Side.UNKNOWN, None) == (slow.side, slow.more_hours), "devices differ: no time shows more of them"
    texts = compare_arms(told(arm(12, changes=wide), arm(12, seed=1)), MARGINS).reasons
    assert any("more devices in each arm would decide" in text for text in texts)


def test_more_hours_help_where_rows_are_few() -> None:
    """All of the spread is noise of few rows after the update: time decides, and about as much as it takes."""
    n = 40
    noise = np.full((len(COMPARED), n), 0.09)
    pair = [
        arm(n, seed=seed, noise=noise, before=np.full(n, 10**6),
            changes=np.random.default_rng(seed).normal(0, 0.2, (len(COMPARED), n)))
        for seed in (5, 6)
    ]  # fmt: skip
    found = of(compare_arms(told(*pair), MARGINS), Metric.LATENCY)
    assert found.more_hours is not None
    assert found.more_hours > 24


def test_a_difference_of_one_hardware_class_is_found_and_named() -> None:
    """A fifth of the devices became slower: the whole is in doubt, the class is not."""
    kinds = np.array([1 if place % 5 == 0 else 0 for place in range(60)], dtype=np.int32)
    slower = arm(60, seed=1, hardware=kinds)
    changes = slower.changes.astype(np.float64).copy()
    changes[COMPARED.index(Metric.LATENCY), kinds == 1] += 0.3
    pair = told(arm(60, hardware=kinds), arm(60, seed=1, hardware=kinds, changes=changes), hardware=("x", "y"))
    verdict = compare_arms(pair, MARGINS)
    assert Side.A is of(verdict, Metric.LATENCY, "y").side
    assert "in hardware class y" in verdict.text


def test_later_comparisons_must_be_surer() -> None:
    """The error is spent over comparisons: the second interval is wider."""
    pair = told(arm(50), arm(50, seed=1))
    first, second = (of(compare_arms(replace(pair, number=n), MARGINS), Metric.LATENCY) for n in (1, 2))
    assert second.upper - second.lower > first.upper - first.lower


def test_levels_need_no_past() -> None:
    """A first installation: rows before are not asked for, and the verdict says what was compared."""
    none = np.zeros(50, dtype=np.int64)
    pair = told(arm(50, before=none), arm(50, {Metric.LATENCY: 0.2}, seed=1, before=none))
    assert Side.UNMEASURED is of(compare_arms(pair, MARGINS), Metric.LATENCY).side
    verdict = compare_arms(replace(pair, levels=True), MARGINS)
    assert Side.A is of(verdict, Metric.LATENCY).side
    assert any("levels are compared" in reason for reason in verdict.reasons)


def test_few_devices_say_nothing_of_what_the_world_changes() -> None:
    """Five devices whose inputs drifted may stand where it rains."""
    verdict = compare_arms(told(arm(5), arm(5, {Metric.DRIFT: 3.0}, seed=1)), replace(MARGINS, device_rows=0))
    assert Side.UNKNOWN is of(verdict, Metric.DRIFT).side


def test_liars_are_set_aside_by_name() -> None:
    """One of twenty that says nonsense."""
    wrong = arm(20, seed=1)
    changes = wrong.changes.astype(np.float64).copy()
    changes[:, 3] = 1e6
    verdict = compare_arms(told(arm(20), arm(20, seed=1, changes=changes)), Margins(errors=0.1, confidence_points=0.1))
    assert any("set aside, too far from all others: 1 (d1-003)" in reason for reason in verdict.reasons)
    assert Result.ALIKE is verdict.result


def test_stored_evidence_compares_to_the_same_bytes() -> None:
    """Decoded and compared again; what is broken is refused."""
    evidence = told(arm(30), arm(31, {Metric.LATENCY: math.log(1.1)}, seed=1))
    stored = encode_arms(evidence)
    again = decode_arms(stored)
    assert canonical_arms(compare_arms(evidence, MARGINS)) == canonical_arms(compare_arms(again, MARGINS))
    assert stored == encode_arms(again)
    for broken in (b"", stored[:-4], b"x" + stored):
        with pytest.raises(MessageError, match="stored evidence"):
            decode_arms(broken)

"""The gate's rules: what is promoted, held, rolled back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.gate import (
    METRICS,
    Criterion,
    Decision,
    Look,
    Metric,
    Outcome,
    Policy,
    Standing,
    Verdict,
    canonical,
    decode,
    encode,
    judge,
)
from tests.fleet.gate.builders import Told, control, evidence, fall, member

POLICY = Policy(minimum_rows=50)
TIGHT = Policy(minimum_rows=50, max_confidence_drop=0.01, max_latency_increase=0.02)


def criteria(verdict: Verdict) -> set[Criterion]:
    """Return what the verdict's reasons are about."""
    return {reason.criterion for reason in verdict.reasons}


def texts(verdict: Verdict) -> str:
    """Return all that the verdict says."""
    return "\n".join(reason.text for reason in verdict.reasons)


def many(number: int, amount: float, *, spread: float = 0.01, seed: int = 0, prefix: str = "d") -> list[Told]:
    """Return devices whose confidence fell by ``amount``, give or take ``spread``."""
    shifts = np.random.default_rng(seed).normal(amount, spread, number)
    return [member(f"{prefix}{place:03}", changes=fall(float(shift), n=5000)) for place, shift in enumerate(shifts)]


def test_a_healthy_wave_is_promoted() -> None:
    """All executed, enough rows, no failure, no fall: go on, with the numbers."""
    verdict = judge(evidence([member("a"), member("b")]), POLICY)
    assert (Decision.PROMOTE, Look.SUCCESSFUL, 1) == (verdict.decision, verdict.look, verdict.number)
    assert "400 rows" in texts(verdict)
    assert "few devices: passed by the threshold" in texts(verdict)


def test_no_result_is_no_success_goosebit_finished_none() -> None:
    """A device that ended with no result counts as not executed (gooseBit counts finished=none as success)."""
    verdict = judge(evidence([member("a"), member("b", outcome=None)]), POLICY)
    assert Decision.HOLD == verdict.decision
    assert "b" in verdict.reasons[0].text


def test_failures_count_against_executed_devices_hawkbit_thresholds() -> None:
    """10 of 1,000 online and all 10 failed: hawkBit's share of the whole group goes on, ours does not."""
    failed = [member(f"f{n}", Outcome.FAILED) for n in range(10)]
    waiting = [member(f"w{n}", None, online=False) for n in range(990)]
    verdict = judge(evidence([*failed, *waiting]), replace(POLICY, failure_threshold=0.3))
    assert Decision.ROLL_BACK == verdict.decision
    assert "10 of 10" in verdict.reasons[0].text


@pytest.mark.parametrize(("failed", "decision"), [(1, Decision.PROMOTE), (2, Decision.ROLL_BACK)])
def test_the_failure_threshold_is_what_may_fail(failed: int, decision: Decision) -> None:
    """A share equal to the threshold passes; one above it does not."""
    devices = [member(f"d{n}", Outcome.FAILED if n < failed else Outcome.CONFIRMED) for n in range(10)]
    assert decision == judge(evidence(devices), POLICY).decision


def test_late_failures_of_earlier_waves_count() -> None:
    """An earlier wave that turns bad rolls back too, though the current wave has no failure."""
    earlier = [member(f"e{n}", Outcome.FAILED) for n in range(3)]
    verdict = judge(evidence([member(f"c{n}") for n in range(3)], earlier=earlier), POLICY)
    assert Decision.ROLL_BACK == verdict.decision
    assert "over all waves" in verdict.reasons[0].text


def test_an_offline_member_does_not_block_but_nobody_at_all_does() -> None:
    """One proven device carries the wave while another is away; a wave that is away as a whole holds."""
    away = member("away", None, online=False, rows=0, changes={})
    assert Decision.PROMOTE == judge(evidence([member("a"), away]), POLICY).decision
    assert Decision.HOLD == judge(evidence([away]), POLICY).decision


def test_only_a_wave_without_members_passes_without_data() -> None:
    """There is nobody to ask in an empty wave."""
    assert Decision.PROMOTE == judge(evidence([]), POLICY).decision


def test_a_hold_past_the_step_timeout_says_so() -> None:
    """A wave that takes too long is still held, and the verdict names the time-out (hawkbit#693)."""
    pending = evidence([member("a", None)], age_seconds=3601.0)
    verdict = judge(pending, POLICY)
    assert verdict.timed_out
    assert Criterion.TIMEOUT in criteria(verdict)
    assert not judge(replace(pending, age_seconds=3600.0), POLICY).timed_out


def test_a_clear_fall_of_confidence_rolls_back() -> None:
    """Before all have executed already: one clear canary is enough."""
    bad = member("a", changes=fall(0.4))
    verdict = judge(evidence([bad, member("b", None, changes={})]), POLICY)
    assert Decision.ROLL_BACK == verdict.decision
    assert {Criterion.CONFIDENCE} == criteria(verdict)
    assert "the confidence fell by 0.400" in verdict.reasons[0].text


def test_a_doubtful_fall_holds_until_there_are_more_rows() -> None:
    """An estimate above the limit whose lower bound is below it neither promotes nor rolls back."""
    few = member("a", changes=fall(0.2, n=50, sd=0.3), rows=50)
    rows = member("a", changes=fall(0.2, n=5000, sd=0.3), rows=5000)
    doubtful = judge(evidence([few]), POLICY)
    assert (Decision.HOLD, Look.INCONCLUSIVE) == (doubtful.decision, doubtful.look)
    assert "not yet known" in texts(doubtful)
    assert Decision.ROLL_BACK == judge(evidence([rows]), POLICY).decision


def test_a_change_of_the_world_is_not_the_bundle_s_fault() -> None:
    """Everybody's confidence fell alike (fog): difference in differences promotes, a plain comparison would not."""
    fog = [control(f"c{n}", 0.3) for n in range(4)]
    foggy = [member("a", changes=fall(0.3)), member("b", changes=fall(0.3))]
    assert Decision.PROMOTE == judge(evidence(foggy, fog), POLICY).decision
    assert Decision.ROLL_BACK == judge(evidence(foggy), POLICY).decision


def test_a_fall_that_the_controls_did_not_see_is_found() -> None:
    """The world got better, the wave did not: that is a fall as well."""
    better = [control(f"c{n}", -0.3) for n in range(4)]
    assert Decision.ROLL_BACK == judge(evidence([member("a")], better), POLICY).decision


def test_without_a_baseline_confidence_is_not_judged_and_the_verdict_says_so() -> None:
    """The first version on these devices: nothing to compare with."""
    verdict = judge(evidence([member("a", before=0)]), POLICY)
    assert Decision.PROMOTE == verdict.decision
    assert "not judged: errors, latency (p95), confidence" in texts(verdict)


@pytest.mark.parametrize("side", ["rows", "before"])
def test_too_few_rows_on_either_side_are_not_compared(side: str) -> None:
    """A change that rests on fewer rows than the minimum is no evidence, however large."""
    wave = [member("a"), member("b", **{side: 49}, changes=fall(0.9))]
    verdict = judge(evidence(wave), POLICY)
    assert Decision.ROLL_BACK != verdict.decision
    (finding,) = [one for one in verdict.findings if one.metric is Metric.CONFIDENCE]
    assert 1 == finding.devices


def test_surely_no_worse_promotes_and_not_yet_known_holds() -> None:
    """A wave that is no worse passes once that is sure; one at the limit is held for ever, and never passes."""
    controls = many(60, 0.0, seed=1, prefix="c")
    good = judge(evidence(many(25, 0.0), controls), TIGHT)
    border = judge(evidence(many(25, 0.01), controls), TIGHT)
    assert (Decision.PROMOTE, Decision.HOLD) == (good.decision, border.decision)
    assert "surely by no more than" in texts(good)
    assert {Criterion.CONFIDENCE} == criteria(border)


def test_two_points_are_found_in_25_devices() -> None:
    """And the same fall everywhere is the world's."""
    wave = many(25, 0.02, spread=0.005)
    still, falling = (many(60, amount, spread=0.005, seed=1, prefix="c") for amount in (0.0, 0.02))
    assert Decision.ROLL_BACK == judge(evidence(wave, still), TIGHT).decision
    assert Decision.ROLL_BACK != judge(evidence(wave, falling), TIGHT).decision


def test_a_class_that_became_worse_is_not_hidden_by_the_others() -> None:
    """Six of sixty devices are of another class and fell by a fifth: the whole hardly moved, the class did."""
    wave = many(54, 0.0) + [replace(one, hardware="jetson") for one in many(6, 0.2, seed=2, prefix="j")]
    controls = many(60, 0.0, seed=1, prefix="c") + [
        replace(one, hardware="jetson") for one in many(10, 0.0, seed=3, prefix="k")
    ]
    verdict = judge(evidence(wave, controls), POLICY)
    assert Decision.ROLL_BACK == verdict.decision
    worse = [(one.metric, one.group) for one in verdict.findings if one.standing is Standing.WORSE]
    assert [(Metric.CONFIDENCE, "jetson")] == worse
    assert "in hardware class jetson" in verdict.reasons[0].text
    assert "against 10 control devices" in verdict.reasons[0].text


@pytest.mark.parametrize("lie", [5.0, -5.0, 1e30])
@pytest.mark.parametrize("truth", [0.0, 0.03])
def test_liars_are_named_and_change_nothing(lie: float, truth: float) -> None:
    """Two of 25 devices and six of 60 controls report extremes: the verdict is that of the honest ones."""
    wave, controls = many(25, truth, spread=0.005), many(60, 0.0, spread=0.005, seed=1, prefix="c")
    honest = judge(evidence(wave, controls), TIGHT)
    lying = [replace(one, changes=fall(lie)) for one in wave[:2]] + wave[2:]
    verdict = judge(evidence(lying, [replace(one, changes=fall(lie)) for one in controls[:6]] + controls[6:]), TIGHT)
    assert honest.decision == verdict.decision
    (words,) = [reason.text for reason in verdict.reasons if reason.criterion is Criterion.DEVICES]
    assert words.startswith("set aside, too far from all others: 8 (c000, c001")


def test_too_many_extremes_are_evidence() -> None:
    """A third of the wave collapsing is no third of liars."""
    wave = many(20, 0.0) + many(10, 0.6, seed=4, prefix="x")
    verdict = judge(evidence(wave, many(60, 0.0, seed=1, prefix="c")), POLICY)
    assert not any(reason.criterion is Criterion.DEVICES for reason in verdict.reasons)


def test_a_silent_tenth_stops_no_fleet_but_more_do() -> None:
    """Of 20 confirmed devices two may serve nothing; a third one holds the wave."""
    wave = many(20, 0.0)
    silent = [replace(one, rows=0, changes={}) for one in wave]
    assert Decision.PROMOTE == judge(evidence([*silent[:2], *wave[2:]]), POLICY).decision
    assert Decision.HOLD == judge(evidence([*silent[:3], *wave[3:]]), POLICY).decision


def test_count_successful_looks_promote() -> None:
    """With count = 3 the third successful look promotes; looks of other kinds between them do not count."""
    policy = replace(POLICY, count=3)
    for history, decision in (
        ([], Decision.HOLD),
        ([Look.SUCCESSFUL, Look.EARLY], Decision.HOLD),
        ([Look.SUCCESSFUL, Look.INCONCLUSIVE, Look.SUCCESSFUL], Decision.PROMOTE),
    ):
        assert decision == judge(evidence([member("a")], history=history), policy).decision


def test_more_failed_looks_than_the_limit_roll_back() -> None:
    """With failure_limit = 1 the first failed look is held and told, the second rolls back."""
    bad = [member("a", changes=fall(0.4))]
    policy = replace(POLICY, failure_limit=1)
    first = judge(evidence(bad), policy)
    assert (Decision.HOLD, Look.FAILED, {Criterion.CONFIDENCE}) == (first.decision, first.look, criteria(first))
    assert Decision.ROLL_BACK == judge(evidence(bad, history=[Look.FAILED]), policy).decision


def test_more_inconclusive_looks_than_the_limit_ask_for_a_person() -> None:
    """They are counted; the rollout is then paused, never promoted."""
    few = [member("a", changes=fall(0.2, n=50, sd=0.3), rows=50)]
    policy = replace(POLICY, inconclusive_limit=1)
    assert not judge(evidence(few), policy).timed_out
    verdict = judge(evidence(few, history=[Look.INCONCLUSIVE]), policy)
    assert (Decision.HOLD, True) == (verdict.decision, verdict.timed_out)


def test_intervals_without_any_data_ask_for_a_person() -> None:
    """Argo's consecutiveErrorLimit: more than so many looks in a row for which there was nothing to look at."""
    policy = replace(POLICY, consecutive_error_limit=2, interval_seconds=10.0)
    silent = [member("a", None, rows=0, changes={})]
    assert not judge(evidence(silent, silent_seconds=29.0), policy).timed_out
    assert judge(evidence(silent, silent_seconds=30.0), policy).timed_out


def test_a_dry_run_is_shown_and_decides_nothing() -> None:
    """A metric in dry_run may be ever so bad."""
    verdict = judge(evidence([member("a", changes=fall(0.4))]), replace(POLICY, dry_run=("confidence",)))
    assert Decision.PROMOTE == verdict.decision
    assert "it decides nothing" in texts(verdict)


def test_few_devices_cannot_tell_the_world_from_the_bundle() -> None:
    """Class mix and drift of five devices are shown only; of six against six they decide."""
    moved = {**fall(0.0), Metric.DRIFT: (3.0, 0.0)}
    for number, decision in ((5, Decision.PROMOTE), (6, Decision.ROLL_BACK)):
        wave = [member(f"w{n}", changes={**moved, Metric.DRIFT: (3.0 + n / 100, 0.0)}) for n in range(number)]
        controls = [control(f"c{n}", changes={**fall(0.0), Metric.DRIFT: (n / 100, 0.0)}) for n in range(number)]
        assert decision == judge(evidence(wave, controls), POLICY).decision


def test_golden_divergence_is_a_level_not_a_change() -> None:
    """Outputs that are three tolerances off are at fault, whatever the controls and however few rows."""
    off = {**fall(0.0), Metric.DIVERGENCE: (3.0, 0.0)}
    verdict = judge(evidence([member("a", changes=off, before=0)]), POLICY)
    assert (Decision.ROLL_BACK, {Criterion.DIVERGENCE}) == (verdict.decision, criteria(verdict))


def test_errors_that_rise_roll_back() -> None:
    """A bundle that answers every tenth request with an error, where none was before."""
    wave = [member(f"w{n}", changes={**fall(0.0), Metric.ERRORS: (0.1 + n / 1000, 1e-6)}) for n in range(3)]
    verdict = judge(evidence(wave), POLICY)
    assert (Decision.ROLL_BACK, {Criterion.ERRORS}) == (verdict.decision, criteria(verdict))
    assert "the share of errors rose by 10.10%" in texts(verdict)


def test_false_alarms_are_rare_and_large_falls_are_found() -> None:
    """Simulated: 3 wave and 3 control devices with their own shifts; 20 looks at growing data each."""
    generator = np.random.default_rng(7)

    def rolls_back(drop: float) -> bool:
        history: list[Look] = []
        for n in range(50, 1050, 50):
            shifts = generator.normal(0, 0.01, 6) + generator.normal(0, 0.15 * (1 / n + 1 / 500) ** 0.5, 6)
            told = [fall(float(shift), n=n, sd=0.15, before=500) for shift in shifts]
            wave = [member(f"w{i}", changes=fall(float(shifts[i]) + drop, n=n, sd=0.15, before=500)) for i in range(3)]
            controls = [control(f"c{i}", changes=told[i]) for i in range(3, 6)]
            verdict = judge(evidence(wave, controls, history=history), POLICY)
            if verdict.decision is Decision.ROLL_BACK:
                return True
            assert verdict.look is not None
            history.append(verdict.look)
        return False

    assert 0 == sum(rolls_back(0.0) for _ in range(60))
    assert 0 == sum(rolls_back(0.08) for _ in range(60))
    assert 30 == sum(rolls_back(0.25) for _ in range(30))


CHANGES = st.dictionaries(st.sampled_from(METRICS), st.tuples(st.floats(-3, 3), st.floats(0, 1)))
TOLD = st.builds(
    Told,
    name=st.text("abc", min_size=1, max_size=3),
    online=st.booleans(),
    waiting=st.booleans(),
    outcome=st.sampled_from([None, *Outcome]),
    rows=st.integers(0, 120),
    before=st.integers(0, 120),
    hardware=st.sampled_from(["pi", "jetson"]),
    changes=CHANGES,
)


@given(
    wave=st.lists(TOLD, max_size=6),
    controls=st.lists(TOLD, max_size=4),
    absent=st.integers(0, 3),
    history=st.lists(st.sampled_from(list(Look)), max_size=5),
    policy=st.builds(
        Policy,
        failure_threshold=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        minimum_executed=st.integers(1, 3),
        failure_limit=st.integers(0, 2),
        count=st.integers(1, 3),
        inconclusive_limit=st.sampled_from([None, 0, 2]),
        dry_run=st.sampled_from([(), METRICS]),
    ),
    age=st.sampled_from([0.0, 1e6]),
)
def test_no_data_never_promotes(
    wave: list[Told], controls: list[Told], absent: int, history: list[Look], policy: Policy, age: float
) -> None:
    """Whatever is known: a wave with members passes only if confirmed devices of it served the rows they must."""
    told = evidence(wave, controls, history=history, members=len(wave) + absent, age_seconds=age)
    verdict = judge(told, policy)

    assert verdict.reasons
    assert all(reason.text for reason in verdict.reasons)
    executed = [one for one in wave if one.outcome is not None]
    failed = [one for one in executed if one.outcome is Outcome.FAILED]
    if verdict.decision is Decision.PROMOTE and told.members:
        proven = [one for one in wave if one.outcome is Outcome.CONFIRMED and one.rows >= policy.minimum_rows]
        assert len(proven) >= min(policy.minimum_executed, told.members)
        assert not any(one.outcome is None and one.online for one in wave)
        assert len(failed) <= policy.failure_threshold * len(executed)
        assert history.count(Look.SUCCESSFUL) + 1 >= policy.count
        assert not any(one.standing is Standing.WORSE and one.decides for one in verdict.findings)
    if told.members and executed and len(failed) > policy.failure_threshold * len(executed):
        assert Decision.ROLL_BACK == verdict.decision
    assert canonical(verdict) == canonical(judge(decode(encode(told)), policy)), "what is stored judges alike"


@given(wave=st.lists(TOLD, min_size=1, max_size=12), controls=st.lists(TOLD, max_size=12))
def test_without_rows_there_is_no_promotion(wave: list[Told], controls: list[Told]) -> None:
    """Devices that served nothing, or whose every inference failed, never promote, whatever they report."""
    mute = [replace(one, rows=0) for one in wave]
    assert Decision.PROMOTE != judge(evidence(mute, controls), Policy(failure_threshold=1.0)).decision


def test_the_verdict_names_the_most_frequent_reason() -> None:
    """Of three failures the reason that two share, with how many gave it."""
    failed = [
        member("a", Outcome.FAILED, failure="disk full"),
        member("b", Outcome.FAILED, failure="self-test: differs"),
        member("c", Outcome.FAILED, failure="disk full"),
    ]
    verdict = judge(evidence(failed), POLICY)
    assert Decision.ROLL_BACK == verdict.decision
    assert verdict.reasons[0].text.endswith("most often (2 of 3): disk full")


def test_a_device_in_wait_of_its_window_is_named_as_such() -> None:
    """It holds the wave, but not as one that is late."""
    verdict = judge(evidence([member("a"), member("b", None, waiting=True)]), POLICY)
    assert (Decision.HOLD, {Criterion.WINDOW}) == (verdict.decision, criteria(verdict))
    assert "waiting for the window: 1 (b)" == verdict.reasons[0].text

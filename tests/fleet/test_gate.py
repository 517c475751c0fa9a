from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt_fleet.gate import (
    ControlEvidence,
    Criterion,
    Decision,
    DeviceEvidence,
    Evidence,
    Moments,
    Outcome,
    Policy,
    Verdict,
    judge,
)

POLICY = Policy(minimum_rows=50)


def moments(mean: float, n: int = 200, sd: float = 0.1) -> Moments:
    """Return the moments of ``n`` rows with this mean and standard deviation."""
    return Moments(n, mean * n, (sd**2 + mean**2) * n)


def member(name: str, outcome: Outcome | None = Outcome.CONFIRMED, **changes: object) -> DeviceEvidence:
    """Return a device of wave 0 that served 200 rows, as confident as before."""
    base = DeviceEvidence(
        device=name, wave=0, online=True, outcome=outcome, rows=200, new=moments(0.9), old=moments(0.9)
    )
    return replace(base, **changes)


def evidence(*devices: DeviceEvidence, **changes: object) -> Evidence:
    """Return evidence of wave 0 with these members."""
    return replace(Evidence(wave=0, wave_members=len(devices), age_seconds=10.0, devices=devices), **changes)


def criteria(verdict: Verdict) -> set[Criterion]:
    """Return what the verdict's reasons are about."""
    return {reason.criterion for reason in verdict.reasons}


def test_a_healthy_wave_is_promoted() -> None:
    """All executed, enough rows, no failure, no fall: go on, with the numbers."""
    verdict = judge(evidence(member("a"), member("b")), POLICY)
    assert Decision.PROMOTE == verdict.decision
    assert any("400 rows" in reason.text for reason in verdict.reasons)


def test_no_traffic_holds_flagger_1011() -> None:
    """A canary without traffic is not advanced (flagger#1011)."""
    verdict = judge(evidence(member("a", rows=0, new=Moments())), POLICY)
    assert Decision.HOLD == verdict.decision
    assert {Criterion.ROWS} == criteria(verdict)


def test_all_measurements_missing_holds_argo_4479() -> None:
    """When nothing could be measured the wave is not a success (argo-rollouts#4479)."""
    verdict = judge(evidence(member("a", outcome=None, rows=0, new=Moments(), old=Moments())), POLICY)
    assert Decision.HOLD == verdict.decision


def test_no_result_is_no_success_goosebit_finished_none() -> None:
    """A device that ended with no result counts as not executed (gooseBit counts finished=none as success)."""
    verdict = judge(evidence(member("a"), member("b", outcome=None)), POLICY)
    assert Decision.HOLD == verdict.decision
    assert "b" in verdict.reasons[0].text


def test_failures_count_against_executed_devices_hawkbit_thresholds() -> None:
    """10 of 1,000 online and all 10 failed: hawkBit's share of the whole group goes on, ours does not."""
    failed = [member(f"f{n}", Outcome.FAILED) for n in range(10)]
    waiting = [member(f"w{n}", None, online=False) for n in range(990)]
    verdict = judge(evidence(*failed, *waiting), replace(POLICY, failure_threshold=0.3))
    assert Decision.ROLL_BACK == verdict.decision
    assert "10 of 10" in verdict.reasons[0].text


@pytest.mark.parametrize(("failed", "decision"), [(1, Decision.PROMOTE), (2, Decision.ROLL_BACK)])
def test_the_failure_threshold_is_what_may_fail(failed: int, decision: Decision) -> None:
    """A share equal to the threshold passes; one above it does not."""
    devices = [member(f"d{n}", Outcome.FAILED if n < failed else Outcome.CONFIRMED) for n in range(10)]
    assert decision == judge(evidence(*devices), POLICY).decision


def test_late_failures_of_earlier_waves_count() -> None:
    """An earlier wave that turns bad rolls back too, though the current wave has no failure."""
    earlier = [member(f"e{n}", Outcome.FAILED) for n in range(3)]
    current = [member(f"c{n}", wave=1) for n in range(3)]
    verdict = judge(Evidence(wave=1, wave_members=3, age_seconds=1, devices=(*earlier, *current)), POLICY)
    assert Decision.ROLL_BACK == verdict.decision
    assert "over all waves" in verdict.reasons[0].text


def test_an_offline_member_does_not_block_but_nobody_at_all_does() -> None:
    """One proven device carries the wave while another is away; a wave that is away as a whole holds."""
    away = member("away", None, online=False, rows=0, new=Moments())
    assert Decision.PROMOTE == judge(evidence(member("a"), away), POLICY).decision
    assert Decision.HOLD == judge(evidence(away), POLICY).decision


def test_only_a_wave_without_members_passes_without_data() -> None:
    """There is nobody to ask in an empty wave."""
    assert Decision.PROMOTE == judge(evidence(), POLICY).decision


def test_a_hold_past_the_step_timeout_says_so() -> None:
    """A wave that takes too long is still held, and the verdict names the time-out (hawkbit#693)."""
    pending = evidence(member("a", None), age_seconds=3601.0)
    verdict = judge(pending, POLICY)
    assert verdict.timed_out
    assert Criterion.TIMEOUT in criteria(verdict)
    assert not judge(replace(pending, age_seconds=3600.0), POLICY).timed_out


def test_a_clear_fall_of_confidence_rolls_back() -> None:
    """Before all have executed already: one clear canary is enough."""
    bad = member("a", new=moments(0.5))
    verdict = judge(evidence(bad, member("b", None, new=Moments())), POLICY)
    assert Decision.ROLL_BACK == verdict.decision
    assert {Criterion.CONFIDENCE} == criteria(verdict)


def test_a_doubtful_fall_holds_until_there_are_more_rows() -> None:
    """An estimate above the limit whose lower bound is below it neither promotes nor rolls back."""
    few = member("a", new=moments(0.7, n=50, sd=0.3), rows=50)
    many = member("a", new=moments(0.7, n=5000, sd=0.3), rows=5000)
    assert Decision.HOLD == judge(evidence(few), POLICY).decision
    assert Decision.ROLL_BACK == judge(evidence(many), POLICY).decision


def test_a_change_of_the_world_is_not_the_bundle_s_fault() -> None:
    """Everybody's confidence fell alike (fog): difference in differences promotes, a plain comparison would not."""
    fog = tuple(ControlEvidence(device=f"c{n}", before=moments(0.9), after=moments(0.6)) for n in range(4))
    foggy = evidence(member("a", new=moments(0.6)), member("b", new=moments(0.6)))
    assert Decision.PROMOTE == judge(replace(foggy, controls=fog), POLICY).decision
    assert Decision.ROLL_BACK == judge(foggy, POLICY).decision


def test_a_fall_that_the_controls_did_not_see_is_found() -> None:
    """The world got better, the wave did not: that is a fall as well."""
    better = tuple(ControlEvidence(device=f"c{n}", before=moments(0.6), after=moments(0.9)) for n in range(4))
    still = evidence(member("a", new=moments(0.6), old=moments(0.6)), controls=better)
    assert Decision.ROLL_BACK == judge(still, POLICY).decision


def test_without_a_baseline_confidence_is_not_judged_and_the_verdict_says_so() -> None:
    """The first version on these devices: nothing to compare with."""
    verdict = judge(evidence(member("a", old=Moments(), new=moments(0.2))), POLICY)
    assert Decision.PROMOTE == verdict.decision
    assert any("not judged" in reason.text for reason in verdict.reasons)


def test_false_alarms_are_rare_and_large_falls_are_found() -> None:
    """Simulated: 3 wave and 3 control devices with their own offsets; 20 looks at growing data each."""
    generator = np.random.default_rng(7)

    def rows(mean: float, n: int) -> Moments:
        values = np.clip(generator.normal(mean, 0.15, n), 0, 1)
        return Moments(n, float(values.sum()), float((values**2).sum()))

    def rolls_back(drop: float) -> bool:
        bases = generator.normal(0.8, 0.05, 6)
        for n in range(50, 1050, 50):
            shifts = generator.normal(0, 0.01, 6)
            wave = [
                member(f"w{i}", new=rows(bases[i] - drop + shifts[i], n), old=rows(bases[i], 500)) for i in range(3)
            ]
            control = tuple(
                ControlEvidence(device=f"c{i}", before=rows(bases[i], 500), after=rows(bases[i] + shifts[i], n))
                for i in range(3, 6)
            )
            if judge(evidence(*wave, controls=control), POLICY).decision is Decision.ROLL_BACK:
                return True
        return False

    assert 0 == sum(rolls_back(0.0) for _ in range(60))
    assert 0 == sum(rolls_back(0.08) for _ in range(60))
    assert 30 == sum(rolls_back(0.25) for _ in range(30))


DEVICES = st.builds(
    DeviceEvidence,
    device=st.text("abc", min_size=1, max_size=3),
    wave=st.integers(0, 1),
    online=st.booleans(),
    outcome=st.sampled_from([None, *Outcome]),
    rows=st.integers(0, 120),
    new=st.builds(moments, st.floats(0, 1), st.integers(0, 120)),
    old=st.builds(moments, st.floats(0, 1), st.integers(0, 120)),
)


@given(
    devices=st.lists(DEVICES, max_size=6).map(tuple),
    extra=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    age=st.sampled_from([0.0, 1e6]),
)
def test_no_data_never_promotes(devices: tuple[DeviceEvidence, ...], extra: int, threshold: float, age: float) -> None:
    """Whatever is known: a wave with members passes only if a confirmed device of it served the rows it must."""
    members = sum(device.wave == 1 for device in devices) + extra
    policy = Policy(failure_threshold=threshold)
    verdict = judge(Evidence(wave=1, wave_members=members, age_seconds=age, devices=devices), policy)

    assert verdict.reasons
    assert all(reason.text for reason in verdict.reasons)
    executed = [device for device in devices if device.outcome is not None]
    failed = [device for device in executed if device.outcome is Outcome.FAILED]
    if verdict.decision is Decision.PROMOTE and members:
        wave = [device for device in devices if device.wave == 1]
        assert any(d.outcome is Outcome.CONFIRMED and d.rows >= policy.minimum_rows for d in wave)
        assert not any(d.outcome is None and d.online for d in wave)
        assert len(failed) <= threshold * len(executed)
    if members and executed and len(failed) > threshold * len(executed):
        assert Decision.ROLL_BACK == verdict.decision


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_threshold": 1.1},
        {"failure_threshold": float("nan")},
        {"bake_seconds": -1},
        {"minimum_executed": 0},
        {"minimum_rows": -1},
        {"max_confidence_drop": 0},
        {"step_timeout_seconds": 0},
        {"step_timeout_seconds": float("nan")},
    ],
)
def test_a_wrong_policy_cannot_be_made(wrong: dict[str, float]) -> None:
    """A malformed threshold is refused, it does not silently never fire (hawkBit)."""
    with pytest.raises(ValueError, match="expected"):
        Policy(**wrong)


def test_the_verdict_names_the_most_frequent_reason() -> None:
    """Of three failures the reason that two share, with how many gave it."""
    failed = [
        member("a", Outcome.FAILED, failure="disk full"),
        member("b", Outcome.FAILED, failure="self-test: differs"),
        member("c", Outcome.FAILED, failure="disk full"),
    ]
    verdict = judge(evidence(*failed), POLICY)
    assert Decision.ROLL_BACK == verdict.decision
    assert verdict.reasons[0].text.endswith("most often (2 of 3): disk full")


def test_a_device_in_wait_of_its_window_is_named_as_such() -> None:
    """It holds the wave, but not as one that is late."""
    verdict = judge(evidence(member("a"), member("b", None, waiting=True)), POLICY)
    assert (Decision.HOLD, {Criterion.WINDOW}) == (verdict.decision, criteria(verdict))
    assert "waiting for the window: 1 (b)" == verdict.reasons[0].text

"""What users of other gates complained about: none of it happens here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.gate import Criterion, Decision, Metric, Outcome, Policy, judge
from edgeopt_fleet.rollout import Event, State, Wave
from edgeopt_fleet.store.rollouts import Plan
from tests.fleet.conftest import Kit
from tests.fleet.gate.builders import control, evidence, fall, member

pytestmark = pytest.mark.complaints

POLICY = Policy(minimum_rows=50)


def test_no_traffic_does_not_advance_flagger_1011() -> None:
    """A canary without traffic is held, however long; it is told that rows are missing."""
    verdict = judge(evidence([member("a", rows=0, changes={})], age_seconds=1e6), POLICY)
    assert Decision.HOLD == verdict.decision
    assert {Criterion.ROWS, Criterion.TIMEOUT} == {reason.criterion for reason in verdict.reasons}
    assert verdict.timed_out


def test_when_every_measurement_failed_it_is_no_success_argo_rollouts_4479() -> None:
    """Nothing could be measured: held, and after consecutive_error_limit a person is asked."""
    silent = [member(f"d{n}", None, rows=0, changes={}) for n in range(5)]
    policy = replace(POLICY, consecutive_error_limit=4, interval_seconds=10.0)
    verdict = judge(evidence(silent, silent_seconds=50.0), policy)
    assert (Decision.HOLD, True) == (verdict.decision, verdict.timed_out)
    answered_nothing = [member(f"d{n}", rows=0, changes={}) for n in range(5)]
    assert Decision.HOLD == judge(evidence(answered_nothing), POLICY).decision


def test_a_breached_threshold_rolls_back_flagger_1801(kit: Kit) -> None:
    """The rollout itself goes back, by the tick that sees the breach; nothing more is exposed."""
    devices = [f"cam-{number}" for number in range(6)]
    kit.enrol(*devices)
    first, second = kit.publish("1"), kit.publish("2")
    for name, bundle, values in (("v1", first, {}), ("v2", second, {"confidence": 0.4})):
        waves = ("100%",) if name == "v1" else ("50%", "100%")
        plan = Plan(
            name=name, bundle=bundle, cohort="all", waves=tuple(Wave.parse(wave) for wave in waves), policy=POLICY
        )
        kit.rollouts.create(plan, kit.now)
        kit.rollouts.apply(name, Event.STARTED, kit.now)
        offered = [device for device, wanted in kit.outbox.desired().items() if wanted and wanted.bundle == bundle]
        for device in offered:
            kit.report(device, DeviceState.CONFIRMED, bundle)
            for _ in range(3):
                kit.serve(device, bundle, **values)
        kit.now += 10
        kit.rollouts.advance(name, kit.now)
    assert State.ROLLING_BACK == kit.rollouts.report("v2").rollout.state
    assert {first} == {wanted.bundle for wanted in kit.outbox.desired().values() if wanted}


def test_an_obvious_regression_does_not_pass_kayenta_780() -> None:
    """A Mann-Whitney judge passed a canary that was plainly worse; here ten devices that lost a fifth are enough."""
    generator = np.random.default_rng(3)
    wave = [member(f"w{n}", changes=fall(float(generator.normal(0.2, 0.02)))) for n in range(10)]
    controls = [control(f"c{n}", float(generator.normal(0.0, 0.02))) for n in range(10)]
    assert Decision.ROLL_BACK == judge(evidence(wave, controls), POLICY).decision


def test_errors_that_the_baseline_never_had_are_seen_kayenta_799() -> None:
    """The baseline has none at all, the canary some: that is a rise, not a metric without data."""
    wave = [member(f"w{n}", changes={**fall(0.0), Metric.ERRORS: (0.2, 1e-4)}) for n in range(4)]
    controls = [control(f"c{n}", changes={**fall(0.0), Metric.ERRORS: (0.0, 1e-6)}) for n in range(4)]
    verdict = judge(evidence(wave, controls), POLICY)
    assert (Decision.ROLL_BACK, Criterion.ERRORS) == (verdict.decision, verdict.reasons[0].criterion)


def test_an_empty_stage_does_not_pass_fleetml() -> None:
    """Nothing failed because nothing completed: FleetML's stage advances when its timer ends, ours is held."""
    downloading = [member(f"d{n}", None, rows=0, changes={}) for n in range(10)]
    assert Decision.HOLD == judge(evidence(downloading, age_seconds=1e6), POLICY).decision
    absent = [member(f"d{n}", None, online=False, rows=0, changes={}) for n in range(10)]
    verdict = judge(evidence(absent, age_seconds=1e6), POLICY)
    assert (Decision.HOLD, True) == (verdict.decision, verdict.timed_out)
    one_failed = [member("f", Outcome.FAILED), *downloading]
    assert Decision.ROLL_BACK == judge(evidence(one_failed), POLICY).decision, "the share is of those that executed"

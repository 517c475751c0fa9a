from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from sqlmodel import col, delete
from tuf.api.metadata import Targets

from edgeopt_contract.messages import DeviceState
from edgeopt_contract.tuf import ROLLBACK_LIMIT
from edgeopt_contract.windows import Window
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.problems import ConflictError, InvalidError, NotFoundError
from edgeopt_fleet.rollout import Event, Rollout, State, Wave
from edgeopt_fleet.store.looks import Looks
from edgeopt_fleet.store.rollouts import Plan, Rollouts
from edgeopt_fleet.store.tables import MetadataRow
from edgeopt_fleet.tuf.metadata import bundles_of, next_targets, parse
from edgeopt_fleet.tuf.rows import newest, put
from tests.fleet.conftest import Kit

POLICY = Policy(minimum_rows=100, bake_seconds=2.0, step_timeout_seconds=100.0)
DEVICES = tuple(f"cam-{number}" for number in range(5))


def plan(name: str, bundle: str, cohort: str = "all", waves: tuple[int, ...] = (20, 50, 100)) -> Plan:
    """Return a plan over the cohort."""
    return Plan(name=name, bundle=bundle, cohort=cohort, waves=tuple(map(Wave.parse, waves)), policy=POLICY)


def started(kit: Kit, name: str, bundle: str, waves: tuple[int, ...] = (20, 50, 100)) -> Rollout:
    """Create and start a rollout."""
    kit.rollouts.create(plan(name, bundle, waves=waves), kit.now)
    kit.rollouts.apply(name, Event.STARTED, kit.now)
    return kit.rollouts.report(name).rollout


def wave_of(kit: Kit, name: str, wave: int) -> list[str]:
    """Return the devices of one wave."""
    return [m.device for m in kit.rollouts.report(name).members.values() if m.wave == wave]


def outside(kit: Kit, name: str) -> list[str]:
    """Return the devices that are not in the first wave."""
    return sorted(set(DEVICES) - set(wave_of(kit, name, 0)))


def serve(kit: Kit, devices: Iterable[str], bundle: str, **values: float) -> None:
    """Let each of the devices tell of three windows."""
    for device in devices:
        for _ in range(3):
            kit.serve(device, bundle, **values)


def settle(kit: Kit, name: str, bundle: str, wave: int, **values: float) -> set[str]:
    """Let the devices of a wave confirm and serve, then tick once."""
    for device in wave_of(kit, name, wave):
        kit.report(device, DeviceState.CONFIRMED, bundle)
    serve(kit, wave_of(kit, name, wave), bundle, **values)
    return kit.rollouts.advance(name, kit.now)


def on_first_version(kit: Kit) -> str:
    """Bring all devices to version 1 and let them serve; return its digest."""
    kit.enrol(*DEVICES)
    first = kit.publish("1")
    started(kit, "v1", first, waves=(100,))
    settle(kit, "v1", first, 0)
    assert State.SUCCEEDED == kit.rollouts.report("v1").rollout.state
    return first


def test_three_waves_to_success(kit: Kit) -> None:
    """Each wave is offered the bundle, confirms, serves, and the next one follows; all desired states stay."""
    on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second)
    for wave in range(3):
        assert wave == kit.rollouts.report("v2").rollout.wave
        settle(kit, "v2", second, wave)

    report = kit.rollouts.report("v2")
    assert (State.SUCCEEDED, "digits 2") == (report.rollout.state, report.bundle_name)
    assert ["promote"] * 3 == [verdict.verdict for verdict in report.verdicts if verdict.verdict == "promote"]
    assert {second} == {desired.bundle for desired in kit.outbox.desired().values() if desired}
    assert [] == kit.rollouts.unsettled()


def test_only_the_exposed_are_announced(kit: Kit) -> None:
    """Starting changes what the canary should run, and nobody else."""
    first = on_first_version(kit)
    second = kit.publish("2")
    kit.rollouts.create(plan("v2", second), kit.now)
    changed = kit.rollouts.apply("v2", Event.STARTED, kit.now)
    assert set(wave_of(kit, "v2", 0)) == changed
    wanted = kit.outbox.desired()
    assert {second} == {wanted[device].bundle for device in changed}
    assert {first} == {desired.bundle for device, desired in wanted.items() if device not in changed}
    assert 2.0 == wanted[next(iter(changed))].bake_seconds
    assert set() == kit.rollouts.advance("v2", kit.now), "looking again changes nothing"


def test_a_failure_rolls_back_and_the_absent_get_the_order_when_they_return(kit: Kit) -> None:
    """One of two exposed fails, the other is offline: the rollout ends, the offline one's desired state is the old."""
    first = on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second, waves=(40, 100))
    failing, absent = wave_of(kit, "v2", 0)
    kit.report(absent, DeviceState.CONFIRMED, second)
    kit.status(absent, online=False)
    kit.report(failing, DeviceState.FAILED, first)

    assert {failing, absent} == kit.rollouts.advance("v2", kit.now)
    assert State.ROLLING_BACK == kit.rollouts.report("v2").rollout.state
    assert first == kit.outbox.desired([absent])[absent].bundle
    kit.report(failing, DeviceState.CONFIRMED, first)
    kit.rollouts.advance("v2", kit.now)
    assert State.ROLLED_BACK == kit.rollouts.report("v2").rollout.state
    assert ["v2"] == kit.rollouts.unsettled()

    kit.status(absent, online=True)
    kit.report(absent, DeviceState.CONFIRMED, first)
    kit.rollouts.advance("v2", kit.now)
    assert [] == kit.rollouts.unsettled()
    assert kit.rollouts.report("v2").members[absent].returned


def test_confidence_falls_on_the_canary_only(kit: Kit) -> None:
    """From windows to verdict: the canary's confidence collapses, the controls' does not."""
    first = on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second)
    serve(kit, outside(kit, "v2"), first)
    settle(kit, "v2", second, 0, confidence=0.4)

    report = kit.rollouts.report("v2")
    assert State.ROLLING_BACK == report.rollout.state
    assert "confidence fell by 0.4" in report.verdicts[-1].reasons[0]
    assert "4 control devices" in report.verdicts[-1].reasons[0]


def test_a_wave_that_bakes_is_watched(kit: Kit) -> None:
    """What serves worse during a bake of a day is recalled at once; nobody waits for the day to end."""
    first = on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second)
    serve(kit, outside(kit, "v2"), first)
    for device in wave_of(kit, "v2", 0):
        kit.report(device, DeviceState.BAKING, second)
    serve(kit, wave_of(kit, "v2", 0), second, confidence=0.4)
    kit.rollouts.advance("v2", kit.now)
    report = kit.rollouts.report("v2")
    assert State.ROLLING_BACK == report.rollout.state
    assert "confidence fell by 0.4" in report.verdicts[-1].reasons[0]


def test_looks_at_a_bake_come_ever_more_seldom_and_its_end_is_looked_at_at_once(kit: Kit) -> None:
    """Each look spends error, so a bake of a day has few; a good wave goes on as soon as it has baked."""
    first = on_first_version(kit)
    second = kit.publish("2")
    patient = plan("v2", second)
    kit.rollouts.create(replace(patient, policy=replace(patient.policy, step_timeout_seconds=2 * 86400)), kit.now)
    kit.rollouts.apply("v2", Event.STARTED, kit.now)
    wave = wave_of(kit, "v2", 0)
    serve(kit, outside(kit, "v2"), first)
    for device in wave:
        kit.report(device, DeviceState.BAKING, second)
    serve(kit, wave, second)
    for _ in range(86400 // 600):
        kit.rollouts.advance("v2", kit.now)
        kit.now += 600
    assert 10 < len(Looks(kit.database).explain("v2", 500)) < 30
    assert State.RUNNING == kit.rollouts.report("v2").rollout.state
    assert 0 == kit.rollouts.report("v2").rollout.wave
    for device in wave:
        kit.report(device, DeviceState.CONFIRMED, second)
    kit.rollouts.advance("v2", kit.now)
    assert 1 == kit.rollouts.report("v2").rollout.wave


def test_confidence_falls_everywhere(kit: Kit) -> None:
    """The same collapse on all devices since the wave began is the world's: the wave passes."""
    first = on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second)
    serve(kit, outside(kit, "v2"), first, confidence=0.4)
    settle(kit, "v2", second, 0, confidence=0.4)
    assert (State.RUNNING, 1) == (kit.rollouts.report("v2").rollout.state, kit.rollouts.report("v2").rollout.wave)


def test_earlier_waves_are_the_controls_of_the_last_one(kit: Kit) -> None:
    """When nobody is left outside, devices that ran the new bundle all along show what the world did."""
    on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second, waves=(60, 100))
    settle(kit, "v2", second, 0)
    serve(kit, wave_of(kit, "v2", 0), second)
    settle(kit, "v2", second, 1)
    assert any("3 control devices" in reason for reason in kit.rollouts.report("v2").verdicts[-1].reasons)


def test_rows_served_before_the_wave_do_not_count(kit: Kit) -> None:
    """A bundle that comes back a second time must prove itself again."""
    first = on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second, waves=(100,))
    settle(kit, "v2", second, 0)
    started(kit, "again", first, waves=(100,))
    for device in DEVICES:
        kit.report(device, DeviceState.CONFIRMED, first)
    kit.rollouts.advance("again", kit.now)
    assert State.RUNNING == kit.rollouts.report("again").rollout.state
    assert "served 0 rows" in kit.rollouts.report("again").verdicts[-1].reasons[0]


def test_one_active_rollout_a_device(kit: Kit) -> None:
    """A second rollout over a device that is taken names it and the first one; a draft takes it as well."""
    kit.enrol(*DEVICES, site="oslo")
    kit.put_cohort("oslo", site="oslo")
    bundle = kit.publish("1")
    kit.rollouts.create(plan("first", bundle), kit.now)
    with pytest.raises(ConflictError, match=r"device cam-\d is in the rollout 'first'"):
        kit.rollouts.create(plan("second", bundle, cohort="oslo"), kit.now)
    kit.rollouts.apply("first", Event.CANCELLED, kit.now)
    kit.rollouts.create(plan("second", bundle, cohort="oslo"), kit.now)


def test_devices_beyond_the_last_wave_are_free(kit: Kit) -> None:
    """A rollout to 20 % takes those devices only."""
    kit.enrol(*DEVICES)
    bundle = kit.publish("1")
    kit.rollouts.create(plan("some", bundle, waves=(20,)), kit.now)
    assert 1 == len(kit.rollouts.report("some").members)


def test_what_cannot_be_rolled_out_is_refused(kit: Kit) -> None:
    """No device, no bundle, no cohort, a name used before, an unknown rollout."""
    bundle = kit.publish("1")
    with pytest.raises(InvalidError, match="nobody"):
        kit.rollouts.create(plan("v1", bundle), kit.now)
    kit.enrol("cam-1")
    with pytest.raises(NotFoundError, match="no bundle"):
        kit.rollouts.create(plan("v1", "dead" * 4), kit.now)
    with pytest.raises(NotFoundError, match="no cohort"):
        kit.rollouts.create(plan("v1", bundle, cohort="mars"), kit.now)
    kit.rollouts.create(plan("v1", bundle[:8]), kit.now)
    with pytest.raises(ConflictError, match="never used twice"):
        kit.rollouts.create(plan("v1", bundle), kit.now)
    with pytest.raises(NotFoundError):
        kit.rollouts.report("v9")
    with pytest.raises(ConflictError, match="is draft"):
        kit.rollouts.apply("v1", Event.PAUSED, kit.now)


def test_a_wave_that_takes_too_long_pauses(kit: Kit) -> None:
    """Past the step timeout the rollout waits for a person, and the verdict says why."""
    kit.enrol(*DEVICES)
    started(kit, "v1", kit.publish("1"))
    kit.now += 101
    kit.rollouts.advance("v1", kit.now)
    report = kit.rollouts.report("v1")
    assert State.PAUSED == report.rollout.state
    assert "101 s" in report.verdicts[-1].reasons[-1]


def test_verdicts_are_stored_when_they_are_news(kit: Kit) -> None:
    """The same hold is stored once, and again after half a minute with new numbers."""
    kit.enrol(*DEVICES)
    started(kit, "v1", kit.publish("1"))
    for _ in range(10):
        kit.rollouts.advance("v1", kit.now)
    assert 1 == len(kit.rollouts.report("v1").verdicts)
    kit.now += 30
    kit.rollouts.advance("v1", kit.now)
    assert 2 == len(kit.rollouts.report("v1").verdicts)


def test_everything_survives_a_restart(kit: Kit) -> None:
    """A rollout read from the database by another process is the one that was saved (mikrotik-manager#140)."""
    on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second)
    settle(kit, "v2", second, 0)
    before = kit.rollouts.report("v2")
    assert before.rollout == Rollouts(kit.database).report("v2").rollout
    assert 1 == before.rollout.wave


def test_a_bundle_that_was_never_published_here_is_nothing_to_go_back_to(kit: Kit) -> None:
    """The fleet cannot deliver it, so the device keeps what it runs."""
    kit.enrol("cam-1")
    kit.status("cam-1", running="9" * 64, boot=2)
    started(kit, "v1", kit.publish("1"), waves=(100,))
    kit.rollouts.apply("v1", Event.ROLL_BACK_ORDERED, kit.now)
    assert {"cam-1": None} == kit.outbox.desired()
    kit.rollouts.advance("v1", kit.now)
    assert State.ROLLED_BACK == kit.rollouts.report("v1").rollout.state


NIGHT = Window(start="02:00", end="04:00", days=("sat", "sun"))


def test_window_and_earliest_time_reach_the_devices_and_a_night_is_no_delay(kit: Kit) -> None:
    """They are stored and offered; a device that waits far beyond the step timeout does not pause the rollout."""
    first = on_first_version(kit)
    second = kit.publish("2")
    policy = replace(POLICY, window=NIGHT, not_before=5000)
    kit.rollouts.create(replace(plan("v2", second, waves=(100,)), policy=policy), kit.now)
    kit.rollouts.apply("v2", Event.STARTED, kit.now)
    offered = kit.outbox.desired()["cam-0"]
    assert offered is not None
    assert (second, NIGHT, 5000) == (offered.bundle, offered.window, offered.not_before)
    assert policy == kit.rollouts.report("v2").rollout.policy
    for device in DEVICES:
        kit.report(device, DeviceState.STAGED, first)
    for _ in range(100):
        kit.now += 90
        kit.rollouts.advance("v2", kit.now)
    assert State.RUNNING == kit.rollouts.report("v2").rollout.state
    for device in DEVICES:
        kit.report(device, DeviceState.SELF_TEST, first)
    for _ in range(2):
        kit.now += 90
        kit.rollouts.advance("v2", kit.now)
    assert State.PAUSED == kit.rollouts.report("v2").rollout.state
    kit.rollouts.apply("v2", Event.ROLL_BACK_ORDERED, kit.now)
    back = kit.outbox.desired()["cam-0"]
    assert back is not None
    assert (first, None, None) == (back.bundle, back.window, back.not_before)


def resign(kit: Kit, digest: str, rollback: tuple[str, ...]) -> None:
    """Sign what is known of a bundle again, with another permission to go back."""
    with kit.database.transaction() as session:
        targets = parse(Targets, newest(session, Targets.type))
    known = replace(bundles_of(targets)[digest], rollback=rollback)
    fresh = next_targets(targets, kit.now, add=[known], retire=[known.path])
    with kit.database.transaction() as session:
        session.execute(delete(MetadataRow).where(col(MetadataRow.role) == Targets.type))
        put(session, fresh)


def test_a_rollout_without_a_way_back_is_refused(kit: Kit) -> None:
    """What devices run must be named by the new bundle's signature; --no-recall does without."""
    first = on_first_version(kit)
    second = kit.publish("2")
    resign(kit, second, ())
    with pytest.raises(ConflictError, match=rf"5 devices could not be recalled .*--allow-rollback {first[:12]}"):
        kit.rollouts.create(plan("v2", second), kit.now)
    assert ["v1"] == kit.rollouts.names()
    resign(kit, second, (first,))
    kit.rollouts.create(plan("v2", second), kit.now)
    kit.rollouts.apply("v2", Event.CANCELLED, kit.now)
    resign(kit, second, ())
    kit.rollouts.create(replace(plan("v3", second), allow_no_recall=True), kit.now)


def test_a_fleet_that_signs_itself_permits_to_go_back_to_what_runs(kit: Kit) -> None:
    """However many bundles were published since."""
    first = on_first_version(kit)
    for number in range(ROLLBACK_LIMIT + 2):
        last = kit.publish(f"2.{number}")
    kit.rollouts.create(plan("v2", last), kit.now)
    with kit.database.transaction() as session:
        rollback = bundles_of(parse(Targets, newest(session, Targets.type)))[last].rollback
    assert (first, ROLLBACK_LIMIT) == (rollback[0], len(rollback))


def test_why_a_device_failed_is_shown_after_the_roll_back(kit: Kit) -> None:
    """Also after a restart of the fleet: the reason is stored."""
    first = on_first_version(kit)
    second = kit.publish("2")
    started(kit, "v2", second)
    (canary,) = wave_of(kit, "v2", 0)
    kit.report(canary, DeviceState.FAILED, first, detail="self-test: differs")
    kit.rollouts.advance("v2", kit.now)
    kit.report(canary, DeviceState.CONFIRMED, first)
    kit.rollouts.advance("v2", kit.now)
    report = Rollouts(kit.database).report("v2")
    assert State.ROLLED_BACK == report.rollout.state
    assert "self-test: differs" == report.members[canary].failure
    assert report.verdicts[-1].reasons[0].endswith("most often (1 of 1): self-test: differs")

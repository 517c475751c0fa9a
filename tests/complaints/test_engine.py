"""What users complained about when rollouts said they were done, hung, or counted wrongly: none of it happens here."""

from __future__ import annotations

import pytest

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.gate import Policy
from edgeopt_fleet.rollout import Event, Execution, Pace, State, Threshold, Wave
from edgeopt_fleet.rollout.thresholds import Failure
from edgeopt_fleet.store.rollout_reports import RolloutReport
from edgeopt_fleet.store.rollouts import Plan, Rollouts
from tests.fleet.conftest import Kit, kit

pytestmark = [pytest.mark.complaints, pytest.mark.parametrize("backend", ["sqlite"], indirect=True)]
assert kit  # the fixture

POLICY = Policy(minimum_rows=100, bake_seconds=2.0, failure_threshold=0.5, step_timeout_seconds=100.0)


class Fleet:
    """Five devices on an old bundle, and one rollout over them."""

    def __init__(self, kit: Kit, devices: int = 5) -> None:
        self.kit = kit
        self.names = [f"cam-{number}" for number in range(devices)]
        kit.enrol(*self.names)
        self.old = kit.publish("old")
        for name in self.names:
            kit.status(name, running=self.old, boot=2)
        self.new = kit.publish("new")

    def start(self, *waves: str, name: str = "v2", policy: Policy = POLICY, execution: Execution | None = None) -> None:
        """Create and start the rollout."""
        plan = Plan(
            name=name,
            bundle=self.new,
            cohort="all",
            waves=tuple(map(Wave.parse, waves or ("100%",))),
            policy=policy,
            execution=execution or Execution(),
        )
        self.kit.rollouts.create(plan, self.kit.now)
        self.kit.rollouts.apply(name, None, self.kit.now)

    def tick(self, seconds: float = 0.0, name: str = "v2") -> RolloutReport:
        """Let time pass and the worker look."""
        self.kit.now += seconds
        self.kit.rollouts.advance(name, self.kit.now)
        return self.kit.rollouts.report(name)

    def offered(self) -> list[str]:
        """Return who should run the new bundle."""
        return [name for name, wanted in self.kit.outbox.desired().items() if wanted and wanted.bundle == self.new]

    def confirm(self, *names: str) -> None:
        """Let devices confirm and serve."""
        for name in names:
            self.kit.report(name, DeviceState.CONFIRMED, self.new)
            for _ in range(3):
                self.kit.serve(name, self.new)


def test_hawkbit_3185_a_device_that_runs_the_old_image_is_no_success(kit: Kit) -> None:
    """Reports of success from devices that fell back to the old bundle fails the rollout, with the reason."""
    fleet = Fleet(kit)
    fleet.start()
    for name in fleet.names:
        kit.report(name, DeviceState.CONFIRMED, fleet.old)
    report = fleet.tick()
    assert State.ROLLING_BACK is report.rollout.state
    assert "reported confirmed, but runs" in report.members["cam-0"].failure


def test_hawkbit_446_what_fell_back_can_be_installed_again(kit: Kit) -> None:
    """The same bundle again is another job, and the device that fell back takes it."""
    fleet = Fleet(kit, devices=1)
    fleet.start()
    kit.report("cam-0", DeviceState.ROLLED_BACK, fleet.old)
    fleet.tick()
    kit.report("cam-0", DeviceState.CONFIRMED, fleet.old)
    assert State.ROLLED_BACK is fleet.tick().rollout.state
    fleet.start(name="again")
    assert ["cam-0"] == fleet.offered()
    fleet.confirm("cam-0")
    assert State.SUCCEEDED is fleet.tick(name="again").rollout.state


def test_hawkbit_693_nothing_hangs_for_ever(kit: Kit) -> None:
    """A device that downloads for ever is timed out, a wave that holds is paused, a forgotten rollout ends."""
    fleet = Fleet(kit)
    execution = Execution(device_timeout_seconds=60.0, total_timeout_seconds=1000.0)
    fleet.start(execution=execution)
    kit.report("cam-0", DeviceState.DOWNLOADING, fleet.old)
    fleet.tick()
    report = fleet.tick(61)
    assert Failure.TIMED_OUT is report.members["cam-0"].kind
    assert report.rollout.reason.startswith("1 of 1 executed devices")
    kit.report("cam-0", DeviceState.CONFIRMED, fleet.old)
    for name in fleet.names[1:]:
        kit.report(name, DeviceState.CONFIRMED, fleet.old)
    fleet.tick()
    lenient = Policy(minimum_rows=100, failure_threshold=1.0, step_timeout_seconds=100.0)
    fleet.start(name="again", policy=lenient, execution=execution)
    assert State.PAUSED is fleet.tick(101, name="again").rollout.state
    assert State.CANCELLED is fleet.tick(1000, name="again").rollout.state


def test_hawkbit_threshold_ten_of_ten_is_all_of_them(kit: Kit) -> None:
    """Two of forty are online and both fail: that is 100 %, and not 5 % of a group that nobody heard of."""
    fleet = Fleet(kit, devices=40)
    for name in fleet.names[2:]:
        kit.status(name, online=False, boot=2)
    fleet.start()
    for name in fleet.names[:2]:
        kit.report(name, DeviceState.FAILED, fleet.old)
    assert State.ROLLING_BACK is fleet.tick().rollout.state


def test_boto3_4656_retries_are_not_counted_as_failures(kit: Kit) -> None:
    """Every device fails once and is asked again: nothing failed, under a threshold that allows nothing."""
    fleet = Fleet(kit)
    strict = Policy(minimum_rows=100, failure_threshold=0.0, step_timeout_seconds=100.0)
    fleet.start(policy=strict, execution=Execution(retries=1, thresholds=(Threshold(Failure.FAILED, 0.0),)))
    first = {name: wanted.job for name, wanted in kit.outbox.desired().items() if wanted}
    for name in fleet.names:
        kit.report(name, DeviceState.FAILED, fleet.old)
    report = fleet.tick()
    assert (State.RUNNING, {}) == (report.rollout.state, {k: n for k, n in report.rollout.tally.failed().items() if n})
    second = {name: wanted.job for name, wanted in kit.outbox.desired().items() if wanted}
    assert not set(first.values()) & set(second.values())
    fleet.confirm(*fleet.names)
    assert State.SUCCEEDED is fleet.tick().rollout.state


def test_thingsboard_10191_power_pulled_in_the_middle_is_tried_again(kit: Kit) -> None:
    """A device that vanishes while it updates is timed out, asked again when it is back, and gets there."""
    fleet = Fleet(kit, devices=2)
    fleet.start(execution=Execution(device_timeout_seconds=30.0, retries=1))
    kit.report("cam-0", DeviceState.DOWNLOADING, fleet.old)
    fleet.tick()
    kit.status("cam-0", online=False, boot=2)
    fleet.confirm("cam-1")
    fleet.tick(31)
    assert "v2.2.cam-0" == kit.registry.device("cam-0").desired_job
    kit.status("cam-0", running=fleet.old, boot=3)
    fleet.confirm("cam-0")
    assert State.SUCCEEDED is fleet.tick(6).rollout.state, "at the gate's next look"
    assert fleet.new == kit.registry.device("cam-0").running


def test_nerves_hub_web_1617_failed_devices_take_nobodys_turn(kit: Kit) -> None:
    """At two a minute, two devices that fail hold up nobody: the next minute has two more."""
    fleet = Fleet(kit, devices=6)
    lenient = Policy(minimum_rows=0, failure_threshold=1.0, step_timeout_seconds=1e6)
    fleet.start(policy=lenient, execution=Execution(pace=Pace(maximum_per_minute=2)))
    for minutes in range(1, 4):
        for _ in range(4):
            fleet.tick(15.0)
        for name in fleet.offered():
            kit.report(name, DeviceState.FAILED, fleet.old)
        assert 2 * minutes <= len(fleet.offered()) <= 2 * minutes + 1


def test_mikrotik_manager_140_a_rollout_survives_a_restart(kit: Kit) -> None:
    """Another process goes on in the same wave, with the same devices, and offers nothing twice."""
    fleet = Fleet(kit)
    fleet.start("20%", "100%")
    fleet.confirm(*fleet.offered())
    before = fleet.tick()
    jobs = {name: wanted.job for name, wanted in kit.outbox.desired().items() if wanted}
    other = Rollouts(kit.database)
    assert set() == other.advance("v2", kit.now)
    assert (before.rollout.state, 1) == ((after := other.report("v2")).rollout.state, after.rollout.wave)
    assert jobs == {name: wanted.job for name, wanted in kit.outbox.desired().items() if wanted}


def test_hawkbit_pause_offers_nothing(kit: Kit) -> None:
    """Between an order to pause and one to resume nobody is offered anything, whatever devices and gate say."""
    fleet = Fleet(kit)
    fleet.start("20%", "100%")
    kit.rollouts.apply("v2", Event.PAUSED, kit.now)
    offered = fleet.offered()
    fleet.confirm(*offered)
    fleet.tick(50)
    assert offered == fleet.offered()
    kit.rollouts.apply("v2", Event.RESUMED, kit.now)
    fleet.tick(5)
    assert set(fleet.names) == set(fleet.offered())

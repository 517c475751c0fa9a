"""kill -9 of the server at random points of a rollout: no offer is lost or doubled, and it ends right."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from edgeopt_contract.codec import decode
from edgeopt_contract.messages import Desired, DeviceState, Reported, Status, Telemetry
from edgeopt_fleet.decoding import Incoming
from edgeopt_fleet.gate import Margins, Policy
from edgeopt_fleet.rollout import Arm, Execution, State, Trial, Wave
from edgeopt_fleet.store.rollouts import Plan
from tests.fleet.conftest import CAPABILITIES, Kit, window
from tests.fleet.rollout.mortal_server import Life, Nursery

pytestmark = [pytest.mark.stateful, pytest.mark.timeout(1500)]

KILLS = int(os.environ.get("EDGEOPT_KILLS", "20"))  # the whole proof: 200
_DEVICES = 12
_STEPS = (40, 80, 200)  # a life is killed before one of so many steps; a rollout of these devices takes about 250
_KINDS = ("one bundle", "two arms", "one bundle that fails", "two arms of which B fails")  # in turn
_WAVES = [("20%", "50%", "100%"), ("1 device", "100%"), ("100%",)]
_POLICY = Policy(minimum_rows=1, interval_seconds=0.001, failure_threshold=0.3, step_timeout_seconds=600.0)


@dataclass
class SimulatedDevice:
    """Carries each job out once, spools what it says, and forgets only what is acknowledged."""

    name: str
    running: str
    bad: str = ""  # the bundle that fails here
    online: bool = True
    number: int = 0
    spool: dict[int, Reported | Telemetry] = field(default_factory=dict)
    jobs: list[str] = field(default_factory=list)

    def be_told(self, payload: bytes) -> None:
        """Take a desired state; the same job again is no news."""
        if not payload or not self.online:
            return
        desired = decode(Desired, payload)
        if self.jobs and desired.job == self.jobs[-1]:
            return
        self.jobs.append(desired.job)
        failed = desired.bundle == self.bad
        self.running = self.running if failed else desired.bundle
        state = DeviceState.FAILED if failed else DeviceState.CONFIRMED
        outcome = Reported(
            session=1, number=1, at=1, job=desired.job, bundle=desired.bundle, state=state, running=self.running
        )
        self._say(outcome)
        self.serve()

    def serve(self) -> None:
        """Tell of a window; the gate wants to see some."""
        self._say(window(self.running, self.number + 1))

    def _say(self, record: Reported | Telemetry) -> None:
        self.number += 1
        self.spool[self.number] = replace(record, number=self.number)

    def messages(self) -> list[Incoming]:
        """Return everything that is not acknowledged."""
        return [Incoming(device=self.name, record=record) for record in self.spool.values()] if self.online else []


@dataclass
class Field:
    """The devices, and the broker's retained desired states, which outlive the server."""

    devices: dict[str, SimulatedDevice]
    retained: dict[str, bytes] = field(default_factory=dict)
    told: list[tuple[str, str]] = field(default_factory=list)  # (device, job) in the order of first publications
    ended: Callable[[], bool] = lambda: False

    def talk(self, life: Life) -> None:
        """Be the broker and all devices during one life of the server; hang up when all is done and told."""
        quiet = 0
        self._send(life, self.devices.values())
        for kind, content, payload in life.hear():
            if kind == "desired":
                self._publish(life, content, payload)
            elif kind == "acks":
                self._acknowledge(content)
            else:  # idle
                ended = self.ended()
                quiet = quiet + 1 if ended and not any(d.messages() for d in self.devices.values()) else 0
                if quiet == 2:
                    return
                for device in () if ended else self.devices.values():
                    device.serve()
                self._send(life, self.devices.values())
                life.say(self._status(next(iter(self.devices.values()))))

    def _publish(self, life: Life, name: str, payload: bytes) -> None:
        self.retained[name] = payload
        if payload:
            job = (name, decode(Desired, payload).job)
            if job not in self.told:
                self.told.append(job)
        self.devices[name].be_told(payload)
        self._send(life, [self.devices[name]])

    def _acknowledge(self, acks: dict[str, list[Any]]) -> None:
        for name, several in acks.items():
            device = self.devices[name]
            device.spool = {n: r for n, r in device.spool.items() if not any(ack.covers(n) for ack in several)}

    def _send(self, life: Life, devices: Any) -> None:
        for device in devices:
            for message in device.messages():
                life.say(message)

    def _status(self, device: SimulatedDevice) -> Incoming:
        record = Status(
            device=device.name, boot=1, online=device.online, agent_version="0", running=None, capabilities=CAPABILITIES
        )
        return Incoming(device=device.name, record=record)


def settled(kit: Kit, name: str) -> bool:
    """Say whether the rollout has ended, with nobody left on the way."""
    return name not in kit.rollouts.unsettled()


def draw_plan(draw: random.Random, name: str, bundles: tuple[str, ...]) -> Plan:
    """Return a rollout of one bundle, or of two as arms, which are watched for a moment after the last wave."""
    arms = tuple(Arm(bundle=bundle, percent=50) for bundle in bundles)
    margins = Margins(minimum_rows=1, device_rows=1)
    return Plan(
        name=name,
        bundle=bundles[0],
        trial=Trial(arms=arms, observe_seconds=0.01, margins=margins) if len(arms) == 2 else None,
        cohort="all",
        waves=tuple(map(Wave.parse, draw.choice(_WAVES))),
        policy=_POLICY,
        execution=Execution(),
        allow_no_recall=True,
    )


def check_end(kit: Kit, plan: Plan, fleet: Field, *, harmful: bool) -> None:
    """Hold what must be true when a rollout is over, however often the server was killed."""
    report = kit.rollouts.report(plan.name)
    record = report.rollout
    assert (State.ROLLED_BACK if harmful else State.SUCCEEDED) is record.state, report.verdicts[-1].reasons
    assert ("B" if harmful and plan.trial else "") == record.fault
    desired = kit.outbox.desired()
    for name, device in fleet.devices.items():
        mine = [job for job in device.jobs if job.startswith(f"{plan.name}.")]
        member = report.members[name]
        allowed = [f"{plan.name}.1.{name}", f"{plan.name}.2.{name}"][: member.attempt]
        assert mine == allowed, "each offer once, in order, none lost"
        wanted = desired[name]
        assert wanted is not None
        assert wanted == decode(Desired, fleet.retained[name]), "the broker holds what the database says"
        assert device.running == wanted.bundle
        offered = plan.trial.bundle_of(member.arm) if plan.trial else plan.bundle
        assert (member.previous if member.withdrawn else offered) == wanted.bundle or not member.exposed
        assert {} == device.spool
    waves = [report.members[name].wave for name, job in fleet.told if job.startswith(f"{plan.name}.1.")]
    assert waves == sorted(waves), "no wave before the one before it"
    for name, device in fleet.devices.items():
        (spool,) = kit.registry.spools(name)
        assert (device.number, []) == (spool.upto, list(spool.beyond)), "all reports are stored, each once"


def _some_step(draw: random.Random) -> int:
    return draw.randrange(draw.choice(_STEPS))


@pytest.mark.parametrize("seed", [1])
def test_the_server_is_killed_at_random_points(kit: Kit, seed: int) -> None:
    """Rollouts follow each other, good and harmful ones, until the server was killed often enough; each ends right."""
    draw = random.Random(seed)
    names = [f"cam-{number}" for number in range(_DEVICES)]
    kit.enrol(*names)
    first = kit.publish("first")
    fleet = Field({name: SimulatedDevice(name, first) for name in names})
    rollouts = lives = 0
    with Nursery(kit.address, kit.directory) as nursery:
        while nursery.kills < KILLS or rollouts < len(_KINDS):
            kind = _KINDS[rollouts % len(_KINDS)]
            rollouts += 1
            bundles = tuple(kit.publish(f"v{rollouts}-{arm}") for arm in ("A", "B")[: 2 if "arms" in kind else 1])
            harmful = "fails" in kind
            for device in fleet.devices.values():
                device.bad = bundles[-1] if harmful else ""
            plan = draw_plan(draw, f"r{rollouts}", bundles)
            kit.rollouts.create(plan, time.time())
            kit.rollouts.apply(plan.name, None, time.time())
            fleet.ended = lambda name=plan.name: settled(kit, name)  # type: ignore[misc]
            most = min(KILLS, nursery.kills + 1 + KILLS // len(_KINDS))  # none of the kinds takes all of them
            killed = True
            while killed:
                lives += 1
                assert lives < 20 * KILLS + 100, "the rollout gets nowhere"
                killed = nursery.live(_some_step(draw) if nursery.kills < most else None, fleet.talk)
            check_end(kit, plan, fleet, harmful=harmful)
            print(f"{nursery.kills} kills in {lives} lives of the server over {rollouts} rollouts", flush=True)
    assert nursery.kills >= KILLS

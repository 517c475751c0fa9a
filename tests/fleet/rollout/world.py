"""A fleet in memory: devices, rollouts over them, and a random driver that lets anything happen to both.

The rollouts go through the real pure core, turn by turn as the shell does it; :meth:`World.check` holds what must be
true after every transition. It has no database and no clock of its own. Example::

    world = World(random.Random(7))
    for _ in range(200):
        world.act()
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from edgeopt_contract.messages import DeviceState, Result
from edgeopt_contract.windows import Window
from edgeopt_fleet.gate import Criterion, Decision, Outcome, Policy, Reason, Verdict
from edgeopt_fleet.rollout import (
    ACTIVE,
    ARMS,
    TRANSITIONS,
    Arm,
    Candidate,
    Command,
    Count,
    Event,
    Execution,
    Failure,
    IllegalTransitionError,
    Member,
    Pace,
    Rollout,
    Sighting,
    State,
    Tally,
    Threshold,
    Trial,
    Wave,
    allowed_offers,
    arms_of,
    assign,
    at_fault,
    draw_arms,
    draw_members,
    event_of,
    excuse,
    give_up_to_another,
    inherit,
    is_settled,
    keeps_confirmed,
    observe,
    offer,
    offered,
    start_event,
    step,
    terms_of,
    time_out,
    wanted,
    withdraw,
)

OLD = "0" * 64
ORDERS = (
    None, Event.STARTED, Event.PAUSED, Event.RESUMED, Event.CANCELLED, Event.ROLL_BACK_ORDERED, Event.APPROVED,
    Event.DENIED,
)  # fmt: skip
FINAL = (DeviceState.CONFIRMED, DeviceState.FAILED, DeviceState.REJECTED, DeviceState.ROLLED_BACK)
NIGHT = Window(start="02:00", end="04:00")


def verdict(decision: Decision) -> Verdict:
    """Return a verdict with some reason."""
    return Verdict(decision, (Reason(Criterion.ROWS, "because"),))


@dataclass
class Device:
    """One device as the fleet sees it."""

    name: str
    tags: dict[str, str]
    hardware: str
    running: str | None = OLD
    online: bool = True
    job: str | None = None
    state: DeviceState | None = None

    @property
    def sighting(self) -> Sighting:
        """What the fleet knows of it."""
        result = Result.RUNS_NEW if self.state is DeviceState.CONFIRMED else None
        return Sighting(online=self.online, running=self.running, job=self.job, state=self.state, result=result)


@dataclass
class Run:
    """One rollout with its members, and what was seen of it."""

    record: Rollout
    members: dict[str, Member]
    offers: list[tuple[float, int]] = field(default_factory=list)  # when, and how many a minute were allowed
    holds: frozenset[str] = frozenset()  # devices that it wants something of, when it was checked last
    touched: bool = True  # since then


@dataclass
class World:
    """Devices and rollouts, and the transitions that were taken."""

    random: random.Random
    devices: dict[str, Device] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    now: float = 1000.0
    transitions: int = 0
    jobs: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)
    allowed: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        draw = self.random
        for number in range(draw.randint(3, 14)):
            name = f"cam-{number}"
            tags = {"ring": draw.choice(["canary", "rest"])}
            self.devices[name] = Device(name, tags, draw.choice(["aarch64", "x86_64"]))
            self.devices[name].running = draw.choice([OLD, OLD, None])
        kinds = ["order", "gate", "report", "lie", "offline", "wait", "second"]
        self.allowed = frozenset(draw.sample(kinds, draw.randint(3, len(kinds)))) | {"report"}

    # --- what may happen ------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Let one random thing happen, then look whether all is as it must be."""
        draw = self.random
        open_runs = [run for run in self.runs.values() if not is_settled(run.record)]
        if not open_runs or ("second" in self.allowed and len(open_runs) < 3 and draw.random() < 0.05):
            self.create(draw_plan(draw, f"r{len(self.runs)}"))
            return
        run = draw.choice(open_runs)
        actions: list[Callable[[], object]] = [lambda: self.turn(run), lambda: self.turn(run)]
        actions += [self._report] * 3
        if "order" in self.allowed or run.record.state in (State.DRAFT, State.AWAITING_APPROVAL):
            actions.append(lambda: self.order(run, self._some_order(run)))
        if "gate" in self.allowed:
            weights = [6, 3, 1]
            decision = draw.choices([Decision.PROMOTE, Decision.HOLD, Decision.ROLL_BACK], weights)[0]
            actions += [lambda: self.turn(run, verdict(decision))] * 2
        if "offline" in self.allowed:
            actions.append(lambda: self.toggle(draw.choice(list(self.devices))))
        if "wait" in self.allowed:
            actions.append(lambda: self.wait(draw.choice([0.3, 1.0, 5.0, 30.0, 61.0, 700.0, 4000.0])))
        else:
            actions.append(lambda: self.wait(draw.choice([0.3, 1.0, 5.0])))
        draw.choice(actions)()

    def _some_order(self, run: Run) -> Event | None:
        """Return an order: mostly one that makes sense, for most rollouts should get somewhere."""
        state = run.record.state
        sensible = {State.DRAFT: None, State.AWAITING_APPROVAL: Event.APPROVED, State.PAUSED: Event.RESUMED}
        if state in sensible and self.random.random() < 0.8:
            return sensible[state]
        return self.random.choice(ORDERS)

    def _report(self) -> None:
        device = self.random.choice(list(self.devices.values()))
        job = self.wanted_by(device.name)
        if job is None:
            return
        states = [*FINAL, DeviceState.CONFIRMED, DeviceState.CONFIRMED, DeviceState.DOWNLOADING, DeviceState.STAGED]
        self.report(device.name, self.random.choice(states), lie="lie" in self.allowed and self.random.random() < 0.2)

    def create(self, plan: Plan) -> bool:
        """Make a draft over all devices, if nobody as urgent has them."""
        taken = [
            run
            for run in self.runs.values()
            if run.record.state in ACTIVE and run.record.execution.priority >= plan.execution.priority
        ]
        if taken:
            return False
        trial, hardware = plan.trial, {d.name: d.hardware for d in self.devices.values()}
        chosen = list(hardware) if trial is None else draw_members(plan.name, hardware, trial)
        candidates = {name: Candidate(tags=self.devices[name].tags, hardware=hardware[name]) for name in chosen}
        places = assign(plan.name, candidates, plan.waves)
        arms = dict.fromkeys(places, "") if trial is None else draw_arms(plan.name, places, hardware, trial)
        if not places or (trial is not None and len(set(arms.values())) < len(ARMS)):
            return False
        members = {
            name: Member(
                device=name,
                wave=place.wave,
                place=place.place,
                bundle=plan.bundle if trial is None else trial.bundle_of(arms[name]),
                arm=arms[name],
                previous=self.devices[name].running,
                running=self.devices[name].running,
                online=self.devices[name].online,
            )
            for name, place in places.items()
        }
        record = Rollout(
            name=plan.name,
            bundle=plan.bundle,
            cohort="all",
            waves=plan.waves,
            policy=plan.policy,
            execution=plan.execution,
            trial=trial,
            approval=plan.approval,
            created_at=self.now,
            updated_at=self.now,
            tally=Tally().moved([(None, member) for member in members.values()]),
        )
        self.runs[plan.name] = Run(record, members)
        self._done()
        return True

    def order(self, run: Run, event: Event | None) -> bool:
        """Let somebody order something, sensible or not; say whether it was taken."""
        event = start_event(run.record) if event is None else event
        before = run.record
        self._hear(run)
        try:
            self._take(run, event)
        except IllegalTransitionError:
            draft = before.state is State.DRAFT and before.approval
            assert (before.state, event) not in TRANSITIONS or draft
            self._done()
            return False
        self._go_on(run, None)
        self._done()
        return True

    def turn(self, run: Run, verdict: Verdict | None = None) -> None:
        """Let the worker look once."""
        self._hear(run)
        run.record = excuse(run.record, self.now)
        if run.record.state not in (State.RUNNING, State.PAUSED, State.OBSERVING):
            verdict = None
        self._go_on(run, verdict)
        record = run.record
        if record.state is State.OBSERVING and record.trial is not None:
            rows = [self.random.choice([0, 10**6]) for _ in ARMS]
            if record.trial.is_over(self.now - record.step_started_at, rows):
                self._take(run, Event.OBSERVED)
        self._done()

    def report(self, name: str, state: DeviceState, *, lie: bool = False) -> None:
        """Let a device report on what it should do now."""
        device, job = self.devices[name], self.wanted_by(name)
        if job is None:
            return
        device.job, bundle = job
        device.state = state
        if state is DeviceState.CONFIRMED and not lie:
            device.running = bundle or device.running
        self._done()

    def toggle(self, name: str) -> None:
        """Let a device come or go."""
        self.devices[name].online = not self.devices[name].online
        self._done()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self._done()

    def wanted_by(self, name: str) -> tuple[str, str | None] | None:
        """Return job and bundle that the device was told last."""
        for run in self.runs.values():
            member = run.members.get(name)
            want = None if member is None else wanted(run.record, member)
            if want is not None:
                return want.job, want.bundle
        return None

    # --- one turn, as the shell does it ---------------------------------------------------------------------------

    def _hear(self, run: Run) -> None:
        terms = terms_of(run.record)
        for name, member in list(run.members.items()):
            if not member.exposed:
                continue
            seen = observe(member, self.devices[name].sighting, terms, self.now)
            if seen.attempt == member.attempt and not seen.again:
                assert seen == observe(seen, self.devices[name].sighting, terms, self.now), "twice is once"
            if member.outcome is not Outcome.CONFIRMED and seen.outcome is Outcome.CONFIRMED:
                assert self.devices[name].running == member.bundle, "only who runs it is a success"
            self._move(run, [(member, time_out(seen, terms, self.now))])

    def _go_on(self, run: Run, verdict: Verdict | None) -> None:
        for _ in range(40):
            event = event_of(run.record, verdict, self.now)
            if event is None:
                break
            assert (run.record.state, event) in TRANSITIONS
            fault = at_fault(run.record) if event is Event.TOO_MANY_FAILED else ""
            if event is Event.WAVE_FAILED:
                fault = self.random.choice([*arms_of(run.record), "".join(arms_of(run.record))])
            self._take(run, event, fault)
            verdict = None
        self._offer(run)

    def _take(self, run: Run, event: Event, fault: str = "") -> None:
        before = run.record.state
        run.record, commands = step(replace(run.record, fault=fault or run.record.fault), event, self.now)
        self.seen[f"{before} {event}"] += 1
        run.touched = True
        assert before in ACTIVE, "terminal is terminal"
        for command in commands:
            if command is Command.CLAIM:
                self._take_away(run, [name for name, member in run.members.items() if not member.exposed], claim=True)
            elif command is Command.EXPOSE_WAVE:
                self._offer(run)
            elif command is not Command.RELEASE:
                self._move(
                    run,
                    [
                        (m, withdraw(m, keep_confirmed=keeps_confirmed(run.record, m, command)))
                        for m in list(run.members.values())
                    ],
                )

    def _offer(self, run: Run) -> None:
        allowed = allowed_offers(run.record, self.now)
        line = sorted(
            (m for m in run.members.values() if m.to_offer and m.wave <= run.record.wave),
            key=lambda m: (m.wave, m.place),
        )
        chosen = line if allowed is None else line[:allowed]
        if not chosen:
            return
        assert run.record.state is State.RUNNING, "nothing is offered unless it runs"
        theirs = self._take_away(run, [m.device for m in chosen if not m.exposed], claim=False)
        changes = []
        for member in chosen:
            heir = inherit(member, theirs[member.device]) if member.device in theirs else member
            changes.append((member, offer(heir, self.devices[member.device].sighting)))
        pace = run.record.execution.pace
        if pace is not None:
            counts = [m.exposed for m in run.members.values()].count(True), self._confirmed(run)
            run.offers += [(self.now, pace.rate(*counts))] * len(changes)
        run.record = offered(run.record, changes, self.now)
        run.touched = True
        for _, after in changes:
            run.members[after.device] = after
            job = terms_of(run.record).job_of(after)
            assert job not in self.jobs, "no offer is made twice"
            self.jobs.add(job)

    @staticmethod
    def _confirmed(run: Run) -> int:
        return sum(member.outcome is Outcome.CONFIRMED for member in run.members.values())

    def _take_away(self, run: Run, names: Iterable[str], *, claim: bool) -> dict[str, Member]:
        taken = {}
        for other in self.runs.values():
            if other is run:
                continue
            for name in names:
                member = other.members.get(name)
                held = member is not None and not member.taken and (other.record.state in ACTIVE or member.exposed)
                if member is None or not held or (claim and member.exposed):
                    continue
                taken[name] = member
                self._move(other, [(member, give_up_to_another(member))])
        return taken

    def _move(self, run: Run, changes: list[tuple[Member, Member]]) -> None:
        changes = [pair for pair in changes if pair[0] != pair[1]]
        for _, after in changes:
            run.members[after.device] = after
        run.touched = run.touched or bool(changes)
        run.record = replace(run.record, tally=run.record.tally.moved([*changes]))

    # --- what must be true ----------------------------------------------------------------------------------------

    def _done(self) -> None:
        self.transitions += 1
        self.check()

    def check(self) -> None:
        """Hold the invariants; each can fail. Rollouts to which nothing happened are as they were."""
        for run in self.runs.values():
            if run.touched:
                self._check_run(run)
                run.touched = False
            self._check_pace(run)
        assert sum(len(run.holds) for run in self.runs.values()) == len(
            frozenset[str]().union(*(run.holds for run in self.runs.values()))
        ), "one rollout has a device"

    def _check_run(self, run: Run) -> None:
        record = run.record
        assert record.tally == Tally().moved([(None, m) for m in run.members.values()]), "counts are exact"
        wants = {name: want for name, m in run.members.items() if (want := wanted(record, m)) is not None}
        run.holds = frozenset(wants)
        for name, member in run.members.items():
            if member.exposed:
                assert member.wave <= record.wave, "no wave before its turn"
                assert record.started_at, "nobody is exposed before the start"
            assert member.withdrawn or member.attempt <= record.execution.retries + 1
            if record.trial is not None:
                assert member.bundle == record.trial.bundle_of(member.arm), "an arm has one bundle"
            spared = len(record.fault) == 1 and member.arm not in record.fault and not member.withdrawn
            if spared and name in wants and record.state in (State.ROLLING_BACK, State.ROLLED_BACK):
                assert member.outcome is not None, "of the arm that is not at fault only who confirmed stays"
            elif name in wants and record.state in (State.ROLLING_BACK, State.ROLLED_BACK):
                assert member.withdrawn
                assert wants[name].bundle == member.previous
            if name in wants and record.state is State.CANCELLED:
                assert member.withdrawn or member.outcome is not None
        if record.state is State.SUCCEEDED:
            assert not any(member.to_offer for member in run.members.values())
        if record.state is State.ROLLED_BACK and not record.tally.total(Count.OPEN):
            back = [member for member in run.members.values() if member.withdrawn and not member.taken]
            assert all(member.returned or member.previous is None or member.tries == 4 for member in back)

    def _check_pace(self, run: Run) -> None:
        pace = run.record.execution.pace
        if pace is None or not run.offers or run.offers[-1][0] < self.now - 60:
            return
        recent = [rate for at, rate in run.offers if at > self.now - 60]
        assert len(recent) <= (max(recent) if recent else 0) <= pace.maximum_per_minute or not recent, "the cap holds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A rollout to be made."""

    name: str
    bundle: str
    waves: tuple[Wave, ...]
    policy: Policy
    execution: Execution
    trial: Trial | None
    approval: bool


_WAVES = [
    ("100%",),
    ("20%", "50%", "100%"),
    ("tag:ring=canary", "50%", "100%"),
    ("hardware:x86_64", "hardware:aarch64"),
    ("1 device", "3 devices", "100%"),
    ("10%", "40%"),
]


def draw_plan(draw: random.Random, name: str) -> Plan:
    """Return a random plan."""
    maximum = draw.choice([1, 2, 5, 60])
    pace = draw.choice(
        [
            None,
            Pace(maximum_per_minute=maximum),
            Pace(maximum_per_minute=maximum, base_rate_per_minute=1, number_of_notified_things=2),
            Pace(
                maximum_per_minute=maximum, base_rate_per_minute=1, number_of_succeeded_things=1, increment_factor=1.5
            ),
        ]
    )
    thresholds = tuple(
        Threshold(kind, draw.choice([0.0, 20.0, 60.0]), draw.randint(1, 4))
        for kind in draw.sample(list(Failure), draw.randint(0, 2))
    )
    execution = Execution(
        pace=pace,
        thresholds=thresholds,
        device_timeout_seconds=draw.choice([None, None, 40.0]),
        total_timeout_seconds=draw.choice([None, None, None, 5000.0]),
        retries=draw.choice([0, 0, 1, 3]),
        start_at=draw.choice([None, None, None, 1500]),
        priority=draw.choice([100, 500, 900]),
    )
    policy = Policy(
        failure_threshold=draw.choice([0.1, 0.5, 1.0]),
        step_timeout_seconds=600.0,
        window=draw.choice([None, None, NIGHT]),
    )
    waves = tuple(Wave.parse(wave) for wave in draw.choice(_WAVES))
    bundle = name.encode().hex().ljust(64, "f")
    shares = draw.choice([(50, 50), (30, 30), (90, 10)])
    other = draw.choice([OLD, (name + "b").encode().hex().ljust(64, "f")])
    arms = tuple(Arm(bundle=one, percent=share) for one, share in zip((bundle, other), shares, strict=True))
    return Plan(
        name=name,
        bundle=bundle,
        waves=waves,
        policy=policy,
        execution=execution,
        trial=draw.choice([None, Trial(arms=arms, observe_seconds=draw.choice([5.0, 700.0]))]),
        approval=draw.random() < 0.2,
    )

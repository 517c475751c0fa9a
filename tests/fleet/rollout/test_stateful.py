"""The pure core under anything that can happen: 100,000 transitions of a fast driver, and Hypothesis beside it."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from edgeopt_contract.messages import DeviceState
from edgeopt_fleet.gate import Decision
from edgeopt_fleet.rollout import TRANSITIONS, Event, is_settled
from tests.fleet.rollout.world import ORDERS, World, draw_plan, verdict

pytestmark = pytest.mark.stateful

TRANSITIONS_WANTED = int(os.environ.get("EDGEOPT_STATEFUL_TRANSITIONS", "100000"))
_ACTS = 300  # in one world


def test_a_hundred_thousand_transitions(record_property: Callable[[str, object], None]) -> None:
    """No device in two waves or two rollouts, no rate exceeded, nothing offered unless it runs, no way out of the end.

    Every rule of the table is taken on the way.
    """
    taken, done, seed = Counter[str](), 0, 0
    while done < TRANSITIONS_WANTED:
        world = World(random.Random(seed))
        for _ in range(_ACTS):
            world.act()
        done += world.transitions
        taken += world.seen
        seed += 1
    figures = (
        f"{done} transitions of {seed} fleets, {sum(taken.values())} steps by {len(taken)} of {len(TRANSITIONS)} rules"
    )
    print(figures)
    record_property("stateful", figures)
    if done >= 100_000:
        assert {f"{state} {event}" for state, event in TRANSITIONS} == set(taken)


class FleetMachine(RuleBasedStateMachine):
    """What Hypothesis does to the same world; when it finds a fault, it says the shortest way there."""

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        """Make a fleet and a rollout over it."""
        self.world = World(random.Random(seed))
        self.world.create(draw_plan(self.world.random, "r0"))

    @rule(order=st.sampled_from(ORDERS), which=st.integers(0, 2))
    def order(self, order: Event | None, which: int) -> None:
        """Somebody orders something."""
        runs = list(self.world.runs.values())
        if runs:
            self.world.order(runs[which % len(runs)], order)

    @rule(decision=st.none() | st.sampled_from(Decision), which=st.integers(0, 2))
    def tick(self, decision: Decision | None, which: int) -> None:
        """The worker looks, and the gate may say something."""
        runs = list(self.world.runs.values())
        if runs:
            self.world.turn(runs[which % len(runs)], None if decision is None else verdict(decision))

    @rule(number=st.integers(0, 13), state=st.sampled_from(DeviceState), lie=st.booleans())
    def report(self, number: int, state: DeviceState, *, lie: bool) -> None:
        """A device reports on its job, in any order of states."""
        if f"cam-{number}" in self.world.devices:
            self.world.report(f"cam-{number}", state, lie=lie)

    @rule(number=st.integers(0, 13))
    def toggle(self, number: int) -> None:
        """A device comes or goes."""
        if f"cam-{number}" in self.world.devices:
            self.world.toggle(f"cam-{number}")

    @rule(seconds=st.sampled_from([0.1, 1.0, 59.9, 60.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.wait(seconds)

    @precondition(lambda self: sum(not is_settled(run.record) for run in self.world.runs.values()) < 3)
    @rule(seed=st.integers(0, 2**16))
    def another(self, seed: int) -> None:
        """Somebody makes another rollout over the same devices."""
        self.world.create(draw_plan(random.Random(seed), f"r{len(self.world.runs)}"))


TestFleetMachine = FleetMachine.TestCase
TestFleetMachine.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)

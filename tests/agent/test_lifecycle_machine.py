"""A device that lives through anything, a few ten thousand steps of it: what must hold after every one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from edgeopt_agent.update.lifecycle import (
    FINAL,
    ON_ENTER,
    SLOTS,
    UNDER_WAY,
    Command,
    Event,
    Happened,
    State,
    Update,
    step,
    switch_wait_seconds,
    why_not_back,
)
from edgeopt_contract.messages import Result
from edgeopt_contract.windows import Window
from tests.agent.test_lifecycle import NOW, SUCCESS, desired

LEAST_TRANSITIONS = 50_000
OFFERS = tuple(
    desired(job=f"job-{n}", bundle=f"{n % 3:02d}" * 32, **fields)
    for n, fields in enumerate(
        [
            {},
            {"window": Window(start="02:00", end="04:00")},
            {"deadline": int(NOW) + 90_000},
            {},
            {"not_before": int(NOW) + 40_000, "window": Window(start="23:00", end="01:00", days=("sat", "mon"))},
            {"window": Window(start="12:00", end="18:00"), "deadline": int(NOW) + 200_000},
        ]
    )
)


@dataclass
class Device:
    """What a device does when it carries out commands, with a disk of two slots that hold digests."""

    update: Update = field(default_factory=Update)
    now: float = NOW
    pointer: str | None = None
    slots: dict[str, str] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    tested: set[str] = field(default_factory=set)
    broken: bool = False  # the committed bundle does not start
    working_on: Command | None = None
    tries_to_serve: bool = False
    reports: list[tuple[str, State, Result | None]] = field(default_factory=list)
    transitions: int = 0

    def happen(self, happened: Happened) -> None:
        """Step, save, act."""
        self.transitions += 1
        self.update, commands = step(self.update, happened, self.now, 3600)
        for command in commands:
            match command:
                case Command.REPORT:
                    self.reports.append((self.update.job, self.update.state, self.update.result))
                case Command.TAKE_PENDING:
                    self.happen(Happened(Event.OFFERED, desired=self.update.pending))
                case Command.SERVE:
                    self.tries_to_serve = True
                case _:
                    self.working_on = command
                    self.carry_out(command)

    def carry_out(self, command: Command) -> None:
        """Change the disk."""
        update = self.update
        assert command is ON_ENTER[update.state]
        match command:
            case Command.ASSEMBLE:
                assert update.target != self.pointer, "the slot that serves must not be overwritten"
                assert update.desired is not None
                self.slots[update.target] = update.desired.bundle
                self.tested.discard(update.target)
            case Command.AWAIT:
                self.verified.add(self.slots[update.target])
            case Command.SWITCH:
                assert self.slots[update.target] in self.verified
                self.tested.add(update.target)
                self.pointer = update.target
            case Command.RESTORE:
                self.pointer = update.committed

    def succeed(self) -> None:
        """Let the command under way come to the best end that it can, at the time that it is."""
        if self.working_on is None:
            return
        update, command = self.update, self.working_on
        if command is Command.AWAIT and update.desired is not None:
            wait = switch_wait_seconds(update.desired, self.now, 3600)
            self.now += wait
            if update.desired.deadline is not None and update.desired.deadline < self.now:
                self.working_on = None
                self.happen(Happened(Event.EXPIRED, job=update.job))
                return
        self.working_on = None
        serving = update.committed is not None and not self.broken
        self.happen(Happened(SUCCESS[command], job=update.job, serving=serving))

    def restart(self, *, serving: bool) -> None:
        """The power goes; the agent starts."""
        self.working_on, self.tries_to_serve = None, False
        self.happen(Happened(Event.RESTARTED, serving=serving or self.update.committed is None))

    def live(self, chapter: str) -> None:
        """Let one thing happen."""
        name, _, number = chapter.partition(" ")
        if name == "offer":
            self.happen(Happened(Event.OFFERED, desired=OFFERS[int(number)]))
        else:
            _CHAPTERS[chapter](self)

    def repeat(self) -> None:
        """Carry out the command under way once more, as a shell may."""
        if self.working_on is not None:
            self.carry_out(self.working_on)

    def order_back(self) -> None:
        """Somebody at the device orders it back; what was promised happens."""
        before = self.update
        self.happen(Happened(Event.ORDERED_BACK))
        if why_not_back(before) is None:
            assert self.update.state is State.ROLLED_BACK
        elif before.committed is not None:
            assert before == self.update

    def heal(self) -> None:
        """The committed bundle starts again, and the shell that tries finds out."""
        self.broken = False
        if self.tries_to_serve:
            self.tries_to_serve = False
            self.happen(Happened(Event.SERVES))

    def let_pass(self, seconds: float) -> None:
        """Time goes by."""
        self.now += seconds

    def finish(self) -> None:
        """Let everything succeed until nothing is left to do."""
        for _ in range(60):
            if self.working_on is None:
                return
            self.succeed()
        raise AssertionError(f"still busy in {self.update}")

    def check(self) -> None:
        """Look at everything that must hold whenever nothing is half done."""
        update = self.update
        if update.committed is not None:
            assert self.slots[update.committed] in self.verified, "the committed slot must be verified"
            assert update.committed in self.tested, "the committed slot must have been tested"
        assert update.fallback is None or update.fallback in set(SLOTS) - {update.committed}
        if update.fallback is not None:
            assert self.slots[update.fallback] in self.verified
        if update.state is State.IDLE or (update.state in FINAL and update.settled):
            assert update.committed == self.pointer, "at rest the pointer names the committed slot"
            assert update.pending is None
        assert self.pointer is None or self.slots[self.pointer] in self.verified
        assert (update.result is not None) == (update.settled and update.state in FINAL)
        if update.state in UNDER_WAY or (update.state in FINAL and not update.settled):
            assert self.working_on is not None or update.state in UNDER_WAY
        assert len(update.failures) <= 16


_CHAPTERS: dict[str, Callable[[Device], None]] = {
    "luck": Device.succeed,
    "fault": lambda device: device.happen(Happened(Event.FAULT, job=device.update.job, detail="bad luck")),
    "disk": lambda device: device.happen(Happened(Event.DISK_REFUSED, job=device.update.job, detail="full")),
    "stale fault": lambda device: device.happen(Happened(Event.FAULT, job="a job of long ago")),
    "restart": lambda device: device.restart(serving=not device.broken),
    "restart dead": lambda device: device.restart(serving=False),
    "repeat": Device.repeat,
    "withdraw": lambda device: device.happen(Happened(Event.WITHDRAWN)),
    "back": Device.order_back,
    "break": lambda device: setattr(device, "broken", True),
    "heal": Device.heal,
    "steady": lambda device: device.happen(Happened(Event.STEADY)),
    "minute": lambda device: device.let_pass(60),
    "hours": lambda device: device.let_pass(5 * 3600),
}
CHAPTERS = sorted([*_CHAPTERS, *(f"offer {n}" for n in range(len(OFFERS)))])


class Life(RuleBasedStateMachine):
    """Bursts of chapters, each burst drawn from a few kinds of them, so that rare pairs meet."""

    transitions = 0

    def __init__(self) -> None:
        super().__init__()
        self.device = Device()

    @initialize(served_before=st.booleans())
    def begin(self, *, served_before: bool) -> None:
        """Begin empty, or with a bundle that was adopted."""
        if served_before:
            self.device = Device(
                update=Update(committed="a"), pointer="a", slots={"a": "00" * 32}, verified={"00" * 32}, tested={"a"}
            )

    @rule(kinds=st.sets(st.sampled_from(CHAPTERS), max_size=6), length=st.integers(1, 600), seed=st.integers(0, 2**32))
    def live(self, kinds: set[str], length: int, seed: int) -> None:
        """A burst of ``length`` chapters of the kinds that were drawn, and of good luck."""
        chapters = [*sorted(kinds), "luck", "luck"]
        for chapter in Random(seed).choices(chapters, k=length):
            self.device.live(chapter)
            self.device.check()

    @rule()
    def comes_to_rest(self) -> None:
        """Whatever happened: with good luck alone it settles, and a new offer is confirmed."""
        copy = replace(self.device)
        copy.slots, copy.verified, copy.tested = dict(copy.slots), set(copy.verified), set(copy.tested)
        copy.reports, copy.broken = [], False
        copy.restart(serving=True)
        copy.finish()
        assert copy.update.state in (*FINAL, State.IDLE)
        copy.happen(Happened(Event.OFFERED, desired=desired("new", "ff" * 32)))
        copy.finish()
        assert ("new", State.CONFIRMED) == (copy.update.job, copy.update.state)
        assert "ff" * 32 == copy.slots[copy.pointer or ""]

    @rule()
    def is_interrupted_anywhere(self) -> None:
        """A power cut right now, then another: both starts do the same."""
        update = self.device.update
        once, commands = step(update, Happened(Event.RESTARTED), self.device.now, 3600)
        twice, again = step(once, Happened(Event.RESTARTED), self.device.now, 3600)
        if once.state is twice.state and once.state is not State.STAGED:
            assert set(again) <= {*commands, ON_ENTER[twice.state], Command.TAKE_PENDING}

    @invariant()
    def reports_are_in_order(self) -> None:
        """A final report carries a result and no other does; after one, only what may follow it."""
        for (job, state, result), (next_job, next_state, _) in pairwise(self.device.reports[-50:]):
            assert (state in FINAL) == (result is not None)
            if job == next_job and state in FINAL:
                assert next_state in (state, State.ROLLED_BACK, State.OFFERED)

    def teardown(self) -> None:
        """Count."""
        Life.transitions += self.device.transitions


def test_device_lives_through_anything(capsys: pytest.CaptureFixture[str]) -> None:
    """At rest the pointer names something verified, everything settles, and every way leads out again."""
    Life.transitions = 0
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=200, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    with capsys.disabled():
        print(f"\nlife cycle: {Life.transitions} transitions, nothing broken")
    assert LEAST_TRANSITIONS <= Life.transitions

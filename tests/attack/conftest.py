"""A device under attack, and the table of what was tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgeopt_agent.trust.answering import answer_question
from edgeopt_agent.trust.floor import Reading
from edgeopt_agent.trust.question import Answer, Outcome, Question
from tests.metadata import DAY, MetadataFleet

OLD, NEW, EVIL = "aa" * 32, "bb" * 32, "ee" * 32
ROWS = pytest.StashKey[list[tuple[str, str, str, str]]]()


@dataclass
class Victim:
    """A device that runs OLD and has verified the fleet's metadata once; its clocks are set by the test."""

    directory: Path
    root: str
    clock: Reading
    running: str | None = OLD

    def ask(self, bundle: str, metadata: bytes = b"") -> Answer:
        """Ask whether ``bundle`` may be installed, as the agent would when ``metadata`` came."""
        return answer_question(
            Question(
                bundle=bundle, running=self.running, root=self.root, directory=str(self.directory),
                reading=self.clock, metadata=metadata,
            )
        )  # fmt: skip

    def wait(self, seconds: float, *, wall: float | None = None) -> None:
        """Let time pass; ``wall`` sets the clock to something else."""
        self.clock = Reading(
            wall=self.clock.wall + seconds if wall is None else wall,
            boot=self.clock.boot,
            uptime=self.clock.uptime + seconds,
        )

    def reboot(self, wall: float) -> None:
        """Start again with the clock at ``wall``."""
        self.clock = Reading(wall=wall, boot=self.clock.boot + "+", uptime=5.0)


@dataclass
class Attack:
    """Tries one thing, checks that it is refused with a reason and harmless, and writes the row of the table."""

    rows: list[tuple[str, str, str, str]]
    fleet: MetadataFleet
    victim: Victim
    name: str
    refusals: list[Answer] = field(default_factory=list)

    def refused(
        self, metadata: bytes, reason: str, *, bundle: str = NEW, outcome: Outcome = Outcome.WAITING,
        by: str = "broker", recovers: bool = True, rotate: bool = False,
    ) -> Answer:  # fmt: skip
        """Expect ``metadata`` to be refused for ``reason``, and the honest metadata to be accepted right after.

        ``rotate``: after new online keys, because the attacker used the old ones to push versions ahead.
        """
        answer = self.victim.ask(bundle, metadata)
        assert outcome == answer.outcome, answer
        assert answer.target is None
        assert reason in answer.reason, answer.reason
        if rotate:
            self.fleet.rotate("snapshot")
            self.fleet.rotate("timestamp")
        if recovers:
            honest = self.victim.ask(NEW, self.fleet.message())
            assert Outcome.TRUSTED == honest.outcome, honest.reason
        self.rows.append((self.name, by, str(answer.outcome), answer.reason))
        return answer

    def held(self, what: str, by: str) -> None:
        """Write a row about an attack that is held off by something else than a refusal of metadata."""
        self.rows.append((self.name, by, "held", what))


@pytest.fixture
def fleet() -> MetadataFleet:
    """An honest fleet: 2 of 3 offline keys, OLD and then NEW signed; NEW permits going back to OLD."""
    fleet = MetadataFleet()
    fleet.add(OLD, version="1")
    return fleet


@pytest.fixture
def victim(fleet: MetadataFleet, tmp_path: Path) -> Victim:
    """A device that installed OLD; NEW is signed afterwards."""
    clock = Reading(wall=fleet.now, boot="boot", uptime=100.0)
    victim = Victim(tmp_path / "trust", fleet.root_text, clock, running=None)
    assert Outcome.TRUSTED == victim.ask(OLD, fleet.message()).outcome
    victim.running = OLD
    fleet.now += DAY / 2
    victim.wait(DAY / 2)
    fleet.add(NEW, version="2")
    return victim


@pytest.fixture
def attack(request: pytest.FixtureRequest, fleet: MetadataFleet, victim: Victim) -> Attack:
    """What the tests try things with; the row is named by the test."""
    name = request.node.name.removeprefix("test_").replace("_", " ")
    return Attack(request.config.stash.setdefault(ROWS, []), fleet, victim, name)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of attacks."""
    rows = config.stash.get(ROWS, [])
    if not rows:
        return
    terminalreporter.section("attack table")
    width = max(len(name) for name, *_ in rows)
    for name, by, outcome, reason in sorted(rows, key=lambda row: (row[1], row[0])):
        terminalreporter.write_line(f"{by:12}  {name:{width}}  {outcome:8}  {reason[:110]}")
    terminalreporter.write_line(f"{len(rows)} attacks, none installed anything")

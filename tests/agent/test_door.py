"""The door: an offer waits there until it is trusted, one at a time, and touches nothing meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.trust.checker import Trust
from edgeopt_agent.update import lifecycle
from edgeopt_agent.update.door import Door
from edgeopt_agent.update.journal import Journal
from edgeopt_agent.update.lifecycle import Update
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import SignatureError, StorageError
from edgeopt_contract.messages import Desired, Reported
from tests.agent.test_lifecycle import desired

SayWhy = Callable[[str], Awaitable[None]]


@dataclass
class Checker:
    """Stands in for trust: what it says of a bundle is in ``verdicts``; a bundle without one waits."""

    verdicts: dict[str, list[Exception | None]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def check(self, bundle: str, running: str | None, on_wait: SayWhy) -> None:
        """Say what was prepared, or wait and say why."""
        self.asked.append((bundle, running))
        if bundle not in self.verdicts:
            await on_wait("not yet")
        while bundle not in self.verdicts:
            self.changed.clear()
            await self.changed.wait()
        verdict = self.verdicts[bundle].pop(0) if len(self.verdicts[bundle]) > 1 else self.verdicts[bundle][0]
        if verdict is not None:
            raise verdict

    def say(self, bundle: str, *verdicts: Exception | None) -> None:
        """Prepare what is said of ``bundle``, the last one for ever."""
        self.verdicts[bundle] = list(verdicts)
        self.changed.set()


@dataclass
class Scene:
    """A door, who was let in, and what was reported."""

    spool: Spool
    checker: Checker = field(default_factory=Checker)
    running: str | None = None
    let_in: list[Desired] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.journal = Journal(self.spool)
        trust = cast("Trust", self.checker)
        self.door = Door(trust, self.journal, lambda: self.running, self._enter, self.news.set)

    def _enter(self, desired: Desired, _: str | None) -> None:
        self.let_in.append(desired)
        self.news.set()

    @property
    def told(self) -> list[tuple[str, str, str]]:
        """Job, state and detail of every report."""
        reports = [decode(Reported, message.payload) for message in self.spool.unacknowledged(100)]
        return [(report.job, str(report.state), report.detail) for report in reports]

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait for it."""
        async with asyncio.timeout(10):
            while not happened():
                self.news.clear()
                await self.news.wait()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An empty spool."""
    spool = Spool.open(tmp_path / "agent.db", now_ms=1)
    yield spool
    spool.close()


@pytest.fixture
async def scene(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """A door that does not pause for long."""
    monkeypatch.setattr(lifecycle, "_FIRST_PAUSE_SECONDS", 0.001)
    scene = Scene(spool)
    yield scene
    await scene.door.close()


async def test_trusted_offer_is_let_in_and_nothing_is_reported(scene: Scene) -> None:
    """The life cycle reports what it does with it."""
    scene.checker.say("ab" * 32, None)
    scene.door.knock(desired())
    await scene.until(lambda: bool(scene.let_in))
    assert ([desired()], []) == (scene.let_in, scene.told)


async def test_refused_offer_is_reported_once_and_the_record_stays(scene: Scene) -> None:
    """However often the broker repeats it; another one is looked at again."""
    scene.checker.say("ab" * 32, SignatureError("a downgrade"))
    scene.checker.say("cd" * 32, None)
    scene.door.knock(desired())
    await scene.until(lambda: bool(scene.told))
    scene.door.knock(desired())
    scene.door.knock(desired("job-2", "cd" * 32))
    await scene.until(lambda: bool(scene.let_in))
    assert [("job-1", "rejected", "a downgrade")] == scene.told
    assert Update() == scene.journal.load()
    assert 2 == len(scene.checker.asked)


async def test_newest_offer_takes_the_place_of_the_one_that_waits(scene: Scene) -> None:
    """The older one is not let in any more, whatever becomes known of it; the same one again changes nothing."""
    scene.door.knock(desired())
    await scene.until(lambda: bool(scene.told))
    scene.door.knock(desired())
    scene.door.knock(desired("job-2", "cd" * 32))
    await scene.until(lambda: len(scene.told) == 2)
    scene.checker.say("ab" * 32, None)
    scene.checker.say("cd" * 32, None)
    await scene.until(lambda: bool(scene.let_in))
    assert ["job-2"] == [offer.job for offer in scene.let_in]
    assert [("job-1", "offered", "not yet"), ("job-2", "offered", "not yet")] == scene.told


async def test_same_job_with_another_bundle_is_another_offer(scene: Scene) -> None:
    """A forger who takes a job's name does not keep the true offer out."""
    scene.door.knock(desired("job-1", "ee" * 32))
    await scene.until(lambda: bool(scene.told))
    scene.checker.say("ab" * 32, None)
    scene.door.knock(desired("job-1"))
    await scene.until(lambda: bool(scene.let_in))
    assert "ab" * 32 == scene.let_in[0].bundle


async def test_offer_that_is_sent_away_is_not_let_in(scene: Scene) -> None:
    """The fleet wants nothing any more; the next one is looked at."""
    scene.door.knock(desired())
    await scene.until(lambda: bool(scene.told))
    scene.door.send_away()
    scene.checker.say("ab" * 32, None)
    scene.checker.say("cd" * 32, None)
    scene.door.knock(desired("job-2", "cd" * 32))
    await scene.until(lambda: bool(scene.let_in))
    assert ["job-2"] == [offer.job for offer in scene.let_in]


async def test_deadline_ends_the_wait(scene: Scene) -> None:
    """What was not trusted by then never will be."""
    scene.door.knock(desired(deadline=int(time.time()) - 1))
    await scene.until(lambda: any(state == "rejected" for _, state, _ in scene.told))
    assert ("job-1", "rejected", "the deadline passed before it was trusted") == scene.told[-1]
    assert [] == scene.let_in


async def test_disk_that_refuses_is_waited_for(scene: Scene) -> None:
    """It is said once, and when the disk takes the metadata the offer is let in."""
    full = StorageError("the disk is full")
    scene.checker.say("ab" * 32, full, full, full, None)
    scene.door.knock(desired())
    await scene.until(lambda: bool(scene.let_in))
    assert [("job-1", "offered", "the disk is full")] == scene.told


async def test_offer_is_checked_against_what_runs_in_the_end(scene: Scene) -> None:
    """An update that was confirmed while the offer waited may not permit what the bundle before it did."""
    scene.door.knock(desired())
    await scene.until(lambda: bool(scene.told))
    scene.running = "cd" * 32
    scene.checker.say("ab" * 32, None, SignatureError("a downgrade"))
    await scene.until(lambda: len(scene.told) == 2)
    assert ("job-1", "rejected", "a downgrade") == scene.told[-1]
    assert [("ab" * 32, None), ("ab" * 32, "cd" * 32)] == scene.checker.asked


async def test_surprise_is_a_refusal(scene: Scene) -> None:
    """Whatever an offer makes a library raise, the fleet hears of it."""
    scene.checker.say("ab" * 32, ValueError("what?"))
    scene.door.knock(desired())
    await scene.until(lambda: bool(scene.told))
    assert [("job-1", "rejected", "ValueError: what?")] == scene.told

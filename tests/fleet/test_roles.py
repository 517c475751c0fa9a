from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from edgeopt_contract.errors import StorageError
from edgeopt_fleet.leases import Role
from edgeopt_fleet.metrics import Metrics
from edgeopt_fleet.roles import Roles
from edgeopt_fleet.signals import News, Signals
from edgeopt_fleet.store.database import Address, Database
from edgeopt_fleet.store.leases import LeaseLostError, Leases
from edgeopt_fleet.store.tables import CohortRow
from tests.fleet.conftest import eventually


@dataclass
class Candidate:
    """One process's part in the contest for a role; its work writes again and again."""

    name: str
    database: Database
    signals: Signals = field(default_factory=Signals)
    metrics: Metrics = field(default_factory=Metrics)
    tenures: int = 0
    refused: int = 0
    broken: bool = False

    def roles(self, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> Roles:
        """Return its roles."""
        leases, works = Leases(self.database, owner=self.name, seconds=seconds), {Role.DRIFT: self.work}
        return Roles(leases, self.signals, self.metrics, works, note=lambda _: "well", clock=clock)

    async def work(self, guarded: Database) -> None:
        """Write, as a role does, until cancelled."""
        self.tenures += 1
        while True:
            try:
                with guarded.transaction(lock="cohorts") as session:
                    session.merge(CohortRow(name=self.name, tags={}))
                    if self.broken:
                        raise ArithmeticError("this process cannot do the work")
            except LeaseLostError:
                self.refused += 1
                raise
            await asyncio.sleep(0.02)

    def value(self, name: str, **labels: str) -> float:
        """Return one of its metrics."""
        return self.metrics.registry.get_sample_value(f"edgeopt_fleet_{name}", labels) or 0.0


@pytest.fixture
def contest(make_database: Callable[[], Database]) -> tuple[Candidate, Candidate]:
    """Two candidates over one database."""
    database = make_database()
    return Candidate("a", database), Candidate("b", database)


@contextlib.asynccontextmanager
async def running(roles: Roles) -> AsyncIterator[asyncio.Task[None]]:
    """Let roles run; they end in order at the end."""
    task = asyncio.create_task(roles.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_standby_begins_when_the_holder_ends_in_order(contest: tuple[Candidate, Candidate]) -> None:
    """It waits for no lease to run out: the role was handed back."""
    one, two = contest
    async with running(one.roles()) as first:
        await eventually(lambda: asyncio.sleep(0, one.tenures), "the first to work")
        async with running(two.roles()):
            await two.signals.send(News.LEASES)
            assert 0 == two.tenures
            first.cancel()
            await asyncio.wait([first])
            await two.signals.send(News.LEASES)  # in one process of PostgreSQL it would hear of it by itself
            await eventually(lambda: asyncio.sleep(0, two.tenures), "the standby to work")
            assert (0.0, 1.0) == (one.value("lease_held", role="drift"), two.value("lease_held", role="drift"))
            assert 1.0 == one.value("lease_changes_total", role="drift", change="released")


async def test_what_was_taken_over_is_neither_written_to_nor_worked_on(contest: tuple[Candidate, Candidate]) -> None:
    """The holder notices at its next write or renewal, whichever comes first, and its work is thrown away."""
    one, _ = contest
    async with running(one.roles(seconds=1.0)):
        await eventually(lambda: asyncio.sleep(0, one.tenures), "the first to work")
        thief = Leases(one.database, owner=one.name, seconds=60.0)  # as a second start of the same process
        taken = thief.acquire(Role.DRIFT)
        assert taken is not None
        lost = "lease_changes_total"
        await eventually(lambda: asyncio.sleep(0, one.value(lost, role="drift", change="lost")), "the loss")
        assert one.refused <= 1
        thief.release([taken])


async def test_work_that_fails_is_left_to_others(contest: tuple[Candidate, Candidate]) -> None:
    """Whoever cannot do the work, and hands the role on, asks again only when every standby has had its turn.

    A standby that hears no signal, as between two processes on SQLite, looks three times in the time of a lease. The
    clock of whoever failed is stopped at the end of that time: however often it is woken, it leaves the role alone.
    """
    one, two = contest
    seconds, now = 12.0, [1000.0]
    period = seconds / 3

    async def wake_one(until: Callable[[], bool]) -> bool:
        await one.signals.send(News.LEASES)  # as when another role is handed back
        return until()

    async with running(one.roles(seconds, clock=lambda: now[0])):
        await eventually(lambda: asyncio.sleep(0, one.tenures), "the first to work")
        one.broken = True
        failures = "role_failures_total"
        await eventually(lambda: wake_one(lambda: one.value(failures, role="drift") == 1.0), "the failure")
        now[0] += period
        async with running(two.roles(seconds)):
            await eventually(lambda: wake_one(lambda: two.tenures > 0), "the standby to work")
            assert 1 == one.tenures
            assert 0.0 == one.value("lease_held", role="drift")
            assert 1.0 == one.value("lease_changes_total", role="drift", change="failed")
        one.broken = False
        now[0] += period
        await eventually(lambda: wake_one(lambda: one.tenures == 2), "who failed to try again after everybody else")


async def test_who_failed_takes_the_role_again_when_nobody_else_does(contest: tuple[Candidate, Candidate]) -> None:
    """A lonely process goes on when what was broken is mended."""
    one, _ = contest
    one.broken = True
    async with running(one.roles(seconds=3.0)):
        await eventually(lambda: asyncio.sleep(0, one.value("role_failures_total", role="drift")), "the failure")
        one.broken = False
        await eventually(lambda: asyncio.sleep(0, one.tenures >= 2), "another try")
        assert 1.0 == one.value("lease_held", role="drift")


async def test_a_lease_tells_what_its_holder_says_of_itself(contest: tuple[Candidate, Candidate]) -> None:
    """Other processes read it there: whether the devices are heard, for one. Nothing is left when it is handed back."""
    one, two = contest
    readers = Leases(two.database, owner=two.name, seconds=3.0)
    async with running(one.roles(seconds=3.0)):
        await eventually(lambda: asyncio.sleep(0, one.tenures), "the first to work")
        await eventually(lambda: asyncio.sleep(0, readers.standing()[0][Role.DRIFT].note == "well"), "the note")
    left = readers.standing()[0][Role.DRIFT]
    assert ("", "") == (left.owner, left.note)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
async def test_news_reach_other_processes(new_address: Callable[[], Address]) -> None:
    """What one says is heard by another that waits, long before its next look."""
    address = str(new_address())
    speaker, listener = Signals(address), Signals(address)
    looks: list[int] = []

    async def look() -> None:
        looks.append(len(looks))

    tasks = [
        asyncio.create_task(listener.run()),
        asyncio.create_task(listener.repeat(look, News.DESIRED, 3600.0)),
    ]
    await eventually(lambda: asyncio.sleep(0, len(looks) >= 2), "the listener to be connected")  # it looks again then
    before = len(looks)
    await speaker.send(News.USERS)
    await speaker.send(News.DESIRED)
    await eventually(lambda: asyncio.sleep(0, len(looks) > before), "the news")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_news_that_come_during_a_look_are_looked_at_again() -> None:
    """Else an order given in that moment would wait for the next tick."""
    signals = Signals()
    looks: list[int] = []

    async def look() -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            await signals.send(News.ROLLOUTS)

    task = asyncio.create_task(signals.repeat(look, News.ROLLOUTS, 3600.0))
    await eventually(lambda: asyncio.sleep(0, len(looks) == 2), "the second look")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("wait", ["wait", "repeat"])
async def test_whoever_is_ended_in_the_moment_of_news_ends(wait: str) -> None:
    """Else SIGTERM and a signal at one moment would leave a process that never ends."""
    signals = Signals()

    async def look() -> None:
        pass

    async def work() -> None:
        while True:
            await (signals.wait(News.LEASES, 3600.0) if wait == "wait" else signals.repeat(look, News.LEASES, 3600.0))

    task = asyncio.create_task(work())
    for _ in range(10):  # turns of the loop, until it waits
        await asyncio.sleep(0)
    signals.wake(News.LEASES)
    await asyncio.sleep(0)  # the event's waiter is done, and the task has not run since
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=30)
    assert {task} == done
    assert task.cancelled()


async def test_a_failing_look_is_tried_again_but_not_after_the_role_is_lost() -> None:
    """A database that fails comes back; a lease does not."""
    signals = Signals()
    answers: list[Exception] = [StorageError("full"), LeaseLostError("gone")]

    async def look() -> None:
        raise answers.pop(0)

    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(signals.repeat(look, None, 0.01), 60)

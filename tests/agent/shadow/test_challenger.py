"""A challenger without an agent around it: what it sees, passes over, and how it waits; with a real runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from edgeopt_agent.inference.health import HealthLimits
from edgeopt_agent.inference.served import ServedOptions
from edgeopt_agent.inference.supervisor import RunnerOptions
from edgeopt_agent.reports.books import Books
from edgeopt_agent.runner.arrays import tensor_of
from edgeopt_agent.shadow.challenger import Challenger
from edgeopt_agent.shadow.transitions import Event
from edgeopt_agent.update.slots import SHADOW
from edgeopt_contract.agreement import AGREED, AGREEMENT, CHAMPION_LATENCY, DISAGREED, INCOMPARABLE, SAMPLING
from edgeopt_contract.manifest import Capabilities
from tests.agent.bench import Bench
from tests.tiny import POISON, Recipe, samples, softmax, weights_of

pytestmark = pytest.mark.timeout(60)
OPTIONS = RunnerOptions(infer_timeout_seconds=2)


class Trying:
    """A challenger beside a champion that never runs here: its answers are made up."""

    def __init__(self, root: Path, capabilities: Capabilities, recipe: Recipe) -> None:
        self.bench = Bench(root, capabilities, OPTIONS)
        champion = self.bench.install("a", Recipe())
        installed = self.bench.install(SHADOW, recipe)
        self.clock = 0.0
        self.books: Books = self.bench.books
        counts = self.books.open(installed, "shadow-1")
        options = ServedOptions(runner=OPTIONS, limits=HealthLimits(crashes=2), queue_limit=1)
        self.challenger = Challenger(installed, champion, counts, options, lambda: self.clock)

    async def see(self, row: np.ndarray, answer: np.ndarray) -> None:
        """Let it see an answer, and wait until it has compared or passed over it."""
        self.challenger.saw([tensor_of("x", row)], [tensor_of("p", answer)], 100.0)
        await self.idle()

    async def idle(self) -> None:
        """Return when nothing is under way."""
        async with asyncio.timeout(20):
            while not self.challenger.is_idle:  # noqa: ASYNC110  # the challenger tells nobody when it is idle
                await asyncio.sleep(0.01)

    def cells(self, name: str) -> tuple[int, ...]:
        """Return what is counted of a feature."""
        self.challenger.tick()
        layout, cells = self.challenger.counts.layout, self.challenger.counts.snapshot()
        end = len(cells)
        for feature, size in reversed(layout.features):
            if feature == name:
                return tuple(cells[end - size : end])
            end -= size
        raise KeyError(name)


@pytest.fixture
async def trying(tmp_path: Path, capabilities: Capabilities) -> AsyncIterator[Trying]:
    """A challenger that runs."""
    trying = Trying(tmp_path, capabilities, Recipe(version="2", poison_gives_nan=True))
    assert [] == await trying.challenger.start()
    trying.challenger.begin(1.0)
    yield trying
    await trying.challenger.stop()
    await trying.bench.stop()


ROW = samples(5, 1)[0]
OURS = softmax(ROW[np.newaxis] @ weights_of(Recipe()))[0]


async def test_same_other_and_no_comparable_answers(trying: Trying) -> None:
    """The same top-1; another; another shape, NaN on either side, an output that it does not have."""
    await trying.see(ROW, OURS)
    await trying.see(ROW, np.roll(OURS, 1))
    for answer in (OURS[:2], np.full(3, np.nan, np.float32)):
        await trying.see(ROW, answer)
    await trying.see(np.full(4, POISON, np.float32), OURS)
    trying.challenger.saw([tensor_of("x", ROW)], [tensor_of("q", OURS)], 100.0)
    await trying.idle()
    counted = trying.cells(AGREEMENT)
    assert (1, 1, 4) == (counted[AGREED], counted[DISAGREED], counted[INCOMPARABLE])
    assert 6 == sum(trying.cells(CHAMPION_LATENCY))


async def test_batch_counts_each_row(trying: Trying) -> None:
    """Three samples at once: three rows, of which the champion took a third of the time each."""
    rows = samples(6, 3)
    answers = softmax(rows @ weights_of(Recipe()))
    answers[1] = np.roll(answers[1], 1)
    await trying.see(rows, answers)
    assert (2, 1, 0) == trying.cells(AGREEMENT)[:3]
    assert 3 == trying.cells(CHAMPION_LATENCY)[5]  # 33 µs: above 31.6, below 42.2


async def test_large_tensors_go_through_shared_memory_and_beyond_it_through_the_pipe(
    tmp_path: Path, capabilities: Capabilities
) -> None:
    """Inputs and expected outputs lie in one half; what is too large for that follows the request."""
    width = 100_000
    trying = Trying(tmp_path, capabilities, Recipe(version="2", inputs=width, sharpness=0.01))
    assert [] == await trying.challenger.start()
    trying.challenger.begin(1.0)
    weights = weights_of(Recipe(inputs=width, sharpness=0.01))
    for seed, count in ((1, 1), (2, 8)):  # 0.4 MB and 3.2 MB
        rows = samples(seed, count, width)
        await trying.see(rows, softmax(rows @ weights))
    assert (9, 0, 0) == trying.cells(AGREEMENT)[:3]
    await trying.challenger.stop()
    await trying.bench.stop()


async def test_what_comes_while_it_is_busy_is_passed_over(trying: Trying) -> None:
    """One is under way, and nothing waits."""
    for _ in range(5):
        trying.challenger.saw([tensor_of("x", ROW)], [tensor_of("p", OURS)], 100.0)
    await trying.idle()
    assert (1, 4) == (sum(trying.cells(AGREEMENT)[:3]), trying.cells(SAMPLING)[0])


async def test_pause_counts_its_seconds_and_nothing_is_seen(trying: Trying) -> None:
    """Fractions of a second add up; afterwards it goes on where it was."""
    await trying.challenger.pause("the CPU is held back")
    assert {"paused": "the CPU is held back"} == trying.challenger.counts.notes
    trying.clock = 1.6
    await trying.see(ROW, OURS)
    trying.challenger.resume()
    await trying.challenger.pause("again")
    trying.clock = 2.5
    trying.challenger.resume()
    assert ({}, (0, 2)) == (trying.challenger.counts.notes, trying.cells(SAMPLING))
    async with asyncio.timeout(20):
        while not sum(trying.cells(AGREEMENT)):
            await trying.see(ROW, OURS)
            await asyncio.sleep(0.05)


async def test_pause_amid_a_comparison_is_no_fault(trying: Trying) -> None:
    """What it was comparing is given up; neither an error nor a crash is counted."""
    trying.challenger.saw([tensor_of("x", ROW)], [tensor_of("p", OURS)], 100.0)
    await asyncio.sleep(0.003)
    await trying.challenger.pause("an update is being tested")
    await trying.idle()
    assert 0 == trying.challenger.counts.snapshot()[3]
    assert not trying.challenger.ended.done()


async def test_answers_without_numbers_end_it(trying: Trying) -> None:
    """NaN where the golden outputs hold none, again and again: the shadow is at fault, and says so."""
    poison = np.full(4, POISON, np.float32)
    for _ in range(30):
        await trying.see(poison, OURS)
    happened = await asyncio.wait_for(trying.challenger.ended, 5)
    assert Event.FAULT is happened.event
    assert "NaN" in happened.detail


async def test_another_champion_ends_it(trying: Trying) -> None:
    """The same one again, or none for a moment, does not."""
    trying.challenger.champion_changed(None)
    trying.challenger.champion_changed(trying.challenger.champion)
    assert not trying.challenger.ended.done()
    trying.challenger.champion_changed("f" * 64)
    assert Event.OVERTAKEN is (await trying.challenger.ended).event

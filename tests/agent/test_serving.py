"""Serving with real runners: switches, counts, crashes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from edgeopt_agent.serving import NotServingError, Served, Serving, ServingOptions
from edgeopt_agent.slots import Installed, Slots
from edgeopt_agent.spool import Spool
from edgeopt_agent.supervisor import RunnerCrashError, RunnerOptions
from edgeopt_contract.blocks import Block
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError, DataError
from edgeopt_contract.manifest import Capabilities
from edgeopt_contract.messages import Telemetry
from edgeopt_contract.profile import FeatureSpec, ReferenceFeature, Source, Summary
from tests.agent.conftest import blocks_of
from tests.tiny import POISON, Recipe, samples, tiny_bundle

ROW = samples(1, 1)[0]


class Bench:
    """Serving over two filled slots."""

    def __init__(self, root: Path, capabilities: Capabilities) -> None:
        self.slots = Slots(root / "slots", capabilities)
        self.slots.prepare()
        self.root = root
        self.spool = Spool.open(root / "agent.db", now_ms=1)
        self.faults: list[str] = []
        options = ServingOptions(runner=RunnerOptions(infer_timeout_seconds=0.3), crash_limit=2)
        self.serving = Serving(options, self.spool, root, self.faults.append)

    def install(self, slot: str, recipe: Recipe) -> Installed:
        """Fill a slot."""
        bundle = tiny_bundle(self.root / f"bundle-{slot}-{recipe.version}", recipe)
        blocks = blocks_of(bundle)

        def read(block: Block) -> bytes:
            return blocks[block.sha256]

        return self.slots.fill(slot, blocks[bundle.digest], read)

    def windows(self) -> list[Telemetry]:
        """What was spooled."""
        return [decode(Telemetry, message.payload) for message in self.spool.unacknowledged(100)]


@pytest.fixture
async def bench(tmp_path: Path, capabilities: Capabilities) -> AsyncIterator[Bench]:
    """Slot a serves version 1."""
    bench = Bench(tmp_path, capabilities)
    await bench.serving.start(bench.install("a", Recipe(version="1")))
    yield bench
    await bench.serving.stop()
    bench.spool.close()


async def test_nothing_installed_is_said(tmp_path: Path, capabilities: Capabilities) -> None:
    """Without a bundle a request is refused, and nothing is counted."""
    bench = Bench(tmp_path, capabilities)
    with pytest.raises(NotServingError, match="no bundle is installed"):
        await bench.serving.infer(ROW)
    bench.serving.close_window()
    await bench.serving.stop()
    assert [] == bench.windows()
    bench.spool.close()


async def test_answers_are_those_of_the_model(bench: Bench) -> None:
    """The output has no batch dimension and is named with its bundle."""
    inference = await bench.serving.infer({"x": ROW})
    assert (bench.serving.running, (3,)) == (inference.bundle, inference.outputs["p"].shape)


async def test_self_test_tells_good_from_wrong(bench: Bench) -> None:
    """Golden outputs that fit pass; rolled ones are named."""
    assert bench.serving.current is not None
    assert [] == await bench.serving.current.self_test()
    candidate = await bench.serving.load_candidate(bench.install("b", Recipe(version="2", golden_error=True)))
    (problem,) = await candidate.self_test()
    assert "mean difference" in problem


async def test_switch_closes_the_window_and_can_be_undone(bench: Bench) -> None:
    """Each bundle's rows stand in its own windows; going back needs no loading."""
    old = bench.serving.running
    old_pid = bench.serving.current and bench.serving.current.runner_pid
    await bench.serving.infer(ROW)
    new = (await bench.serving.load_candidate(bench.install("b", Recipe(version="2")))).installed.digest
    await bench.serving.infer(ROW)
    await bench.serving.promote()
    await bench.serving.infer(ROW)

    assert await bench.serving.go_back("a")

    assert (old, old_pid) == (bench.serving.running, bench.serving.current and bench.serving.current.runner_pid)
    await bench.serving.infer(ROW)
    await bench.serving.stop()
    assert [(old, 2), (new, 1), (old, 1)] == [(window.bundle, window.rows) for window in bench.windows()]


async def test_going_back_after_the_commit_reports_that_it_cannot(bench: Bench) -> None:
    """Once the old runner is gone the caller must load the slot; until then nothing answers."""
    await bench.serving.load_candidate(bench.install("b", Recipe(version="2")))
    await bench.serving.promote()
    await bench.serving.commit()
    assert not await bench.serving.go_back("a")
    assert bench.serving.running is None


async def test_errors_are_counted_by_bundle(bench: Bench) -> None:
    """An input that does not fit and a crash are errors; requests since the switch are counted apart."""
    with pytest.raises(DataError):
        await bench.serving.infer(np.zeros(5))
    await bench.serving.infer(ROW)
    assert (2, 1, 0) == bench.serving.since_switch()
    bench.serving.close_window()
    assert [(1, 1)] == [(window.rows, window.errors) for window in bench.windows()]


async def test_runner_that_crashes_again_and_again_is_a_fault(bench: Bench) -> None:
    """After the limit of crashes in a row the life cycle is told; a good answer in between starts the count anew."""
    await bench.serving.start(bench.install("b", Recipe(version="2", poisonable=True)))
    poison = np.full(4, POISON, np.float32)
    with pytest.raises(RunnerCrashError):
        await bench.serving.infer(poison)
    await bench.serving.infer(ROW)
    with pytest.raises(RunnerCrashError):
        await bench.serving.infer(poison)
    assert [] == bench.faults
    with pytest.raises(RunnerCrashError):
        await bench.serving.infer(poison)
    assert ["2 runner crashes in a row: the runner crashed: no answer within 0.3 s"] == bench.faults
    assert (4, 3, 3) == bench.serving.since_switch()


async def test_runner_killed_from_outside_comes_back(bench: Bench) -> None:
    """The next request meets a crash at most, the one after it is answered by a new process."""
    served = bench.serving.current
    assert served is not None
    assert served.runner_pid is not None
    old = served.runner_pid
    os.kill(old, signal.SIGKILL)
    for _ in range(2):
        try:
            await bench.serving.infer(ROW)
        except RunnerCrashError:
            continue
    await bench.serving.infer(ROW)
    assert served.runner_pid not in (None, old)


async def test_window_stays_open_while_the_spool_is_full(bench: Bench) -> None:
    """No count is lost when nothing can be sent: the window grows longer instead."""
    bench.spool._limit = 1
    await bench.serving.infer(ROW)
    bench.serving.close_window()
    await bench.serving.infer(ROW)
    bench.serving.close_window()
    assert [1] == [window.rows for window in bench.windows()]
    bench.spool._limit = 10
    await bench.serving.infer(ROW)
    bench.serving.close_window()
    assert [1, 2] == [window.rows for window in bench.windows()]


async def test_loading_other_bytes_than_the_manifest_names_is_an_error(bench: Bench) -> None:
    """The digest that the loading process reports decides, not the one the agent once computed."""
    installed = bench.install("b", Recipe(version="2"))
    model = installed.directory / installed.model.path
    model.write_bytes(
        tiny_bundle(bench.root / "other", Recipe(poisonable=True)).directory.joinpath("fp32.onnx").read_bytes()
    )
    served = Served(installed, RunnerOptions())
    with pytest.raises(BundleError, match="expected SHA-256"):
        await served.start()
    await served.stop()


async def test_profile_of_too_many_cells_still_counts_rows(bench: Bench) -> None:
    """A window that is too large to send goes without its cells rather than not at all."""
    served = bench.serving.current
    assert served is not None
    edges = tuple(float(edge) for edge in range(40_000))
    spec = FeatureSpec(name="many", source=Source.INPUT, tensor="x", summary=Summary.MEAN, edges=edges)
    served._features = (ReferenceFeature(spec=spec, counts=(0,) * spec.cells, mean=0, std=1),)
    served.window = served.new_window()
    await bench.serving.infer(ROW)
    bench.serving.close_window()
    assert [(1, {})] == [(window.rows, window.cells) for window in bench.windows()]

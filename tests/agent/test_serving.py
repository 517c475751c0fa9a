"""Serving with real runners: switches, counts, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt_agent.inference.served import NotServingError, RestartingError
from edgeopt_agent.inference.serving import Inference
from edgeopt_agent.inference.supervisor import RunnerCrashError, RunnerOptions
from edgeopt_agent.reports.counts import boot_id
from edgeopt_agent.reports.spool import Spool
from edgeopt_agent.tasks import end_tasks
from edgeopt_contract.errors import BundleError, DataError
from edgeopt_contract.manifest import Capabilities
from tests.agent.bench import ROW, Bench, array, tensors
from tests.tiny import POISON, Recipe, samples, tiny_bundle

POISONOUS = tensors(np.full(4, POISON, np.float32))


@pytest.fixture
async def bench(tmp_path: Path, capabilities: Capabilities) -> AsyncIterator[Bench]:
    """Slot a serves version 1."""
    async with serving_bench(tmp_path, capabilities, RunnerOptions()) as bench:
        yield bench


@contextlib.asynccontextmanager
async def serving_bench(root: Path, capabilities: Capabilities, runner: RunnerOptions) -> AsyncIterator[Bench]:
    """Slot a serves version 1 until the block ends."""
    bench = Bench(root, capabilities, runner)
    await bench.serving.start(bench.install("a", Recipe(version="1")))
    yield bench
    await bench.stop()


@pytest.fixture
async def hasty(tmp_path: Path, capabilities: Capabilities) -> AsyncIterator[Bench]:
    """The same, but a request may take no longer than a second."""
    async with serving_bench(tmp_path, capabilities, RunnerOptions(infer_timeout_seconds=1)) as bench:
        yield bench


async def test_nothing_installed_is_said(tmp_path: Path, capabilities: Capabilities) -> None:
    """Without a bundle a request is refused, and nothing is counted."""
    bench = Bench(tmp_path, capabilities, RunnerOptions())
    with pytest.raises(NotServingError, match="no bundle is installed"):
        await bench.serving.infer(tensors(ROW))
    await bench.serving.close_window()
    assert [] == bench.windows()
    await bench.stop()


async def test_answers_are_those_of_the_model(bench: Bench) -> None:
    """The output has no batch dimension and is named with its bundle."""
    inference = await bench.serving.infer(tensors(ROW))
    assert (bench.serving.running, (3,)) == (inference.bundle, array(inference.outputs).shape)


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
    await bench.serving.infer(tensors(ROW))
    new = (await bench.serving.load_candidate(bench.install("b", Recipe(version="2")))).installed.digest
    await bench.serving.infer(tensors(ROW))
    await bench.serving.promote()
    await bench.serving.infer(tensors(ROW))

    assert await bench.serving.go_back("a")

    assert (old, old_pid) == (bench.serving.running, bench.serving.current and bench.serving.current.runner_pid)
    await bench.serving.infer(tensors(ROW))
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
        await bench.serving.infer(tensors(np.zeros(5)))
    await bench.serving.infer(tensors(ROW))
    assert (2, 1, 0) == bench.serving.since_switch()
    await bench.serving.close_window()
    assert [(1, 1)] == [(window.rows, window.errors) for window in bench.windows()]


async def test_runner_that_crashes_again_and_again_is_a_fault(hasty: Bench) -> None:
    """After the limit of crashes in a row the life cycle is told; a good answer in between starts the count anew."""
    bench = hasty
    await bench.serving.start(bench.install("b", Recipe(version="2", poisonable=True)))
    for request in (POISONOUS, tensors(ROW), POISONOUS, POISONOUS):
        assert [] == bench.faults
        async with asyncio.timeout(20):
            await bench.serving.wait_until_serving()
        try:
            await bench.serving.infer(request)
        except RunnerCrashError:
            assert request is POISONOUS
    assert ["2 runner crashes in a row: the runner crashed: no answer within 1 s"] == bench.faults
    assert (4, 3, 3) == bench.serving.since_switch()


async def test_requests_are_refused_at_once_while_the_runner_is_away(bench: Bench) -> None:
    """The request that meets the crash fails, the next ones are refused at once, until a new process answers."""
    served = bench.serving.current
    assert served is not None
    assert served.runner_pid is not None
    old = served.runner_pid
    os.kill(old, signal.SIGKILL)
    with pytest.raises((RunnerCrashError, RestartingError)):
        await bench.serving.infer(tensors(ROW))
    with pytest.raises(
        RestartingError, match="tiny cannot answer now: its runner is being started again after 1 crash"
    ):
        await bench.serving.infer(tensors(ROW))
    async with asyncio.timeout(20):
        await bench.serving.wait_until_serving()
    await bench.serving.infer(tensors(ROW))
    assert served.runner_pid not in (None, old)


async def test_runner_that_dies_while_nobody_asks_is_replaced(bench: Bench) -> None:
    """No request is spent on finding out."""
    served = bench.serving.current
    assert served is not None
    assert served.runner_pid is not None
    os.kill(served.runner_pid, signal.SIGSEGV)
    async with asyncio.timeout(20):
        while served.health.crashes_in_all == 0:  # noqa: ASYNC110  # there is no event for what a test looks at
            await asyncio.sleep(0.002)
        await bench.serving.wait_until_serving()
    await bench.serving.infer(tensors(ROW))
    assert (1, 0, 1) == bench.serving.since_switch()


async def test_daily_self_test_tells_what_is_wrong(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A good bundle passes; one whose outputs changed is a fault."""
    caplog.set_level("INFO", "edgeopt_agent")
    await bench.serving.start(installed := bench.install("b", Recipe(version="2")))
    daily = asyncio.create_task(bench.serving.test_daily(0.05))
    async with asyncio.timeout(20):
        while caplog.text.count('"event":"self_test"') < 2:  # noqa: ASYNC110  # a log line gives no event
            await asyncio.sleep(0.002)
    assert [] == bench.faults
    other = tiny_bundle(bench.root / "other", Recipe(golden_error=True))
    (installed.directory / "golden.npz").write_bytes((other.directory / "golden.npz").read_bytes())
    async with asyncio.timeout(20):
        while not bench.faults:  # noqa: ASYNC110  # there is no event for what a test looks at
            await asyncio.sleep(0.002)
    await end_tasks([daily])
    assert "daily self-test: p: expected a mean difference" in bench.faults[0]


async def test_restarted_runner_is_tested_before_it_answers(bench: Bench) -> None:
    """A runner that comes back with other outputs answers nobody, and is a fault after some tries."""
    installed = bench.install("b", Recipe(version="2"))
    await bench.serving.start(installed)
    other = tiny_bundle(bench.root / "other", Recipe(golden_error=True))
    (installed.directory / "golden.npz").write_bytes((other.directory / "golden.npz").read_bytes())
    assert bench.serving.current is not None
    assert bench.serving.current.runner_pid is not None
    os.kill(bench.serving.current.runner_pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while not bench.faults:
            with contextlib.suppress(RunnerCrashError, RestartingError):
                await bench.serving.infer(tensors(ROW))
                pytest.fail("it answered")
            await asyncio.sleep(0.002)
    assert "self-test after a restart" in bench.faults[0]


async def test_device_without_room_for_two_stops_the_old_runner_first(
    tmp_path: Path, capabilities: Capabilities
) -> None:
    """Requests that wait are answered, later ones are refused with the reason; a bad candidate gives the place back."""
    bench = Bench(tmp_path, capabilities, RunnerOptions(), one_runner=True)
    await bench.serving.start(bench.install("a", Recipe(version="1")))
    old = bench.serving.running
    waiting = [asyncio.create_task(bench.serving.infer(tensors(ROW))) for _ in range(20)]
    await asyncio.sleep(0)
    candidate = await bench.serving.load_candidate(bench.install("b", Recipe(version="2", golden_error=True)))
    assert {old} == {inference.bundle for inference in await asyncio.gather(*waiting)}
    assert bench.serving.current is not None
    assert bench.serving.current.runner_pid is None
    with pytest.raises(RestartingError, match="no memory for two models"):
        await bench.serving.infer(tensors(ROW))
    assert await candidate.self_test()
    assert await bench.serving.go_back("a")
    async with asyncio.timeout(20):
        await bench.serving.wait_until_serving()
    assert old == (await bench.serving.infer(tensors(ROW))).bundle

    await bench.serving.load_candidate(bench.install("b", Recipe(version="3")))
    await bench.serving.promote()
    await bench.serving.commit()
    assert old != (await bench.serving.infer(tensors(ROW))).bundle
    await bench.stop()


async def test_window_stays_open_while_the_spool_is_full(bench: Bench) -> None:
    """No count is lost when nothing can be sent: the window grows longer instead."""
    await bench.serving.infer(tensors(ROW))
    await bench.serving.close_window()
    spool = bench.clerk.spool
    limit, spool._limit_bytes = spool._limit_bytes, 0
    await bench.serving.infer(tensors(ROW))
    await bench.serving.close_window()
    assert [1] == [window.rows for window in bench.windows()]
    spool._limit_bytes = limit
    await bench.serving.infer(tensors(ROW))
    await bench.serving.close_window()
    assert [1, 2] == [window.rows for window in bench.windows()]


async def test_full_disk_stops_no_answer_and_loses_no_count(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The window goes on in the counts' file, which is said once; when there is room again it is told whole."""
    caplog.set_level("INFO", "edgeopt_agent")
    pages = await bench.clerk.do(bench.clerk.spool._pragma, "page_count")
    await bench.clerk.do(bench.clerk.spool._pragma, f"max_page_count={pages}")  # SQLite's own way to a full disk
    for _ in range(30):
        await bench.serving.infer(tensors(ROW))
        await bench.serving.close_window()
    kept = sum(window.rows for window in bench.windows())
    assert kept < 30
    assert 1 == caplog.text.count("window_not_kept")

    await bench.clerk.do(bench.clerk.spool._pragma, "max_page_count=100000")
    await bench.serving.close_window()

    assert 30 == sum(window.rows for window in bench.windows())
    assert 1 == caplog.text.count("windows_kept_again")


async def test_loading_other_bytes_than_the_manifest_names_is_an_error(bench: Bench) -> None:
    """The digest that the loading process reports decides, not the one the agent once computed."""
    installed = bench.install("b", Recipe(version="2"))
    model = installed.directory / installed.model.path
    model.write_bytes(
        tiny_bundle(bench.root / "other", Recipe(poisonable=True)).directory.joinpath("fp32.onnx").read_bytes()
    )
    with pytest.raises(BundleError, match="expected SHA-256"):
        await bench.serving.load_candidate(installed)
    assert bench.serving.candidate is None


async def test_profile_of_too_many_cells_still_counts_rows(bench: Bench) -> None:
    """A window that is too large to send goes without its cells rather than not at all."""
    edges = tuple(float(edge) for edge in range(40_000))
    await bench.serving.start(bench.install("b", Recipe(version="2", edges=edges)))
    await bench.serving.infer(tensors(ROW))
    await bench.serving.close_window()
    assert [(0, 3), (1, 0)] == [(window.rows, len(window.cells)) for window in bench.windows()]


async def test_batch_comes_back_as_a_batch_and_counts_its_rows(bench: Bench) -> None:
    """One axis more than the signature is a batch: each row gives what it gives alone."""
    rows = samples(3, 5)
    batch = array((await bench.serving.infer(tensors(rows))).outputs)
    singly = [array((await bench.serving.infer(tensors(row, ""))).outputs) for row in rows]
    assert np.array_equal(singly, batch)
    with pytest.raises(DataError):
        await bench.serving.infer(tensors(np.zeros((7, 5))))
    assert bench.serving.current is not None
    await bench.serving.current.settle()
    await bench.serving.close_window()
    (window,) = bench.windows()
    assert (10, 7, 10) == (window.rows, window.errors, sum(window.latency))
    assert {10} == {sum(cells) for cells in window.cells.values()}


async def test_runner_killed_after_its_answer_has_counted_all_but_that_one(bench: Bench) -> None:
    """Rows and errors are what was asked; of the features at most the answer that had just left is missing."""
    kills, asked = 6, 0
    for number in range(kills):
        served = bench.serving.current
        assert served is not None
        async with asyncio.timeout(30):
            await bench.serving.wait_until_serving()
        for _ in range(number):
            await bench.serving.infer(tensors(ROW))
        asked += number
        assert served.runner_pid is not None
        os.kill(served.runner_pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while served.health.crashes_in_all == number:  # noqa: ASYNC110  # there is no event for what a test looks at
                await asyncio.sleep(0.002)
    await bench.serving.stop()
    assert (asked, 0) == (
        sum(window.rows for window in bench.windows()),
        sum(window.errors for window in bench.windows()),
    )
    for counted in zip(*(window.cells.values() for window in bench.windows()), strict=True):
        assert 0 <= asked - sum(map(sum, counted)) <= kills


async def test_last_answers_belong_to_their_bundle(bench: Bench) -> None:
    """A switch and a stop wait until what was answered is counted: all rows have all their features."""
    for request in range(20):
        await bench.serving.infer(tensors(samples(request, 64)))
        if request % 5 == 4:
            await bench.serving.load_candidate(bench.install("ab"[request % 2], Recipe(version=str(request))))
            await bench.serving.promote()
            await bench.serving.commit()
    await bench.serving.infer(tensors(samples(1, 64)))
    await bench.serving.stop()
    told = [(window.rows, sum(cells)) for window in bench.windows() for cells in window.cells.values()]
    assert {(5 * 64, 5 * 64), (64, 64)} == set(told)


async def test_counts_survive_an_agent_that_is_killed(tmp_path: Path, capabilities: Capabilities) -> None:
    """What was counted and not told is told once by the next agent, in the bundle's name; nothing is told twice."""
    first = Bench(tmp_path, capabilities, RunnerOptions())
    await first.serving.start(first.install("a", Recipe(version="1")))
    await first.serving.infer(tensors(ROW))
    await first.serving.close_window()
    for _ in range(3):
        await first.serving.infer(tensors(ROW))
    with pytest.raises(DataError):
        await first.serving.infer(tensors(np.zeros(5)))
    digest = first.serving.running
    await first.vanish()

    second = Bench(tmp_path, capabilities, RunnerOptions())
    await second.serving.close_window()
    await second.serving.close_window()
    assert [(digest, 1, 0), (digest, 3, 1)] == [(w.bundle, w.rows, w.errors) for w in second.windows()]
    assert [] == list((tmp_path / "counts").iterdir())
    await second.stop()


async def test_counts_of_another_boot_are_not_told(tmp_path: Path, capabilities: Capabilities) -> None:
    """After a power cut the file may hold anything: it begins again at zero."""
    bench = Bench(tmp_path, capabilities, RunnerOptions())
    await bench.serving.start(bench.install("a", Recipe(version="1")))
    await bench.serving.infer(tensors(ROW))
    await bench.vanish()
    (path,) = (tmp_path / "counts").iterdir()
    path.write_bytes(path.read_bytes().replace(boot_id().encode(), b"another".ljust(len(boot_id()))))

    second = Bench(tmp_path, capabilities, RunnerOptions())
    await second.serving.close_window()
    assert [] == second.windows()
    await second.serving.start(second.slots.open("a"))
    await second.stop()
    assert [0] == [window.rows for window in second.seen]


async def test_no_request_is_lost_during_a_switch(bench: Bench) -> None:
    """A thousand requests while the bundle changes: each is answered, and labelled with the digest that made it."""
    old = bench.serving.running
    expected = {old: array((await bench.serving.infer(tensors(ROW))).outputs)}
    answers: list[Inference] = []

    async def ask(count: int) -> None:
        answers.extend([await bench.serving.infer(tensors(ROW)) for _ in range(count)])

    callers = [asyncio.create_task(ask(100)) for _ in range(10)]
    await bench.serving.load_candidate(bench.install("b", Recipe(version="2", sharpness=1.0)))
    assert bench.serving.running == old
    await bench.serving.promote()
    await bench.serving.commit()
    new = bench.serving.running
    answers.append(last := await bench.serving.infer(tensors(ROW)))
    expected[new] = array(last.outputs)
    await asyncio.gather(*callers)
    assert 1001 == len(answers)
    assert all(np.array_equal(expected[answer.bundle], array(answer.outputs)) for answer in answers)
    assert not np.array_equal(expected[old], expected[new])


async def test_disk_that_refuses_the_file_stops_no_answer_and_loses_no_count(
    tmp_path: Path, capabilities: Capabilities, caplog: pytest.LogCaptureFixture
) -> None:
    """Counts lie in memory then, are told, and lie in a file again at the next start."""
    (tmp_path / "counts").write_text("no directory")  # no file can be made in it, not even by root
    bench = Bench(tmp_path, capabilities, RunnerOptions())
    await bench.serving.start(bench.install("a", Recipe(version="1")))
    await bench.serving.infer(tensors(ROW))
    await bench.serving.close_window()
    await bench.serving.infer(tensors(ROW))
    await bench.stop()
    assert [1, 1] == [window.rows for window in bench.seen]
    counted = zip(*(window.cells.values() for window in bench.seen), strict=True)  # of each feature, window by window
    assert {2} == {sum(map(sum, cells)) for cells in counted}
    assert 1 == caplog.text.count("counts_in_memory")

    (tmp_path / "counts").unlink()
    again = Bench(tmp_path, capabilities, RunnerOptions())
    await again.serving.start(again.install("a", Recipe(version="1")))
    assert 1 == len(list((tmp_path / "counts").iterdir()))
    await again.stop()


async def test_file_that_the_runner_cannot_map_stops_no_answer_and_loses_no_count(bench: Bench) -> None:
    """The counts move to memory as they are, with what is untold; they leave no file to be told again."""
    served = bench.serving.current
    assert served is not None
    assert served.runner_pid is not None
    await bench.serving.infer(tensors(ROW))
    served.counts.path.unlink()
    os.kill(served.runner_pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        while not served.health.crashes_in_all:  # noqa: ASYNC110  # there is no event for what a test looks at
            await asyncio.sleep(0.002)
        await bench.serving.wait_until_serving()
    await bench.serving.infer(tensors(ROW))
    assert (2, 0, 1) == bench.serving.since_switch()
    await bench.serving.stop()
    assert [(2, 0)] == [(window.rows, window.errors) for window in bench.windows()]
    assert [] == list((bench.root / "counts").iterdir())


async def test_untold_counts_that_cannot_be_read_are_told_later(tmp_path: Path, capabilities: Capabilities) -> None:
    """A disk that refuses once does not make them lost: they are looked at again with the next window."""
    first = Bench(tmp_path, capabilities, RunnerOptions())
    await first.serving.start(first.install("a", Recipe(version="1")))
    await first.serving.infer(tensors(ROW))
    await first.serving.close_window()
    await first.serving.infer(tensors(ROW))
    await first.vanish()
    (path,) = (tmp_path / "counts").iterdir()
    content = path.read_bytes()
    path.unlink()
    path.mkdir()  # which nobody can open as a file

    second = Bench(tmp_path, capabilities, RunnerOptions())
    await second.serving.start(second.install("b", Recipe(version="2")))
    await second.serving.infer(tensors(ROW))
    await second.serving.close_window()
    path.rmdir()
    path.write_bytes(content)
    await second.serving.close_window()
    await second.serving.close_window()
    told = [(window.variant, window.rows) for window in second.windows() if window.rows]
    assert [1, 1, 1] == [rows for _, rows in told]
    assert not path.exists()
    await second.stop()


async def test_counts_older_than_what_was_told_are_not_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that was taken away loses counts, which are not synced, and keeps marks: the next window goes on there."""
    served = bench.serving.current
    assert served is not None
    older = served.counts.path.read_bytes()
    await bench.serving.infer(tensors(ROW))
    await bench.serving.close_window()
    with served.counts.path.open("r+b") as file:
        file.write(older)
    await bench.serving.close_window()
    await bench.serving.infer(tensors(ROW))
    await bench.serving.close_window()
    assert [1, 0, 1] == [window.rows for window in bench.windows()]
    assert 1 == caplog.text.count("counts_went_back")


async def test_divergence_from_the_golden_outputs_is_told(bench: Bench) -> None:
    """The last self-test's is a gauge of the bundle's windows; before there was one there is none."""
    await bench.serving.close_window()
    assert bench.serving.current is not None
    await bench.serving.current.self_test()
    await bench.serving.close_window()
    before, after = (window.infrastructure for window in bench.windows())
    assert "golden_divergence" not in before
    assert 0 <= after["golden_divergence"] < 0.01


async def test_window_that_waits_for_the_disk_holds_up_no_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a commit takes its time requests are answered; the window is told once, also when its caller has gone."""
    begun, may_commit = threading.Event(), threading.Event()

    def append(spool: Spool, *args: Any) -> None:
        begun.set()
        assert may_commit.wait(10)
        kept(spool, *args)

    kept = Spool.append
    monkeypatch.setattr(Spool, "append", append)
    await bench.serving.infer(tensors(ROW))
    closing = asyncio.create_task(bench.serving.close_window())
    assert await asyncio.to_thread(begun.wait, 10)
    await bench.serving.infer(tensors(ROW))  # would hang where the commit is on the event loop
    closing.cancel()
    stopping = asyncio.create_task(bench.serving.stop())
    may_commit.set()
    await asyncio.gather(stopping, closing, return_exceptions=True)
    assert [1, 1] == [window.rows for window in bench.windows()]


async def test_request_under_way_when_the_agent_is_told_to_end_is_answered(bench: Bench) -> None:
    """What has begun ends, whether or not somebody waits for it: an orderly end is neither an error nor a crash."""
    served = bench.serving.current
    assert served is not None
    requests = [asyncio.create_task(bench.serving.infer(tensors(samples(1, 64)))) for _ in range(20)]
    await asyncio.sleep(0)
    await bench.serving.stop()
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(outcome, Inference | NotServingError) for outcome in outcomes)
    assert 0 == served.health.crashes_in_all
    (window,) = bench.windows()
    assert 0 == window.errors
    assert 0 < window.rows

"""Sources against a serving that answers without a model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt_agent.config import AgentConfig
from edgeopt_agent.http_api import HttpSource
from edgeopt_agent.serving import Inference, NotServingError
from edgeopt_agent.sources import FolderSource, IterableSource, make_sources
from edgeopt_contract.errors import DataError, UsageError
from tests.agent.conftest import wait_until


class FakeServing:
    """Answers with the sum of its inputs."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.vanish_once = False

    async def wait_until_serving(self) -> None:
        """Return when ready."""
        await self.ready.wait()

    async def infer(self, inputs: Any) -> Inference:
        """Answer, or refuse what is negative."""
        if self.vanish_once:
            self.vanish_once = False
            raise NotServingError("gone")
        value = inputs["x"] if isinstance(inputs, dict) else inputs
        if np.sum(value) < 0:
            raise DataError("negative")
        self.seen.append(value)
        return Inference("ab" * 32, {"sum": np.asarray(np.sum(value))}, 12.34)


@pytest.fixture
def serving() -> FakeServing:
    """What answers."""
    return FakeServing()


async def test_items_are_asked_with_and_without_labels(serving: FakeServing) -> None:
    """Arrays, and pairs of array and label; an item that is refused does not stop the rest."""
    items = [np.ones(2), (np.full(2, 2.0), 7), np.full(2, -1.0), {"x": np.full(2, 3.0)}]
    await IterableSource(lambda: items).run(serving)  # type: ignore[arg-type]  # a fake
    assert [2, 4, 6] == [value.sum() for value in serving.seen]


async def test_repeat_starts_again(serving: FakeServing) -> None:
    """With ``repeat`` the factory is called again when its items end."""
    task = asyncio.create_task(IterableSource(lambda: [np.ones(1)], repeat=True).run(serving))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        while len(serving.seen) < 5:  # noqa: ASYNC110  # there is no event for what a test looks at
            await asyncio.sleep(0.002)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_taken_before_something_serves(serving: FakeServing) -> None:
    """A queue or camera is not emptied into the void; an item met by a switch is asked again."""
    taken = []

    def items() -> Iterator[np.ndarray]:
        for value in range(3):
            taken.append(value)
            yield np.full(1, float(value))

    serving.ready.clear()
    serving.vanish_once = True
    task = asyncio.create_task(IterableSource(items).run(serving))  # type: ignore[arg-type]  # a fake
    async with asyncio.timeout(10):
        while not taken:  # noqa: ASYNC110  # there is no event for what a test looks at
            await asyncio.sleep(0.002)
    assert ([0], []) == (taken, serving.seen)
    serving.ready.set()
    await task
    assert [0, 1, 2] == [value.sum() for value in serving.seen]


async def test_iterable_that_raises_ends_quietly(serving: FakeServing, caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged with its type; the source ends without one."""

    def items() -> Iterator[np.ndarray]:
        yield np.ones(1)
        raise ZeroDivisionError("camera")

    await IterableSource(items).run(serving)  # type: ignore[arg-type]  # a fake
    assert "ZeroDivisionError: camera" in caplog.text


async def test_folder_answers_each_file_once(serving: FakeServing, tmp_path: Path) -> None:
    """Good files go to done, others to failed; each has its result beside it as JSON."""
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "two.npz", x=np.full(3, 2.0))
    np.save(tmp_path / "bad.npy", np.full(3, -1.0))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "notes.txt").write_text("not mine")
    task = asyncio.create_task(FolderSource(tmp_path).run(serving))  # type: ignore[arg-type]  # a fake
    await asyncio.to_thread(wait_until, "the folder to be empty", lambda: not list(tmp_path.glob("*.np?")))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert {"one.npy", "two.npz"} == {path.name for path in (tmp_path / "done").iterdir()}
    assert {"bad.npy", "broken.npy", "pickled.npy"} == {path.name for path in (tmp_path / "failed").iterdir()}
    result = json.loads((tmp_path / "results" / "two.npz.json").read_text())
    assert {"file": "two.npz", "bundle": "ab" * 32, "microseconds": 12.3, "outputs": {"sum": 6.0}} == result
    assert "negative" == json.loads((tmp_path / "results" / "bad.npy.json").read_text())["error"]
    assert (tmp_path / "notes.txt").exists()


def test_sources_are_made_from_their_names(tmp_path: Path) -> None:
    """Each form of ``--source`` gives its kind."""
    config = AgentConfig(
        data=tmp_path,
        sources=("tests.tiny:field", f"folder:{tmp_path}", "http", "http:0"),
        interval_seconds=0.5,
        repeat=True,
    )
    iterable, folder, http, any_port = make_sources(config)
    assert isinstance(iterable, IterableSource)
    assert (0.5, True) == (iterable.interval_seconds, iterable.repeat)
    assert FolderSource(tmp_path) == folder
    assert [HttpSource(8080, 16), HttpSource(0, 16)] == [http, any_port]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nonsense", "expected module:factory"),
        (":factory", "expected module:factory"),
        ("no.such.module:factory", "ModuleNotFoundError"),
        ("tests.tiny:no_such_thing", "AttributeError"),
        ("tests.tiny:POISON", "expected something to call, got float"),
        ("http:99999", "port"),
        ("http:x", "port"),
    ],
)
def test_source_that_cannot_be_made_is_refused(tmp_path: Path, source: str, reason: str) -> None:
    """The option and the reason stand in the message."""
    with pytest.raises(UsageError, match=reason):
        make_sources(AgentConfig(data=tmp_path, sources=(source,)))

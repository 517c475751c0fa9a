"""Sources: their names, the process that feeds, and the folder, against a serving that answers without a model."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeopt_agent.client import Client
from edgeopt_agent.config import AgentConfig
from edgeopt_agent.http.api import InferenceApi
from edgeopt_agent.http.messages import HttpLimits
from edgeopt_agent.http.server import HttpServer
from edgeopt_agent.inference.feeding import ask_each
from edgeopt_agent.inference.folder import watch_folder
from edgeopt_agent.inference.served import NotServingError
from edgeopt_agent.inference.serving import Inference
from edgeopt_agent.inference.sources import FeedSource, HttpSource, UnixSource, make_sources
from edgeopt_agent.runner.arrays import array_of, tensor_of
from edgeopt_agent.runner.frames import Tensor
from edgeopt_contract.bundle import read_manifest
from edgeopt_contract.errors import ModelError, UnreachableError, UsageError
from edgeopt_contract.manifest import TensorSpec
from tests.tiny import tiny_bundle


class FakeServing:
    """Answers with the sum of its inputs."""

    def __init__(self, directory: Path) -> None:
        manifest, _ = read_manifest(directory)
        inputs = (TensorSpec(name="x", dtype="float32", shape=(-1,)),)
        outputs = (TensorSpec(name="sum", dtype="float32", shape=()),)
        manifest = replace(manifest, inputs=inputs, outputs=outputs)
        installed = SimpleNamespace(manifest=manifest, variant=manifest.variants[0], digest="ab" * 32)
        self._served = SimpleNamespace(installed=installed, is_ready=True)
        self.current: Any = self._served
        self.seen: list[Any] = []
        self.vanish_once = False

    def serve(self) -> None:
        """Begin to answer."""
        self.current = self._served

    async def infer(self, tensors: Sequence[Tensor]) -> Inference:
        """Answer, or refuse what is negative."""
        if self.vanish_once:
            self.vanish_once = False
            raise NotServingError("gone")
        total = float(array_of(tensors[0]).sum())
        if total < 0:
            raise ModelError("negative")
        self.seen.append(total)
        return Inference("ab" * 32, (tensor_of("sum", np.asarray([total], np.float32)),), 12.34)


@pytest.fixture
async def serving(tmp_path: Path) -> FakeServing:
    """What answers."""
    return FakeServing(tiny_bundle(tmp_path / "bundle").directory)


@pytest.fixture
async def client(serving: FakeServing) -> AsyncIterator[Client]:
    """A client of it, over HTTP."""
    server = HttpServer(InferenceApi(serving, 1).answer, HttpLimits())  # type: ignore[arg-type]  # a fake
    with Client(f"http://127.0.0.1:{await server.listen(0)}") as client:
        yield client
    await server.close()


class Events:
    """What a feeding process would tell."""

    def __init__(self) -> None:
        self.told: list[dict[str, object]] = []

    def __call__(self, **fields: object) -> None:
        """Note it."""
        self.told.append(fields)


async def until(probe: Callable[[], Any]) -> None:
    """Wait until ``probe`` is true."""
    async with asyncio.timeout(20):
        while not probe():  # noqa: ASYNC110  # there is no event for what a test looks at
            await asyncio.sleep(0.005)


# --- asking for each item -------------------------------------------------------------------------------------------


async def test_items_are_asked_with_and_without_labels(serving: FakeServing, client: Client) -> None:
    """Arrays, and pairs of array and label; an item that is refused is told and does not stop the rest."""
    items = [np.ones(2), (np.full(2, 2.0), 7), np.full(2, -1.0), "a picture", {"x": np.full(2, 3.0)}]
    events = Events()
    assert 2 == await asyncio.to_thread(ask_each, items, client, events)
    assert [2, 4, 6] == serving.seen
    assert [("inference_failed", 1)] == [(told["event"], told["failures"]) for told in events.told]


async def test_nothing_is_taken_before_something_serves(serving: FakeServing, client: Client) -> None:
    """A queue or camera is not emptied into the void; an item met by a switch is asked again."""
    taken = []

    def items() -> Iterator[np.ndarray]:
        for value in range(3):
            taken.append(value)
            yield np.full(1, float(value))

    serving.current = None
    serving.vanish_once = True
    task = asyncio.create_task(asyncio.to_thread(ask_each, items(), client, Events()))
    await until(lambda: taken)
    assert ([0], []) == (taken, serving.seen)
    serving.serve()
    await task
    assert [0, 1, 2] == serving.seen


async def test_an_agent_that_has_gone_ends_the_asking(client: Client) -> None:
    """Not an item after the other into nothing."""
    with pytest.raises(UnreachableError), Client("http://127.0.0.1:9") as nobody:
        await asyncio.to_thread(ask_each, [np.ones(1)] * 2, nobody, Events())


# --- a folder -------------------------------------------------------------------------------------------------------


async def test_folder_answers_each_file_once(serving: FakeServing, client: Client, tmp_path: Path) -> None:
    """Good files go to done, others to failed; each has its result beside it as JSON."""
    folder = tmp_path / "in"
    folder.mkdir()
    np.save(folder / "one.npy", np.ones(3))
    np.savez(folder / "two.npz", x=np.full(3, 2.0))
    np.save(folder / "bad.npy", np.full(3, -1.0))
    (folder / "broken.npy").write_bytes(b"no array")
    np.save(folder / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "notes.txt").write_text("not mine")
    stop = threading.Event()
    task = asyncio.create_task(asyncio.to_thread(watch_folder, folder, client, stop))
    await until(lambda: not list(folder.glob("*.np?")))
    stop.set()
    await task

    assert {"one.npy", "two.npz"} == {path.name for path in (folder / "done").iterdir()}
    assert {"bad.npy", "broken.npy", "pickled.npy"} == {path.name for path in (folder / "failed").iterdir()}
    result = json.loads((folder / "results" / "two.npz.json").read_text())
    assert {"file": "two.npz", "bundle": "ab" * 32, "microseconds": 12.3, "outputs": {"sum": 6.0}} == result
    assert "negative" in json.loads((folder / "results" / "bad.npy.json").read_text())["error"]
    assert (folder / "notes.txt").exists()


# --- a process of its own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "event"),
    [("tests.tiny:short_field", "source_ended"), ("tests.tiny:broken_field", "RuntimeError: the camera was unplugged")],
)
async def test_process_asks_until_its_items_end(
    serving: FakeServing, caplog: pytest.LogCaptureFixture, source: str, event: str
) -> None:
    """Its end, or the error that ended it, stands in the agent's log; the source ends without one."""
    caplog.set_level("INFO", "edgeopt_agent")
    feed = FeedSource(source)
    async with asyncio.timeout(20):
        await feed.run(serving)  # type: ignore[arg-type]  # a fake
    assert serving.seen
    assert event in caplog.text
    assert feed._process.returncode is not None


async def test_process_repeats_and_ends_with_the_agent(serving: FakeServing) -> None:
    """With ``repeat`` it goes on, until the agent takes its interest back; then no process is left."""
    feed = FeedSource("tests.tiny:short_field", repeat=True)
    task = asyncio.create_task(feed.run(serving))  # type: ignore[arg-type]  # a fake
    await until(lambda: len(serving.seen) > 12)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(feed._process.pid, 0)


async def test_process_that_crashes_leaves_the_agent_alone(
    serving: FakeServing, caplog: pytest.LogCaptureFixture
) -> None:
    """A camera's driver that dies by a signal is a line in the log."""
    feed = FeedSource("tests.tiny:field")
    task = asyncio.create_task(feed.run(serving))  # type: ignore[arg-type]  # a fake
    await until(lambda: serving.seen)
    feed._process.send_signal(signal.SIGSEGV)
    async with asyncio.timeout(20):
        await task
    assert "signal 11" in caplog.text


def test_process_that_nobody_listens_to_ends_without_a_word() -> None:
    """The agent was killed: there is nobody to tell it to, and no fault to show."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    ours, theirs = socket.socketpair()
    command = [
        sys.executable,
        "-m",
        "edgeopt_agent.inference.feeding",
        "--socket",
        str(theirs.fileno()),
        "tests.tiny:field",
    ]
    with ours, theirs:
        ended = subprocess.run(
            command, stdout=write_end, stderr=subprocess.PIPE, pass_fds=[theirs.fileno()], check=False, timeout=60
        )
    os.close(write_end)
    assert (0, b"") == (ended.returncode, ended.stderr)


async def test_process_folder_works_too(serving: FakeServing, tmp_path: Path) -> None:
    """``folder:PATH`` feeds from the same kind of process."""
    np.save(tmp_path / "one.npy", np.ones(3))
    feed = FeedSource(f"folder:{tmp_path}")
    task = asyncio.create_task(feed.run(serving))  # type: ignore[arg-type]  # a fake
    await until((tmp_path / "done" / "one.npy").exists)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [3.0] == serving.seen


# --- names ----------------------------------------------------------------------------------------------------------


def test_sources_are_made_from_their_names(tmp_path: Path) -> None:
    """Each form of ``--source`` gives its kind."""
    sources = ("http", "http:0", f"unix:{tmp_path / 's'}", "tests.tiny:field")
    config = AgentConfig(data=tmp_path, sources=sources, interval_seconds=0.5, repeat=True)
    http, any_port, unix, feed = make_sources(config)
    assert [HttpSource(8080, 16), HttpSource(0, 16)] == [http, any_port]
    assert UnixSource(tmp_path / "s", 16) == unix
    assert isinstance(feed, FeedSource)
    assert ["--interval", "0.5", "--repeat", "tests.tiny:field"] == list(feed._process.args)[-4:]
    feed._end()


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


async def test_address_that_is_taken_is_logged(
    serving: FakeServing, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A second source at the same port, or at a file, ends with a line in the log, and the agent goes on."""
    server = HttpServer(InferenceApi(serving, 1).answer, HttpLimits())  # type: ignore[arg-type]  # a fake
    port = await server.listen(0)
    (tmp_path / "file").touch()
    await HttpSource(port, 2).run(serving)  # type: ignore[arg-type]  # a fake
    await UnixSource(tmp_path / "file", 2).run(serving)  # type: ignore[arg-type]  # a fake
    assert 2 == caplog.text.count("source_failed")
    await server.close()


def test_agents_side_imports_no_numpy() -> None:
    """What the agent imports to serve brings neither NumPy nor a client of its own."""
    heavy = {"numpy", "http.client", "urllib.request"}
    script = f"import edgeopt_agent.inference.sources, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout

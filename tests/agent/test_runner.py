"""The runner child: frames, answers, and what happens when it dies or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt_agent.inference.channel import Channel
from edgeopt_agent.inference.supervisor import RunnerCrashError, RunnerOptions, RunnerProcess
from edgeopt_agent.reports.counts import FEATURES, ROWS, Counts, Layout
from edgeopt_agent.runner.__main__ import serve
from edgeopt_agent.runner.arrays import array_of, tensor_of
from edgeopt_agent.runner.frames import (
    HEADER_BYTES,
    Answer,
    Blame,
    Failed,
    Infer,
    Load,
    Loaded,
    Reply,
    Request,
    SelfTest,
    SelfTested,
    Settle,
    Settled,
    Tensor,
    attach,
    body_length,
    decode_message,
    encode_message,
    heads_of,
    payload_bytes,
)
from edgeopt_agent.runner.worker import Worker
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.codec import decode
from edgeopt_contract.errors import BundleError, DataError, ModelError
from edgeopt_contract.features import ReferenceProfile
from edgeopt_contract.manifest import TensorSpec
from edgeopt_contract.values import digest_of
from tests.agent.bench import array, tensors
from tests.tiny import POISON, Recipe, samples, tiny_bundle

X = TensorSpec(name="x", dtype="float32", shape=(4,))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A model that can be made to hang."""
    return tiny_bundle(tmp_path / "bundle", Recipe(poisonable=True))


@pytest.fixture
def load(bundle: Bundle, tmp_path: Path) -> Load:
    """The request to load it."""
    return load_of(bundle, tmp_path / "counts")


def load_of(bundle: Bundle, counts: Path, model: Path | None = None) -> Load:
    """A request to load ``bundle``, whose cells are made in ``counts``."""
    profile = bundle.directory / "profile.json"
    layout = Layout(bundle=bundle.digest, variant="fp32", features=load_features(bundle))
    Counts.open(counts, layout, "boot").close()
    return Load(
        path=str(model or bundle.directory / "fp32.onnx"),
        runtime="onnxruntime",
        threads=1,
        inputs=bundle.manifest.inputs,
        outputs=("p",),
        variant="fp32",
        golden=str(bundle.directory / "golden.npz"),
        profile=str(profile),
        counts=str(counts),
    )


def load_features(bundle: Bundle) -> tuple[tuple[str, int], ...]:
    """Names and numbers of cells of what is counted."""
    features = decode(ReferenceProfile, (bundle.directory / "profile.json").read_bytes()).features
    return tuple((feature.spec.name, feature.spec.cells) for feature in features)


@pytest.fixture
async def runner() -> AsyncIterator[RunnerProcess]:
    """A runner that may take half a second."""
    runner = RunnerProcess(RunnerOptions(infer_timeout_seconds=0.5))
    yield runner
    await runner.stop()


@given(hnp.arrays(hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes(endianness="="), (2, 3)))
def test_tensor_survives_its_frame(array: np.ndarray) -> None:
    """Dtype, shape and every bit of an array arrive, beside another one."""
    array = array.astype(array.dtype.newbyteorder("="))
    given = [tensor_of("x", array), Tensor("y", "int8", (2,), b"ab")]
    first = encode_message(Infer(heads_of(given)))
    assert len(first) == HEADER_BYTES + body_length(first[:HEADER_BYTES])
    message = decode_message(Request, first[HEADER_BYTES:])
    payload = b"".join(tensor.data for tensor in given)
    assert len(payload) == payload_bytes(message)
    tensor, other = attach(message.heads, payload)
    assert (array.dtype, array.tobytes()) == (array_of(tensor).dtype, array_of(tensor).tobytes())
    assert b"ab" == bytes(other.data)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(body: bytes) -> None:
    """Whatever a runner may print, it is a reply or a ``ValueError``."""
    with contextlib.suppress(ValueError):
        assert isinstance(decode_message(Reply, body), Answer | Failed | Loaded | SelfTested | Settled)


def test_impossible_lengths_are_refused() -> None:
    """Four bytes cannot make the agent wait for gigabytes, nor can the heads of tensors."""
    with pytest.raises(ValueError, match="at most"):
        body_length(b"\xff\xff\xff\xff")
    for size in (-1, 1 << 40):
        message = Infer(heads_of([])).__class__((heads_of([Tensor("x", "int8", (1,), b"a")])[0],))
        head = type(message.heads[0])("x", "int8", (1,), size)
        with pytest.raises(ValueError, match="at most"):
            payload_bytes(Infer((head,)))


def test_main_loop_answers_each_frame_until_the_end(load: Load) -> None:
    """Load, infer, end of input: two replies and a return; the row is counted."""
    (x,) = tensors(samples(1, 2))
    requests = io.BytesIO(encode_message(load) + encode_message(Infer(heads_of([x]))) + x.data)
    replies = io.BytesIO()
    serve(requests, replies, memoryview(b""))
    stream = io.BytesIO(replies.getvalue())
    loaded = decode_message(Reply, stream.read(body_length(stream.read(HEADER_BYTES))))
    answered = decode_message(Reply, stream.read(body_length(stream.read(HEADER_BYTES))))
    (output,) = attach(answered.heads, stream.read())
    assert (digest_of(Path(load.path).read_bytes()), ["x"], ["p"]) == (loaded.sha256, loaded.inputs, loaded.outputs)
    assert (2, 3) == array_of(output).shape
    assert answered.microseconds > 0
    counts = Counts.look_into(Path(load.counts))
    assert 2 == counts.cell(ROWS)
    counts.close()


class _Leaving(io.BytesIO):
    """Notes the counts at the time at which each reply leaves."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.seen: list[tuple[int, int]] = []  # rows, and what all cells of features sum up to

    def flush(self) -> None:
        counts = Counts.look_into(self.path)
        cells = counts.snapshot()
        self.seen.append((cells[ROWS], sum(cells[FEATURES:])))
        counts.close()


def test_answer_leaves_before_its_features_are_counted(load: Load, bundle: Bundle) -> None:
    """Rows are counted before the answer and features after it, before anything else is answered or settled."""
    (x,) = tensors(samples(1, 2))
    infer, features = encode_message(Infer(heads_of([x]))) + x.data, len(load_features(bundle))
    requests = io.BytesIO(encode_message(load) + infer + infer + encode_message(Settle()))
    serve(requests, replies := _Leaving(Path(load.counts)), memoryview(b""))
    assert [(0, 0), (2, 0), (4, 2 * features), (4, 4 * features)] == replies.seen


@pytest.mark.parametrize(("error", "blame"), [(ValueError("odd"), Blame.MODEL), (MemoryError(), Blame.MEMORY)])
def test_answers_that_cannot_be_counted_are_failures_from_then_on(
    load: Load, monkeypatch: pytest.MonkeyPatch, error: Exception, blame: Blame
) -> None:
    """The one that left is an answer; the next ones say why not, which the agent takes for a fault of the bundle."""

    def refuse(*_: object) -> None:
        raise error

    worker, request = Worker(), Infer(heads_of(tensors(samples(1, 1))))
    worker.answer(load, ())
    monkeypatch.setattr("edgeopt_contract.counting.ProfileCounter.observe", refuse)
    first, second = (worker.answer(request, tensors(samples(1, 1)))[0] for _ in range(2))
    assert isinstance(first, Answer)
    assert isinstance(second, Failed)
    assert (blame, True) == (second.blame, type(error).__name__ in second.reason)


@pytest.mark.parametrize(
    ("change", "blame", "reason"),
    [
        (lambda load: Infer(()), Blame.MODEL, "no model is loaded"),
        (lambda load: replace_path(load, path="/nowhere/model.onnx"), Blame.MODEL, "FileNotFoundError"),
        (lambda load: replace_path(load, profile="/nowhere"), Blame.BUNDLE, "the profile cannot be counted"),
    ],
)
def test_request_that_cannot_be_met_is_a_reply(
    load: Load, change: Callable[[Load], Request], blame: Blame, reason: str
) -> None:
    """The runner says what is wrong and whose fault it is, and lives on."""
    reply, _ = Worker().answer(change(load), ())
    assert isinstance(reply, Failed)
    assert blame is reply.blame
    assert reason in reply.reason


def replace_path(load: Load, **paths: str) -> Load:
    """The same request with other paths."""
    fields = {name: getattr(load, name) for name in load.__struct_fields__}
    return Load(**(fields | paths))


async def test_runner_loads_infers_and_tests(runner: RunnerProcess, load: Load, bundle: Bundle) -> None:
    """The loading process reports the digest of what it read; inputs that do not fit are the caller's error."""
    loaded = await runner.load(load)
    assert digest_of(await asyncio.to_thread(Path(load.path).read_bytes)) == loaded.sha256
    _, outputs = await runner.infer(tensors(samples(1, 1)))
    assert np.isclose(1, array(outputs).sum())
    with pytest.raises(DataError, match="expected the inputs x, got y"):
        await runner.infer(tensors(samples(1, 1), "y"))
    tested = await runner.test(SelfTest(0.05))
    assert ([], 16) == (tested.problems, len(tested.microseconds))
    (bundle.directory / "golden.npz").write_bytes(b"")
    with pytest.raises(BundleError, match="cannot be read"):
        await runner.test(SelfTest(0.05))
    _, outputs = await runner.infer(tensors(samples(1, 1)))
    assert (1, 3) == array(outputs).shape


async def test_hanging_runner_is_killed(runner: RunnerProcess, load: Load) -> None:
    """No answer in time: the process is gone, and can be started again."""
    await runner.load(load)
    pid = runner.pid
    assert pid is not None
    with pytest.raises(RunnerCrashError, match=r"no answer within 0\.5 s"):
        await runner.infer(tensors(np.full((1, 4), POISON, np.float32)))
    assert runner.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await runner.load(load)
    await runner.infer(tensors(samples(1, 1)))


async def test_a_start_that_is_cancelled_halfway_leaves_a_crash_behind_and_can_be_repeated(
    runner: RunnerProcess, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A switch to another bundle ends the restart of a runner; what is asked of it then was once an assertion."""
    connecting = asyncio.Event()

    async def connect(_channel: Channel) -> None:
        connecting.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(Channel, "connect", connect)
        starting = asyncio.create_task(runner.load(load))
        await connecting.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    with pytest.raises(RunnerCrashError, match="not running"):
        await runner.settle()
    assert runner.pid is None
    await runner.load(load)
    await runner.infer(tensors(samples(1, 1)))


async def test_agent_that_is_late_does_not_take_its_runner_for_hanging(runner: RunnerProcess, load: Load) -> None:
    """An answer that came while the event loop was held up is an answer, however late it is read."""
    await runner.load(load)
    pid = runner.pid
    asking = asyncio.create_task(runner.infer(tensors(samples(1, 1))))
    await asyncio.sleep(0)  # the request leaves
    time.sleep(0.7)  # noqa: ASYNC251  # the experiment: longer than a request may take
    await asking
    await runner.infer(tensors(samples(1, 1)))
    assert pid == runner.pid


async def test_runner_that_leaves_the_machine_no_memory_is_ended(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine must have left counts, not only what one runner may take."""
    runner = RunnerProcess(RunnerOptions(reserve_bytes=8 << 20, infer_timeout_seconds=30))
    try:
        await runner.load(load)
        left = 8 << 20
        monkeypatch.setattr("edgeopt_agent.inference.supervisor.available_memory", lambda: left)
        asking = asyncio.create_task(runner.infer(tensors(np.full((1, 4), POISON, np.float32))))
        await asyncio.wait({asking}, timeout=0.3)
        assert not asking.done()
        left -= 1
        with pytest.raises(RunnerCrashError, match="the machine has only 7 MiB left"):
            await asking
    finally:
        await runner.stop()


async def test_dead_runner_is_noticed(runner: RunnerProcess, load: Load) -> None:
    """A runner killed from outside is a crash that names the signal; asking a stopped one is a crash too."""
    await runner.load(load)
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGKILL)
    with pytest.raises(RunnerCrashError, match=r"it ended \(signal 9\)|is not running"):
        await runner.infer(tensors(samples(1, 1)))
    with pytest.raises(RunnerCrashError, match="not running"):
        await runner.infer(tensors(samples(1, 1)))


async def test_file_that_is_no_model_is_refused(runner: RunnerProcess, bundle: Bundle, tmp_path: Path) -> None:
    """The runtime's own words reach the caller."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        await runner.load(load_of(bundle, tmp_path / "counts", path))


async def test_memory_limit_stops_a_runner_and_not_the_agent(load: Load) -> None:
    """With too little memory the load fails or the process ends; either way an error comes back."""
    runner = RunnerProcess(RunnerOptions(memory_bytes=12 << 20))
    with pytest.raises((ModelError, RunnerCrashError)):
        await runner.load(load)
    await runner.stop()

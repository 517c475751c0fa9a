"""The runner child: frames, answers, and what happens when it dies or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt_agent.runner.__main__ import answer, serve
from edgeopt_agent.runner.frames import (
    HEADER_BYTES,
    Answer,
    Failed,
    Infer,
    Load,
    Loaded,
    Reply,
    Request,
    Tensor,
    body_length,
    decode_frame,
    encode_frame,
)
from edgeopt_agent.supervisor import RunnerCrashError, RunnerOptions, RunnerProcess
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.errors import ModelError
from edgeopt_contract.values import digest_of
from tests.tiny import POISON, Recipe, samples, tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A model that can be made to hang."""
    return tiny_bundle(tmp_path / "bundle", Recipe(poisonable=True))


@pytest.fixture
def model(bundle: Bundle) -> Path:
    """The model's file."""
    return bundle.directory / "fp32.onnx"


@pytest.fixture
async def runner() -> AsyncIterator[RunnerProcess]:
    """A runner that may take half a second."""
    runner = RunnerProcess(RunnerOptions(infer_timeout_seconds=0.5))
    yield runner
    await runner.stop()


@given(hnp.arrays(hnp.boolean_dtypes() | hnp.integer_dtypes() | hnp.floating_dtypes(endianness="="), (2, 3)))
def test_tensor_survives_its_frame(array: np.ndarray) -> None:
    """Dtype, shape and every bit of an array arrive."""
    array = array.astype(array.dtype.newbyteorder("="))
    frame = encode_frame(Infer([Tensor.of("x", array)]))
    assert len(frame) == HEADER_BYTES + body_length(frame[:HEADER_BYTES])
    (tensor,) = decode_frame(Request, frame[HEADER_BYTES:]).tensors
    assert (array.dtype, array.tobytes()) == (tensor.array().dtype, tensor.array().tobytes())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frame_are_refused(body: bytes) -> None:
    """Whatever a runner may print, it is a reply or a ``ValueError``."""
    with contextlib.suppress(ValueError):
        assert isinstance(decode_frame(Reply, body), Answer | Failed | Loaded)


def test_frame_of_impossible_length_is_refused() -> None:
    """Four bytes cannot make the agent wait for gigabytes."""
    with pytest.raises(ValueError, match="at most"):
        body_length(b"\xff\xff\xff\xff")


def test_main_loop_answers_each_frame_until_the_end(model: Path) -> None:
    """Load, infer, end of input: two replies and a return."""
    x = Tensor.of("x", samples(1, 2))
    requests = io.BytesIO(encode_frame(Load(str(model), 1)) + encode_frame(Infer([x])))
    replies = io.BytesIO()
    serve(requests, replies)
    stream = io.BytesIO(replies.getvalue())
    loaded = decode_frame(Reply, stream.read(body_length(stream.read(HEADER_BYTES))))
    answered = decode_frame(Reply, stream.read(body_length(stream.read(HEADER_BYTES))))
    assert (digest_of(model.read_bytes()), ["x"], ["p"]) == (loaded.sha256, loaded.inputs, loaded.outputs)
    assert (2, 3) == answered.tensors[0].shape
    assert answered.microseconds > 0


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Infer([]), "no model is loaded"),
        (Load("/nowhere/model.onnx", 1), "FileNotFoundError"),
    ],
)
def test_request_that_cannot_be_met_is_a_reply(request_: Request, reason: str) -> None:
    """The runner says what is wrong and lives on."""
    _, reply = answer(None, request_)
    assert isinstance(reply, Failed)
    assert reason in reply.reason


async def test_runner_loads_and_infers(runner: RunnerProcess, model: Path) -> None:
    """The loading process reports the digest of what it read; inputs that do not fit are a model error."""
    loaded = await runner.load(model)
    assert digest_of(await asyncio.to_thread(model.read_bytes)) == loaded.sha256
    reply = await runner.infer({"x": samples(1, 1)})
    assert np.isclose(1, reply.tensors[0].array().sum())
    with pytest.raises(ModelError, match="failed on an input"):
        await runner.infer({"y": samples(1, 1)})
    assert (1, 3) == (await runner.infer({"x": samples(1, 1)})).tensors[0].shape


async def test_hanging_runner_is_killed(runner: RunnerProcess, model: Path) -> None:
    """No answer in time: the process is gone, and can be started again."""
    await runner.load(model)
    pid = runner.pid
    assert pid is not None
    with pytest.raises(RunnerCrashError, match=r"no answer within 0\.5 s"):
        await runner.infer({"x": np.full((1, 4), POISON, np.float32)})
    assert runner.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    await runner.load(model)
    await runner.infer({"x": samples(1, 1)})


async def test_dead_runner_is_noticed(runner: RunnerProcess, model: Path) -> None:
    """A runner killed from outside is a crash that names the signal; asking a stopped one is a crash too."""
    await runner.load(model)
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGKILL)
    with pytest.raises(RunnerCrashError, match=r"it ended \(signal 9\)|is not running"):
        await runner.infer({"x": samples(1, 1)})
    with pytest.raises(RunnerCrashError, match="not running"):
        await runner.infer({"x": samples(1, 1)})


async def test_file_that_is_no_model_is_refused(runner: RunnerProcess, tmp_path: Path) -> None:
    """The runtime's own words reach the caller."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot be loaded"):
        await runner.load(path)


async def test_memory_limit_stops_a_runner_and_not_the_agent(model: Path) -> None:
    """With too little address space the load fails or the process ends; either way an error comes back."""
    runner = RunnerProcess(RunnerOptions(memory_bytes=150 << 20))
    with pytest.raises((ModelError, RunnerCrashError)):
        await runner.load(model)
    await runner.stop()

"""Memory that the agent writes and a runner reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgeopt_agent.inference.shared import SharedMemory, view_of
from edgeopt_agent.inference.supervisor import RunnerOptions, RunnerProcess
from edgeopt_agent.reports.counts import FEATURES, Counts
from edgeopt_contract.bundle import Bundle
from edgeopt_contract.codec import decode
from edgeopt_contract.counting import ProfileCounter
from edgeopt_contract.features import ReferenceProfile
from tests.agent.bench import array, tensors
from tests.agent.test_runner import load_of
from tests.tiny import Recipe, samples, tiny_bundle

HALF = 64 << 10
LARGE = 4096  # samples of 16 bytes: more than goes in one piece through the pipe


@pytest.fixture
def shared() -> Iterator[SharedMemory]:
    """Two halves of 64 KiB."""
    shared = SharedMemory.make(HALF)
    assert shared is not None
    yield shared
    shared.close()


def open_descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_put_is_seen_by_who_inherits_the_descriptor(shared: SharedMemory) -> None:
    """The parts lie one after the other; the next ones lie elsewhere, and those after them in the first place again."""
    view = view_of(os.dup(shared.descriptor))
    first, second = shared.put([b"abc", memoryview(b"de")]), shared.put([b"x" * HALF])
    assert first is not None
    assert second is not None
    assert b"abcde" == view[first : first + 5]
    assert b"x" * HALF == view[second : second + HALF]
    assert first == shared.put([b"fg"])
    assert b"fgcde" == view[first : first + 5]
    assert b"x" * HALF == view[second : second + HALF]


def test_what_is_larger_than_a_half_is_not_put(shared: SharedMemory) -> None:
    """It says so, and touches nothing."""
    at = shared.put([b"abc"])
    view = view_of(os.dup(shared.descriptor))
    assert at is not None
    assert shared.put([b"y" * HALF, b"y"]) is None
    assert b"abc" == view[at : at + 3]
    assert b"y" not in bytes(view)


def test_runner_cannot_write(shared: SharedMemory) -> None:
    """Neither through its mapping nor through the descriptor, which cannot make it shorter either (SIGBUS)."""
    view = view_of(os.dup(shared.descriptor))
    assert view.readonly
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(shared.descriptor, b"a")
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(shared.descriptor, 0)


def test_nothing_stays_open() -> None:
    """Making and closing leaves as many descriptors as there were."""
    before = open_descriptors()
    shared = SharedMemory.make(HALF)
    assert shared is not None
    shared.close()
    assert before == open_descriptors()


def test_kernel_without_such_memory_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is none, and nothing stays open."""
    before = open_descriptors()

    def refuse(*_: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("os.ftruncate", refuse)
    assert SharedMemory.make(HALF) is None
    monkeypatch.setattr("os.memfd_create", refuse)
    assert SharedMemory.make(HALF) is None
    assert before == open_descriptors()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A model of four numbers."""
    return tiny_bundle(tmp_path / "bundle", Recipe(features=("x[0]", "x[3]", "confidence")))


@pytest.mark.parametrize("is_shared", [True, False])
async def test_large_requests_one_after_the_other_are_answered_and_counted_right(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_shared: bool
) -> None:
    """A request is counted while the next one is written, and is not mistaken for it; with and without sharing."""
    if not is_shared:
        monkeypatch.setattr("edgeopt_agent.inference.shared.SharedMemory.make", lambda: None)
    runner = RunnerProcess(RunnerOptions())
    load = load_of(bundle, tmp_path / "counts")
    features = decode(ReferenceProfile, (bundle.directory / "profile.json").read_bytes()).features
    cells = np.zeros(sum(feature.spec.cells for feature in features), np.int64)
    expected = ProfileCounter(features, cells)
    try:
        await runner.load(load)
        for seed in range(8):
            x = samples(seed, LARGE) + seed  # each lies elsewhere in the profile
            _, outputs = await runner.infer(tensors(x))
            expected.observe({"x": x}, {"p": array(outputs)})
        await runner.settle()
    finally:
        await runner.stop()
    with closing(Counts.look_into(tmp_path / "counts")) as counts:
        assert cells.tolist() == counts.snapshot()[FEATURES:].tolist()

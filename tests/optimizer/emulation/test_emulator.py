"""The workers of an emulator: their answers, and what happens when one fails. Here they run on this very CPU."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeopt.emulation.emulator import Emulator
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError, UsageError
from tests.optimizer import qdq_layers
from tests.optimizer.qdq_layers import LAYERS

PYTHON = Emulator(command=(sys.executable,), title="this Python", processes=2)
FEW = LAYERS[2:4]  # two inputs and two outputs
MODEL = qdq_layers.model(FEW)


def broken(script: str, patience: float = 60.0) -> Emulator:
    """An emulator that does what a shell script says."""
    return Emulator(command=("sh", "-c", script), title="qemu-x86_64 -cpu Broken", processes=2, patience=patience)


def test_answers_are_those_of_a_session_in_the_order_of_the_samples() -> None:
    """Two workers share the samples; every output comes back, and every sample is reported."""
    samples = qdq_layers.samples(5, FEW)
    expected = OnnxRuntimeSession(MODEL, threads=1).predict_singly(samples)
    ticks: list[None] = []
    actual = PYTHON.predict(MODEL, samples, on_sample=lambda: ticks.append(None))
    assert 5 == len(ticks)
    assert list(expected) == list(actual)
    for name, array in expected.items():
        np.testing.assert_array_equal(array, actual[name])


def test_a_single_sample_needs_a_single_worker() -> None:
    """More workers than samples do no harm."""
    assert 1 == len(next(iter(PYTHON.predict(MODEL, qdq_layers.samples(1, FEW)).values())))


@pytest.mark.runtimes
def test_openvino_answers_as_well() -> None:
    """Its own kernels, the same model."""
    samples = qdq_layers.samples(2, FEW[:1])
    model = qdq_layers.model(FEW[:1])
    expected = OnnxRuntimeSession(model, threads=1).predict_singly(samples)
    actual = PYTHON.predict(model, samples, runtime=RuntimeName.OPENVINO)
    assert list(expected) == list(actual)
    assert next(iter(expected.values())).shape == next(iter(actual.values())).shape


def test_the_cost_is_of_a_start_and_of_each_sample() -> None:
    """Both are measured in seconds; starting Python and loading takes longer than a small layer."""
    cost = PYTHON.cost(MODEL, qdq_layers.samples(2, FEW))
    assert cost.start > cost.each >= 0


def test_a_worker_that_starts_late_makes_no_sample_dearer() -> None:
    """On a busy machine one of them may: its delay is a cost of the start, and thousands of samples have it once."""
    late = 'case "$*" in *1.in.npz*) sleep 3;; esac; exec "$0" "$@"'
    emulator = Emulator(command=("sh", "-c", late, sys.executable), title="this Python, late", processes=2)
    cost = emulator.cost(MODEL, qdq_layers.samples(2, FEW))
    assert cost.start > 3 > 8 * cost.each


def test_the_models_own_fault_is_told() -> None:
    """What the worker wrote last is in the message."""
    with pytest.raises(ModelError, match=r"this Python ended with code 1 and said: (?s:.*)InvalidProtobuf"):
        PYTHON.predict(b"no model", qdq_layers.samples(1, FEW))


def test_a_crash_is_told() -> None:
    """The signal and the last words, without QEMU's warnings of features that nobody asked for."""
    noise = "qemu: warning: TCG doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]"
    emulator = broken(f'echo "{noise}" >&2; echo "uncaught target signal 11" >&2; kill -SEGV $$')
    with pytest.raises(ModelError, match=r"code -11 and said: uncaught target signal 11$"):
        emulator.predict(MODEL, qdq_layers.samples(2, FEW))


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sign of life within the patience: an error, and no process is left, however far each had come."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*given: Any, popen: Any = subprocess.Popen, **more: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*given, **more))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(ModelError, match=r"no sign of life for 0.5 s"):
        broken("exec sleep 1000", patience=0.5).predict(MODEL, qdq_layers.samples(2, FEW))
    assert [-signal.SIGKILL] * 2 == [process.returncode for process in started]


def test_no_worker_outlives_this_process(tmp_path: Path) -> None:
    """Killed outright, it takes its workers along."""
    script = (
        "from edgeopt.emulation.emulator import Emulator\n"
        "from edgeopt.samples import Sample\n"
        f"command = ('sh', '-c', 'echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 1000')\n"
        "Emulator(command=command, title='t').predict(b'', [Sample({}, None)])\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        _wait_for((tmp_path / "pid").exists)
        parent.send_signal(signal.SIGKILL)
    pid = int((tmp_path / "pid").read_text())
    _wait_for(lambda: _gone(pid))


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"  # dead, and its new parent has not looked yet


def _wait_for(condition) -> None:  # noqa: ANN001
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.02)


def test_misuse_is_refused() -> None:
    """No samples, or a runtime that workers do not have."""
    with pytest.raises(UsageError, match="expected samples for onnxruntime or openvino, got 0 for onnxruntime"):
        PYTHON.predict(MODEL, [])
    with pytest.raises(UsageError, match="got 1 for litert"):
        PYTHON.predict(MODEL, [Sample({}, None)], runtime=RuntimeName.LITERT)

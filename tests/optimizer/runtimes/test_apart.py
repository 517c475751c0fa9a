"""A runtime in a process of its own: the same answers, a reason when it dies, and nothing of it is ever left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from edgeopt.recipe import RuntimeName
from edgeopt.runtimes import apart
from edgeopt.runtimes.apart import ApartSession, compare, open_apart
from edgeopt.runtimes.child import ALIVE, Answered, Load, Time, serve
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.runtimes.port import Session, open_session
from edgeopt.samples import Array, Sample, stack
from edgeopt.search.deadline import OutOfTime, deadline
from edgeopt.timing import SCREENING, Plan, estimate
from edgeopt_contract.errors import ModelError
from tests.optimizer.plain_int8 import plain_int8

CHILD = Path(__file__).with_name("doomed_child.py")
PLAIN = Path(__file__).with_name("plain_openvino.py")
ROOT = Path(__file__).parents[3]
ONES = [Sample({"x": np.ones(1, np.float32)}, "a label")] * 3
SHORT = Plan(seconds=0, repetitions=6, warm_up=1, least_rounds=1)
RUNS, RATE = 20, 0.05

Doom = Callable[[str, str], None]


@pytest.fixture
def doom(monkeypatch: pytest.MonkeyPatch) -> Doom:
    """Let children meet a fate at a moment."""

    def set_fate(moment: str, fate: str) -> None:
        monkeypatch.setattr(apart, "COMMAND", (sys.executable, str(CHILD), moment, fate))

    return set_fate


def _load(model: bytes = b"", runtime: RuntimeName = RuntimeName.OPENVINO) -> Load:
    return Load(model=model, runtime=runtime, threads=1)


def _both(session: Session, samples: list[Sample]) -> dict[str, Array]:
    """Return the answers of ``session`` to ``samples``, asked together and singly."""
    asked = {"together": session.predict(samples), "singly": session.predict_singly(samples)}
    return {f"{how}/{name}": array for how, answers in asked.items() for name, array in answers.items()}


def _plainly(model: bytes, samples: list[Sample], folder: Path) -> dict[str, Array]:
    """Return what :func:`_both` returns in a process that opens the session as any program would."""
    (folder / "model.onnx").write_bytes(model)
    np.savez(folder / "inputs.npz", **stack(samples))
    subprocess.run(
        [sys.executable, str(PLAIN), str(folder)], check=False, cwd=ROOT, timeout=120
    )  # it may die at its end
    with np.load(folder / "outputs.npz") as outputs:
        return dict(outputs)


def _assert_same(expected: dict[str, Array], actual: dict[str, Array]) -> None:
    assert list(expected) == list(actual)
    assert all(np.array_equal(expected[name], actual[name]) for name in expected)


def _gone(pid: int) -> bool:
    """Tell whether the process ends; a test's own time limit is the only one."""
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)


class TestDying:
    """What a child does that a process should not do."""

    @pytest.mark.parametrize(
        ("moment", "doing", "ask"),
        [
            ("load", "it loaded the model", lambda: open_apart(b"", RuntimeName.OPENVINO, threads=1)),
            ("predict", "it answered samples", lambda: open_apart(b"", RuntimeName.OPENVINO, threads=1).predict(ONES)),
            ("run", "it was timed", lambda: compare((_load(), _load()), [stack(ONES[:1])], SHORT)),
        ],
    )
    def test_a_signal_is_a_reason(self, doom: Doom, moment: str, doing: str, ask: Callable[[], object]) -> None:
        """The variant is refused in one sentence that says of what the runtime died, and when."""
        doom(moment, "segv")
        with pytest.raises(ModelError, match=f"^OpenVINO died of signal 11 while {doing}; the variant is left out$"):
            ask()

    def test_a_fault_that_is_nobodys_is_told(self, doom: Doom) -> None:
        """What is no error of edgeopt's ends the child; its last words are passed on."""
        doom("predict", "exit")
        reason = r"LiteRT ended with exit code 1 \(RuntimeError: no memory left\) while it answered samples"
        with pytest.raises(ModelError, match=reason):
            ApartSession(b"", RuntimeName.LITERT, threads=1).predict(ONES)

    def test_one_that_hangs_is_ended(self, doom: Doom, monkeypatch: pytest.MonkeyPatch) -> None:
        """When it gave no sign of life for as long as the patience lasts."""
        doom("predict", "hang")
        session = ApartSession(b"", RuntimeName.OPENVINO, threads=1)
        monkeypatch.setattr(apart, "PATIENCE", 2.0)
        reason = "OpenVINO gave no sign of life for 2 s while it answered samples; the variant is left out"
        with pytest.raises(ModelError, match=reason):
            session.predict(ONES)
        assert _gone(session._child._process.pid)

    def test_a_search_that_runs_out_of_time_interrupts_it(self, doom: Doom) -> None:
        """A call into a library could not be interrupted in this process; a child can be ended."""
        doom("predict", "hang")
        session = ApartSession(b"", RuntimeName.OPENVINO, threads=1)
        with pytest.raises(OutOfTime), deadline(2.0):
            session.predict(ONES)
        assert _gone(session._child._process.pid)

    def test_a_model_that_is_refused_does_not_end_it(self) -> None:
        """An error of edgeopt's own comes back as it is."""
        with pytest.raises(ModelError, match=r"OpenVINO .* cannot load the model"):
            open_apart(b"rubbish" * 9, RuntimeName.OPENVINO, threads=1)


class TestLeavingNothing:
    """No child outlives what it is for."""

    def test_it_ends_with_its_session(self, doom: Doom) -> None:
        """Nothing has to be closed."""
        doom("never", "segv")
        session = ApartSession(b"", RuntimeName.OPENVINO, threads=1)
        pid = session._child._process.pid
        assert [[1.0]] * 3 == session.predict(ONES)["y"].tolist()
        del session
        assert not Path(f"/proc/{pid}").exists()

    @pytest.mark.skipif(sys.platform != "linux", reason="a child that hangs is ended with its parent on Linux only")
    @pytest.mark.parametrize("moment", ["never", "predict"])
    def test_it_dies_with_a_parent_that_is_killed(self, moment: str) -> None:
        """By kill -9, whether it waits or hangs with every signal blocked that can be."""
        program = f"""
            import sys
            import numpy as np
            from edgeopt.recipe import RuntimeName
            from edgeopt.runtimes import apart
            from edgeopt.samples import Sample

            apart.COMMAND = (sys.executable, {str(CHILD)!r}, {moment!r}, "hang")
            session = apart.ApartSession(b"", RuntimeName.OPENVINO, threads=1)
            print(session._child._process.pid, flush=True)
            while True:
                session.predict([Sample({{"x": np.ones(1, np.float32)}}, None)])
        """
        with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            os.kill(parent.pid, signal.SIGKILL)
        assert _gone(child)


class TestTheSame:
    """What is done in a child is what would have been done here."""

    def test_openvino_answers_float_bit_for_bit_as_here(self, trained_digits: tuple[bytes, list[Sample]]) -> None:
        """Together and singly, more samples than go into one message; inputs and specs as well."""
        model, samples = trained_digits
        here = open_session(model, RuntimeName.OPENVINO, threads=1)
        there = open_apart(model, RuntimeName.OPENVINO, threads=1)
        assert here.inputs == there.inputs
        assert here.specs(samples[0]) == there.specs(samples[0])
        _assert_same(_both(here, samples[:70]), _both(there, samples[:70]))

    def test_openvino_answers_int8_bit_for_bit_as_without_a_child(
        self, trained_digits: tuple[bytes, list[Sample]], tmp_path: Path
    ) -> None:
        """A process that uses it plainly gives what is expected: this one would not survive OpenVINO's int8."""
        model, samples = trained_digits
        int8 = plain_int8(model, samples[:32])
        expected = _plainly(int8, samples[:70], tmp_path)
        _assert_same(expected, _both(open_apart(int8, RuntimeName.OPENVINO, threads=1), samples[:70]))

    def test_onnxruntime_stays_here(
        self, trained_digits: tuple[bytes, list[Sample]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It runs the float model in this process anyway; no child is started for it, simulated or timed."""
        model, samples = trained_digits
        monkeypatch.setattr(apart, "COMMAND", ("no such program",))
        for simulated in (False, True):
            session = open_apart(model, RuntimeName.ONNXRUNTIME, threads=1, simulated=simulated)
            assert isinstance(session, OnnxRuntimeSession)
        plain = _load(model, RuntimeName.ONNXRUNTIME)
        assert 6 == len(compare((plain, plain), [stack(samples[:1])], SHORT).baseline)

    def test_only_onnxruntime_simulates(self) -> None:
        """As everywhere."""
        with pytest.raises(ModelError, match="cannot simulate the integer kernels"):
            open_apart(b"", RuntimeName.OPENVINO, threads=1, simulated=True)

    def test_a_measurement_says_that_it_is_alive(self, trained_digits: tuple[bytes, list[Sample]]) -> None:
        """Once for each repetition, so that a long one is not taken for one that hangs; then come all times."""
        model, samples = trained_digits
        ours, theirs = Pipe()
        thread = threading.Thread(target=serve, args=(theirs,))
        thread.start()
        plain = _load(model, RuntimeName.ONNXRUNTIME)
        ours.send(Time((plain, plain), [stack(samples[:1])], SHORT))
        said: list[Any] = [ours.recv() for _ in range(SHORT.repetitions + 1)]
        ours.close()
        thread.join()
        theirs.close()
        assert [ALIVE] * SHORT.repetitions == said[:-1]
        assert isinstance(said[-1], Answered)
        assert SHORT.repetitions == len(said[-1].value.baseline) == len(said[-1].value.variant)

    def test_a_slower_model_is_slower_through_the_child(self) -> None:
        """Both are timed there: 64 times the work shows as such, whatever a message costs."""
        small, large = (_products(count) for count in (1, 64))
        feeds = [stack([Sample({"x": np.ones((64, 64), np.float32)}, None)])]
        ours, theirs = _load(small, RuntimeName.ONNXRUNTIME), _load(large)
        assert estimate(compare((ours, theirs), feeds, SCREENING)).ratio_high < 1

    @pytest.mark.gate_rates
    @pytest.mark.timeout(900)
    def test_equal_models_are_seldom_called_different(
        self, trained_digits: tuple[bytes, list[Sample]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A/A through the child: at most as often as a true rate of 5 % gives with a probability of 99.9 %."""
        model, samples = trained_digits
        speeds = [
            estimate(compare((_load(model), _load(model)), [stack(samples[:1])], Plan(seconds=0.16)))
            for _ in range(RUNS)
        ]
        different = sum(not speed.ratio_low <= 1 <= speed.ratio_high for speed in speeds)
        with capsys.disabled():
            print(f"\n  A/A of OpenVINO through a child: {different} of {RUNS} called different", end="")
        assert stats.binom.ppf(0.999, RUNS, RATE) >= different


def _products(count: int) -> bytes:
    """Return a model that multiplies a matrix with itself ``count`` times, scaled so that nothing overflows."""
    import onnx
    from onnx import numpy_helper

    nodes, value = [], "x"
    for number in range(count):
        product, result = f"p{number}", "y" if number == count - 1 else f"v{number}"
        nodes.append(onnx.helper.make_node("MatMul", [value, "x"], [product]))
        nodes.append(onnx.helper.make_node("Mul", [product, "scale"], [result]))
        value = result
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "products",
        [info("x", 1, ["n", 64, 64])],
        [info("y", 1, ["n", 64, 64])],
        [numpy_helper.from_array(np.array(1 / 64, np.float32), "scale")],
    )
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())

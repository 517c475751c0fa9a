"""What each target gets when there are several, and on what that is certified; a stand-in emulates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from edgeopt import certification, pipeline
from edgeopt.cli import group
from edgeopt.criteria import PairedScores, judge_all
from edgeopt.decision import Decision
from edgeopt.emulation.execution import Execution, ExecutionKind, execution_for
from edgeopt.emulation.planning import Cost
from edgeopt.evidence import compose_bundle
from edgeopt.gate import Verdict
from edgeopt.pipeline import Watcher, read_original, run, settle
from edgeopt.recipe import Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array, Sample
from edgeopt.search.workshop import Workshop
from edgeopt.sources import DataSources
from edgeopt.stages import Findings, Request, Variant
from edgeopt.targets import Target, host_target, read_target
from edgeopt_contract.errors import UsageError

DEVICES = Path(__file__).parents[2] / "devices"
PI = read_target(DEVICES / "raspberry-pi-4.toml")
HERE = dataclasses.replace(host_target(), name="here", runtimes={"onnxruntime": "1.20"})
LEAST = 149  # samples of which none may differ: the exact bound at 2 points and 95 % (Clopper and Pearson)


class _Board:
    """Stands in for an emulator: it answers as exact arithmetic does, or nonsense."""

    title = "qemu-aarch64 -cpu stand-in"

    def __init__(self, *, seconds: float, right: bool = True) -> None:
        self._seconds, self._right = seconds, right
        self.asked: list[int] = []

    def predict(
        self, model: bytes, samples: Sequence[Sample], *, on_sample: Callable[[], None], **_options: Any
    ) -> dict[str, Array]:
        self.asked.append(len(samples))
        for _ in samples:
            on_sample()
        outputs = OnnxRuntimeSession(model, threads=1, simulated=True).predict(samples)
        return outputs if self._right else {name: np.roll(array, 1, axis=1) for name, array in outputs.items()}

    def cost(self, _model: bytes, _samples: Sequence[Sample], *, threads: int) -> Cost:
        return Cost(start=0.0, each=self._seconds)


class _Listener(Watcher):
    """Remembers the steps."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, words: str) -> None:
        self.steps.append(words)


@pytest.fixture
def emulating(monkeypatch: pytest.MonkeyPatch, stopwatch: Callable[[float], None]) -> Callable[[_Board], None]:
    """Let a board be what emulates the Pi; int8 is faster here."""
    stopwatch(1.5)

    def set_board(board: _Board) -> None:
        def chosen(target: Target, host: Target, roots: Path | None = None) -> Execution:
            if target.arch == host.arch:
                return execution_for(target, host, roots)
            return Execution(ExecutionKind.EMULATED, f"emulated ({board.title})", board)  # type: ignore[arg-type]

        monkeypatch.setattr(pipeline, "execution_for", chosen)

    return set_board


def request(output: Path, *targets: Target, **options: Any) -> Request:
    """Return a request for the digits."""
    data = DataSources(single="edgeopt_zoo:digits_data")
    settings = {"max_drop": 0.02, "name": "net", "data": data, "model": "edgeopt_zoo:digits"}
    return Request(output=output, targets=targets, **(settings | options))


def test_an_emulated_cpu_answers_the_certification_samples(tmp_path: Path, emulating: Callable[[_Board], None]) -> None:
    """Once each, with progress; the report says by what."""
    board, listener = _Board(seconds=0.01), _Listener()
    emulating(board)
    (pi,) = run(request(tmp_path / "out", PI), listener).result.targets
    assert f"emulated ({board.title})" == pi.execution
    assert [1079] == board.asked
    assert 1079 == pi.criteria[0].n
    assert f"int8 on {board.title}: 1079 of 1079 samples" in listener.steps
    assert f"int8 by onnxruntime on {PI.name}" == pi.stages[-1].stage


def test_a_slow_one_answers_as_many_as_its_time_allows(tmp_path: Path, emulating: Callable[[_Board], None]) -> None:
    """At least what the gate needs, in powers of two of that, and the report says how many of how many."""
    board = _Board(seconds=1.0)
    emulating(board)
    (pi,) = run(request(tmp_path / "out", PI, emulator_seconds=400.0), Watcher()).result.targets
    assert [2 * LEAST] == board.asked
    assert f"emulated ({board.title}), {2 * LEAST} of 1079 samples" == pi.execution
    assert 2 * LEAST == pi.criteria[0].n
    int8, fp32 = pi.variants
    assert 2 * LEAST == fp32.metric.n
    assert fp32.metric.value - int8.metric.value == pytest.approx(int8.metric.drop)


def test_one_that_is_too_slow_gives_way_to_simulated_integers(
    tmp_path: Path, emulating: Callable[[_Board], None]
) -> None:
    """The reason has no measured number in it: it is part of the bundle, which must be the same each time."""
    titles = []
    for name, seconds in (("one", 50.0), ("two", 60.0)):
        board = _Board(seconds=seconds)
        emulating(board)
        outcome = run(request(tmp_path / name, PI), Watcher())
        titles.append(outcome.result.targets[0].execution)
        assert [] == board.asked
        assert "int8 simulated" == outcome.result.targets[0].stages[-1].stage
    why = f"{_Board.title} cannot answer the {LEAST} samples that the gate needs in 300 s"
    assert [f"simulated integers: {why}"] * 2 == titles


def test_one_target_that_fails_leaves_no_bundle(tmp_path: Path, emulating: Callable[[_Board], None]) -> None:
    """The other's verdict stands in the report, and the run's is the worst."""
    emulating(_Board(seconds=0.001, right=False))
    outcome = run(request(tmp_path / "out", HERE, PI), Watcher())
    assert outcome.bundle is None
    assert {"here": "PASS", PI.name: "FAIL"} == {one.target: one.verdict for one in outcome.result.targets}
    assert "FAIL" == outcome.result.verdict
    assert (None, "") == (outcome.result.target(PI.name).chosen, outcome.result.target(PI.name).variants[0].file)


def test_the_terminal_says_for_whom_there_is_no_bundle(
    tmp_path: Path, emulating: Callable[[_Board], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the verdicts of all."""
    emulating(_Board(seconds=0.001, right=False))
    monkeypatch.setenv("EDGEOPT_TRACKING", "0")
    profiles = ("--target", str(DEVICES / "raspberry-pi-4.toml"), "--target", str(DEVICES / "x86-vnni.toml"))
    arguments = ["edgeopt_zoo:digits", "--data", "edgeopt_zoo:digits_data", "--max-drop", "2%", *profiles]
    command: click.Group = group
    said = CliRunner().invoke(command, ["quantize", *arguments, "-o", str(tmp_path / "out")], standalone_mode=False)
    assert 3 == said.return_value
    assert "FAIL for raspberry-pi-4" in said.output
    assert "no bundle, for it would have to serve raspberry-pi-4 too" in said.output


def test_a_second_variant_ships_only_if_it_passed(tmp_path: Path) -> None:
    """It stands behind the best one for devices that lack its runtime, and is judged like it."""
    setting, original, *_ = read_original(settle(request(tmp_path / "out", HERE)), lambda _step: None)
    limits = setting.request.limits
    workshop = Workshop(original.floats, original.splits.calibration, seed=0, threads=1)

    def variant(precision: Precision, lost: int) -> Variant:
        recipe, right = Recipe(precision=precision), np.ones(1000)
        answers = np.where(np.arange(1000) < lost, 0.0, right)
        judgement = judge_all(PairedScores(baseline=right, variant=answers, agreement=answers), limits)
        native = Execution(ExecutionKind.NATIVE, "this CPU")
        return Variant(recipe, workshop.build(recipe), judgement, 1.0, None, native)

    for lost, names in ((0, ["int8", "int8-weights", "fp32"]), (100, ["int8", "fp32"])):
        certified = (variant(Precision.INT8, 0), variant(Precision.INT8_WEIGHTS, lost))
        decision = Decision(Verdict.PASS, "int8", ())
        contents = compose_bundle(setting, original, [Findings(HERE, "this CPU", decision, certified, (), ())])
        assert contents is not None
        assert names == [one.name for one in contents.variants]


def test_two_targets_of_one_name_are_refused_before_any_work(tmp_path: Path) -> None:
    """The same profile twice as well as two that were copied."""
    with pytest.raises(UsageError, match="two targets are called here: give each profile once"):
        run(request(tmp_path / "out", HERE, PI, dataclasses.replace(PI, name="here"), model="nowhere:model"), Watcher())


def test_nothing_is_said_to_have_run_where_fp32_is_kept(tmp_path: Path, stopwatch: Callable[[float], None]) -> None:
    """fp32 is the baseline itself."""
    stopwatch(0.8)
    (target,) = run(
        request(tmp_path / "out", HERE, model="edgeopt_zoo:tiny", data=DataSources(single="edgeopt_zoo:table")),
        Watcher(),
    ).result.targets
    assert certification.FP32_KEPT == target.execution

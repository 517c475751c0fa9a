"""The comparison from end to end on the digits example, with edgeopt's command and the peers' processes replaced."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.optimizer import compare, judging
from benchmarks.optimizer.cases import CASES
from benchmarks.optimizer.judging import Court
from benchmarks.optimizer.peers.catalogue import PEERS
from benchmarks.optimizer.peers.port import Made
from benchmarks.optimizer.peers.worker import Result
from edgeopt.splits import Split
from edgeopt.timing import Plan, Times

_QUICK = Plan(seconds=0.01, repetitions=6, warm_up=1, least_rounds=1)
_GOOD, _BROKEN, _HUNG = "onnxruntime, defaults", "onnxruntime, dynamic", "onnxsim, quantize_auto"


@pytest.fixture(scope="module")
def court() -> Court:
    """The digits example, ready to judge."""
    return Court.of(CASES["digits"])


class Runs:
    """What stands in for edgeopt's command: it chooses ``made``, and counts how often it is asked."""

    def __init__(self, court: Court, made: Made | None) -> None:
        self.count, self.code, self.said = 0, 0, ""
        splits = {str(split): SimpleNamespace(hash=root) for split, root in court.splits.roots.items()}
        self.report: Any = SimpleNamespace(splits=splits, seconds=1.0)
        self.target = SimpleNamespace(reasons=("too few samples",))
        self._made = made

    def __call__(self, *_arguments: object) -> Runs:
        """Run."""
        self.count += 1
        return self

    def made(self) -> Made | None:
        """Return what was chosen."""
        return self._made


def answer(peer: str, *_arguments: object, **_options: object) -> Result:
    """Stand in for the peers' processes: one answers with the float model, one with rubbish, one with a reason."""
    if peer == _HUNG:
        return Result(made=None, seconds=60.0, problem="not done after 60 s")
    return Result(made=Made(model=b"rubbish") if peer == _BROKEN else Made(model=_Float.model), seconds=2.0)


class _Float:
    """The float model, for :func:`answer`."""

    model = b""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, court: Court) -> Runs:
    """Replace command and processes; edgeopt chooses the float model."""
    runs = Runs(court, Made(model=court.float_model, note="fp32"))
    monkeypatch.setattr(_Float, "model", court.float_model)
    monkeypatch.setattr(compare, "Court", SimpleNamespace(of=lambda _case: court))
    monkeypatch.setattr(compare, "run_edgeopt", runs)
    monkeypatch.setattr(compare, "quantized", answer)
    monkeypatch.setattr(judging, "measure", lambda *_arguments: Times(((0.002,),) * 6, ((0.002,),) * 6))
    return runs


def invoke(folder: Path, *more: str) -> tuple[int, str, Mapping[str, Any]]:
    """Run the command on digits; return its exit code, what it printed and its JSON."""
    peers = [f"--peer={peer}" for peer in (_GOOD, _BROKEN, _HUNG)]
    files = ["--output", str(folder / "a.json"), "--plot", str(folder / "a.svg")]
    done = CliRunner().invoke(compare.main, ["--only", "digits", *peers, *files, *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.output, json.loads((folder / "a.json").read_text())


def test_run_leaves_rows_claims_and_plot(run: Runs, tmp_path: Path) -> None:
    """One row for edgeopt and each peer; what failed says why; the machine is recorded by model."""
    code, said, told = invoke(tmp_path)
    assert (0, 1) == (code, run.count)
    by_tool = {row["tool"]: row for row in told["rows"]}
    assert ["edgeopt", _GOOD, _BROKEN, _HUNG] == list(by_tool)
    assert 1.0 == by_tool[_GOOD]["figures"]["agreement"]
    assert by_tool[_BROKEN]["problem"].startswith("its model does not run: ModelError")
    assert "not done after 60 s" == by_tool[_HUNG]["problem"]
    assert {"cpu", "versions", "commit", "load_average", "load_average_after", "peers"} <= set(
        told["machines"]["digits"]
    )
    assert "MET: no peer is both" in said
    assert "MISSED: edgeopt is strictly best on 0 of 1 models" in said  # the same model is a tie
    assert (tmp_path / "a.svg").read_text().startswith("<svg")


def test_resumed_run_measures_nothing_again(run: Runs, tmp_path: Path) -> None:
    """The rows are those of the first run, and the command is not asked."""
    _, _, first = invoke(tmp_path)
    code, _, second = invoke(tmp_path, "--resume", "--check")
    assert (1, 1) == (code, run.count)  # checked: a tie is not strictly best
    assert first["rows"] == second["rows"]


def test_nothing_chosen_is_a_row_with_the_reasons(
    run: Runs, court: Court, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The peers are measured all the same."""
    monkeypatch.setattr(compare, "run_edgeopt", Runs(court, None))
    _, _, told = invoke(tmp_path)
    assert "nothing was chosen: too few samples" == told["rows"][0]["problem"]
    assert 1.0 == told["rows"][1]["figures"]["agreement"]


def test_other_splits_end_the_run(run: Runs, tmp_path: Path) -> None:
    """Peers are never judged on other samples than edgeopt was."""
    run.report.splits[str(Split.CERTIFICATION)] = SimpleNamespace(hash="other")
    done = CliRunner().invoke(compare.main, ["--only", "digits", f"--peer={_GOOD}"])
    assert "digits: the peers would be judged on other splits" in str(done.exception)


def test_missing_tool_is_said_with_the_way_to_get_it(
    run: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started for it."""
    monkeypatch.setitem(PEERS, _GOOD, dataclasses.replace(PEERS[_GOOD], needs=("no-such-tool",)))  # type: ignore[type-var]
    _, _, told = invoke(tmp_path)
    assert "not installed: pip install no-such-tool" == told["rows"][1]["problem"]


def test_judge_finds_a_model_equal_to_itself(court: Court) -> None:
    """The float model agrees with itself on every sample and has the float model's score."""
    figures = court.judge(Made(model=court.float_model), _QUICK).figures
    assert (1.0, court.fp32_score, len(court.float_model)) == (figures.agreement, figures.score, figures.size_bytes)
    assert figures.ratio_low <= figures.ratio <= figures.ratio_high


def test_peers_never_get_the_certification_split(court: Court) -> None:
    """What a tool is given comes from the two other splits."""
    work = court.work()
    given = {id(sample) for sample in (*work.calibration, *work.selection)}
    assert not given & {id(sample) for sample in court.splits.certification}
    assert given <= {id(sample) for sample in (*court.splits.calibration, *court.splits.selection)}

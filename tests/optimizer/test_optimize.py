"""``edgeopt optimize``: what it refuses, what it leaves behind, and what it says of its time."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from edgeopt import pipeline
from edgeopt.cli import group
from edgeopt.cli.outcome import watching
from edgeopt.recipe import Precision, Recipe
from edgeopt.search.budget import Budget
from edgeopt_contract.bundle import open_bundle
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import ExitCode
from tests.optimizer.search.conftest import made_up_trial

Capture = pytest.CaptureFixture[str]


def _optimize(output: Path, *more: str, model: str = "edgeopt_zoo:tiny") -> int:
    line = ["optimize", model, "--data", "edgeopt_zoo:table", "--max-drop", "2%", "--no-tracking", "-o", str(output)]
    return run_command(lambda: group([*line, *more], prog_name="edgeopt", standalone_mode=False))


@pytest.mark.parametrize(
    ("options", "model", "message"),
    [
        (["--train-data", "a:b"], "edgeopt_zoo:tiny", "--train-data is for pruning: give --prune"),
        (["--train", "a:b"], "edgeopt_zoo:tiny", "--train is for pruning: give --prune"),
        (["--no-quantize"], "edgeopt_zoo:tiny", "--no-quantize leaves nothing to try"),
        (["--no-quantize", "--runtime", "onnxruntime"], "edgeopt_zoo:tiny", "--no-quantize leaves nothing to try"),
        (["--prune"], "net.onnx", "--prune needs the PyTorch module"),
        (["--prune", "--speedup", "0.9"], "edgeopt_zoo:tiny", "speedup is 0.9: expected above 1"),
        (["--budget", "5s"], "edgeopt_zoo:tiny", "--budget 5s is too short"),
        (["--budget", "soon"], "edgeopt_zoo:tiny", "--budget 'soon': expected a time"),
    ],
)
def test_what_cannot_lead_to_anything_is_refused_at_once(
    options: list[str], model: str, message: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, exit 2, before the model is looked for; nothing is written."""
    monkeypatch.setattr(pipeline, "load_model", lambda reference: pytest.fail(f"loaded {reference}"))
    assert ExitCode.BAD_INPUT == _optimize(tmp_path / "out", *options, model=model)
    said = capsys.readouterr().err.strip()
    assert message in said
    assert 1 == len(said.splitlines())
    assert [] == list(tmp_path.iterdir())


def test_json_is_all_that_stands_on_the_output(
    tmp_path: Path, stopwatch: Callable[[float], None], capsys: Capture
) -> None:
    """A program reads the report; the journal is gone, the search was thorough, the budget is said to have held."""
    stopwatch(0.9)
    assert ExitCode.GOOD == _optimize(tmp_path / "out", "--json", "--budget", "20m")
    report = json.loads(capsys.readouterr().out)
    assert ["out"] == [path.name for path in tmp_path.iterdir()]
    rungs = {trial["rung"] for trial in report["targets"][0]["trials"]}
    assert {"first recipes", "calibrator", "bias correction", "weights only"} <= rungs
    assert not any("no time" in note for note in report["notes"])
    assert 0 < report["seconds"] < 1200


def test_a_failed_run_keeps_its_journal(
    tmp_path: Path, stopwatch: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found lies beside the output for the next attempt, which answers nothing again."""
    stopwatch(0.9)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_run", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        assert ExitCode.GOOD != _optimize(tmp_path / "out")
    assert ["out.search"] == [path.name for path in tmp_path.iterdir()]
    monkeypatch.setattr(pipeline.Laboratory, "answer", lambda _self, request: pytest.fail(f"asked {request}"))
    assert ExitCode.GOOD == _optimize(tmp_path / "out")
    assert ["out"] == [path.name for path in tmp_path.iterdir()]


def test_a_short_budget_ends_the_search_and_says_so(
    tmp_path: Path, stopwatch: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes fifty times as fast: one variant is tried, and certified, and the rest is named."""
    stopwatch(2.0)
    seconds = pipeline.time.monotonic
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: 50 * seconds())
    assert ExitCode.GOOD == _optimize(tmp_path / "out", "--budget", "10s", model="edgeopt_zoo:tiny")
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert 1 == len(report["targets"][0]["trials"])
    assert any(
        re.search("left no time for all of the search for .*: .*bias correction", note) for note in report["notes"]
    )
    evidence = (tmp_path / "out" / "evidence.json").read_text()
    assert "left no time" not in evidence  # another run may have more: what differs is no part of the bundle
    assert "int8" == open_bundle(tmp_path / "out").manifest.variants[0].name


class TestDisplay:
    """What people see while it goes on."""

    @pytest.mark.parametrize("width", [60, 160])
    def test_it_shows_the_time_the_front_and_the_step(self, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Elapsed, left, how many, what is fastest, what goes on: in a narrow and in a wide terminal."""
        now = [100.0]
        budget = Budget(lambda: now[0], 600)
        now[0] += 65
        with watching(with_front=True) as watcher:
            watcher.begin(budget)
            watcher.step("timing")
            watcher.trial(made_up_trial(ratio=1.5))
            watcher.trial(made_up_trial(Recipe(precision=Precision.INT8_WEIGHTS), ratio=0.8, error=0.5))
            console = Console(file=io.StringIO(), width=width, force_terminal=False)
            console.print(watcher)
        shown = console.file.getvalue()
        assert "2 tried in 1:05 of 10:00, 8:55 left" in shown
        assert "timing …" in shown
        assert "1.50" in shown
        assert "0.80" not in shown
        assert max(map(len, shown.splitlines())) <= width

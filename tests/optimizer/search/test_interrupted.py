"""kill -9 at any point of ``edgeopt optimize``: begun again it goes on, and comes to the same bundle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import onnx
import pytest

from edgeopt.cli import group
from edgeopt.search.best import BEST, Best
from edgeopt_contract.bundle import open_bundle
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import ExitCode

ROOT = Path(__file__).parents[3]
DRIVER = Path(__file__).parent / "interrupted.py"
OPTIONS = ["--data", "examples.digits:data", "--max-drop", "3%", "--budget", "30m", "--threads", "1"]
PRUNE = ["--prune", "--speedup", "1.2", "--epochs", "2"]


def _optimize(output: Path, point: str, *more: str) -> tuple[int, str]:
    """Run to the point; return the exit code and what was said on the error stream."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDGEOPT_TRACKING": "0", "OMP_NUM_THREADS": "1"}
    log = output.with_name(f"{output.name}.log")
    line = [sys.executable, DRIVER, log, point, "optimize", "examples.digits:model", *OPTIONS, *more, "-o", output]
    done = subprocess.run(
        list(map(str, line)), cwd=output.parent, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def _log(output: Path) -> list[str]:
    return output.with_name(f"{output.name}.log").read_text().splitlines()


def _check_best(output: Path) -> Best:
    """Return the best so far, whose model is whole."""
    (path,) = (output.with_name(f"{output.name}.search")).glob(f"*/{BEST}")
    best = msgspec.json.decode(path.read_bytes(), type=Best)
    onnx.checker.check_model(onnx.load(path.with_name(best.file)))
    return best


@pytest.mark.ladder
@pytest.mark.timeout(600)
def test_killed_anywhere_it_resumes_to_the_same_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, in the middle of a line, with an answer unwritten, before the result: nothing is done twice.

    What comes out is bit for bit what an undisturbed run gives, a pruned network included, and can be built again.
    """
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert (0, "") == _optimize(whole, "never", *PRUNE)
    for point in ("training-3", "append-3", "answer-4", "writing"):
        code, said = _optimize(killed, point, *PRUNE)
        assert (-signal.SIGKILL, "") == (code, said), point
        assert not killed.exists()
        if point != "training-3":
            assert point != "writing" or _check_best(killed).trial is not None
            _check_best(killed)
    assert (0, "") == _optimize(killed, "never", *PRUNE)
    assert open_bundle(whole).digest == open_bundle(killed).digest
    once, again = _log(whole), _log(killed)
    assert set(once) == set(again)
    assert 1 == once.count("prune")
    assert 2 == again.count("prune")  # the first was killed in its training
    assert len(once) + 3 == len(again)  # that, the torn line, and the answer that was written nowhere
    assert not killed.with_name("killed.search").exists()
    recipes = open_bundle(killed).manifest.lineage["recipes"].values()
    assert any(recipe["pruned"] for recipe in recipes)
    monkeypatch.chdir(tmp_path)
    line = ["reproduce", str(killed)]
    assert ExitCode.GOOD == run_command(lambda: group(line, prog_name="edgeopt", standalone_mode=False))


@pytest.mark.ladder
def test_what_was_asked_for_in_another_way_is_begun_anew(tmp_path: Path) -> None:
    """A journal is of use only to the same request: another seed, other splits, other answers."""
    output = tmp_path / "out"
    assert -signal.SIGKILL == _optimize(output, "answer-3", "--seed", "1")[0]
    assert -signal.SIGKILL == _optimize(output, "answer-1", "--seed", "2")[0]
    first, _, _, fourth = _log(output)
    assert first == fourth

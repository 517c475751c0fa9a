"""From the command line to a certified directory; the stopwatch says what the test wants it to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from edgeopt_zoo import digits, digits_data, pictures

from edgeopt.cli import group
from edgeopt.pruning import search
from edgeopt.pruning.saved import ONNX, RECIPE, WEIGHTS, load_pruned
from edgeopt.pruning.speed import OnnxBench
from edgeopt.timing import Plan, Speed
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import ExitCode

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.pruning  # trains and exports: half a minute


def certified_too() -> Iterator[tuple[np.ndarray, int]]:
    """Yield pictures that the certification split has too."""
    inputs, labels = pictures()
    yield from ((picture, int(label)) for picture, label in zip(inputs[:200], labels[:200], strict=True))


def noisy() -> Iterator[tuple[np.ndarray, int]]:
    """Yield training pictures that are in no split: the digits with some noise."""
    random = np.random.default_rng(3)
    inputs, labels = pictures()
    for picture, label in zip(inputs, labels, strict=True):
        yield picture + random.normal(0, 0.05, picture.shape).astype(np.float32), int(label)


def other_shape() -> Iterator[tuple[np.ndarray, int]]:
    """Yield pictures of another size."""
    yield from ((np.zeros((1, 9, 9), np.float32), 0) for _ in range(4))


def forgetful(job: object) -> None:
    """Train so badly that nothing is left."""
    with torch.no_grad():
        for parameter in job.student.parameters():  # type: ignore[attr-defined]  # a TrainingJob
            parameter.zero_()


class Told(OnnxBench):
    """Compiles in earnest, and finds that the pruned network is a given number of times as fast."""

    ratio = 2.0

    def time(self, original: bytes, pruned: bytes, plan: Plan) -> Speed:
        """Run nothing."""
        return Speed(
            baseline_ms=1,
            variant_ms=1 / self.ratio,
            ratio=self.ratio,
            ratio_low=self.ratio,
            ratio_high=self.ratio,
            confidence=0.95,
            rounds=1,
        )  # fmt: skip  (a record of numbers)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    """Let nothing be timed."""
    monkeypatch.setattr(search, "OnnxBench", Told)
    monkeypatch.setattr(search, "STEPS", 2)  # each that is tried is exported, which takes a second
    monkeypatch.setattr(Told, "ratio", 2.0)
    return Told


def prune(output: Path, *more: str, model: str = "edgeopt_zoo:digits") -> int:
    """Run the command line in this process and return its exit code."""
    arguments = ["prune", model, "--data", "edgeopt_zoo:digits_data", "--epochs", "2", "-o", str(output), *more]
    return run_command(lambda: group(arguments, prog_name="edgeopt", standalone_mode=False))


def test_a_pass_writes_a_directory_that_loads(told: type[Told], tmp_path: Path, capsys: Capture) -> None:
    """Exit 0; the recipe tells data, speed and scores; without training data of its own there is a warning."""
    assert ExitCode.GOOD == prune(tmp_path / "out", "--max-drop", "20%", "--train-data", "test_run:noisy")
    shown = capsys.readouterr().out
    assert shown.startswith("PASS\n")
    assert "2.00 times as fast" in shown
    assert {ONNX, RECIPE, WEIGHTS} == {path.name for path in (tmp_path / "out").iterdir()}
    evidence = json.loads((tmp_path / "out" / RECIPE).read_text())["evidence"]
    assert {"calibration", "selection", "certification", "train"} == set(evidence["roots"])
    assert 2.0 == evidence["speed"]["ratio"]
    assert evidence["scores"]["criteria"][0]["upper"] <= 0.2
    inputs = torch.from_numpy(pictures()[0][:4])
    with torch.inference_mode():
        assert (4, 10) == load_pruned(tmp_path / "out")(inputs).shape
        assert (4, 10) == digits()(inputs).shape


def test_without_training_data_the_other_splits_serve_and_a_note_says_so(
    told: type[Told], tmp_path: Path, capsys: Capture
) -> None:
    """As JSON."""
    assert ExitCode.GOOD == prune(tmp_path / "out", "--max-drop", "30%", "--json")
    outcome = json.loads(capsys.readouterr().out)
    assert "PASS" == outcome["verdict"]
    assert "which is little" in outcome["notes"][0]
    assert outcome["macs"]["before"] > outcome["macs"]["after"]


def test_what_is_not_faster_is_refused_and_nothing_is_written(
    told: type[Told], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 3."""
    monkeypatch.setattr(told, "ratio", 0.97)
    assert ExitCode.GATE_FAIL == prune(tmp_path / "out", "--max-drop", "1%")
    assert "FAIL\n  pruning did not make it faster" in capsys.readouterr().out
    assert [] == list(tmp_path.iterdir())


def test_what_answers_wrong_is_refused_and_nothing_is_written(
    told: type[Told], tmp_path: Path, capsys: Capture
) -> None:
    """Exit 3, by the paired gate."""
    assert ExitCode.GATE_FAIL == prune(tmp_path / "out", "--max-drop", "1%", "--train", "test_run:forgetful")
    shown = capsys.readouterr().out
    assert "a drop of " in shown
    assert "(allowed: 1 point): train longer" in shown
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train-data", "test_run:certified_too"], "of its samples with the certification split"),
        (["--train-data", "test_run:other_shape"], "test_run:other_shape gives inputs"),
        (["--train", "test_run:nothing"], "has no function 'nothing'"),
        (["--speedup", "0.9"], "speedup is 0.9: expected above 1"),
        (["--round-to", "0"], "round_to is 0: expected at least 1"),
    ],
)
def test_what_cannot_be_used_is_refused(
    told: type[Told], arguments: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    """Exit 2 and one clear line; training on what certifies first of all."""
    assert ExitCode.BAD_INPUT == prune(tmp_path / "out", "--max-drop", "1%", *arguments)
    assert message in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


def test_a_file_cannot_be_pruned(told: type[Told], tmp_path: Path, capsys: Capture) -> None:
    """Channels are taken out of a module, so the message asks for its factory."""
    assert ExitCode.BAD_INPUT == prune(tmp_path / "out", "--max-drop", "1%", model="model.onnx")
    assert "give the function that builds it" in capsys.readouterr().err


def test_the_digits_are_many_enough() -> None:
    """The tests above rest on them."""
    assert 1797 == sum(1 for _ in digits_data())

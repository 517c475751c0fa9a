"""From files on disk to a verdict, as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import edgeopt_zoo
import numpy as np
import pytest
import torch
from PIL import Image

from edgeopt.cli import group
from edgeopt.silence import silenced
from edgeopt_contract.commands import run_command
from edgeopt_contract.errors import ExitCode

Ratio = Callable[[float], None]
Capture = pytest.CaptureFixture[str]


def _quantize(output: Path, model: str, data: Path, *more: str) -> int:
    """Run the command line in this process and return its exit code."""
    words = ["quantize", model, "--data", str(data), "-o", str(output), *more]
    return run_command(lambda: group(words, prog_name="edgeopt", standalone_mode=False))


def _labels(output: Path) -> list[str]:
    labels: list[str] = json.loads((output / "manifest.json").read_bytes())["labels"]
    return labels


def test_a_folder_of_digits_and_a_function(
    tmp_path: Path, digit_folder: Path, stopwatch: Ratio, capsys: Capture
) -> None:
    """Grey pictures reach a model that does not say what it wants; the folders' names are in the bundle."""
    stopwatch(1.5)
    output = tmp_path / "out"
    assert ExitCode.GOOD == _quantize(output, "edgeopt_zoo:digits", digit_folder, "--max-drop", "2%")
    assert capsys.readouterr().out.startswith("PASS: int8 is chosen")
    assert [f"digit {number}" for number in range(10)] == _labels(output)
    report = json.loads((output / "report.json").read_bytes())
    pictures, labels = edgeopt_zoo.pictures()
    with torch.inference_mode():
        own = float((edgeopt_zoo.digits()(torch.from_numpy(pictures)).argmax(1).numpy() == labels).mean())
    assert own == pytest.approx(report["baseline"]["metric"], abs=0.04)  # on a part of the digits


def test_an_exported_program_and_pictures_of_another_size(
    tmp_path: Path, digit_folder: Path, stopwatch: Ratio, capsys: Capture
) -> None:
    """Coloured pictures of 24 x 24 pixels become what the program wants: one channel of 8 x 8."""
    stopwatch(1.5)
    for path in digit_folder.rglob("*.png"):
        Image.open(path).convert("RGB").resize((24, 24), Image.Resampling.NEAREST).save(path)
    with silenced():
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(edgeopt_zoo.digits(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=shapes)
        torch.export.save(program, tmp_path / "net.pt2")
    numbers = ",".join(map(str, range(10)))
    options = ("--max-drop", "2%", "--labels", numbers)
    assert ExitCode.GOOD == _quantize(tmp_path / "out", str(tmp_path / "net.pt2"), digit_folder, *options)
    assert capsys.readouterr().out.startswith("PASS")
    assert numbers.split(",") == _labels(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert "net" == manifest["name"]


def test_a_table_and_its_label_column(tmp_path: Path, stopwatch: Ratio, capsys: Capture) -> None:
    """Whole numbers are the labels; how the table was read is in the lineage."""
    stopwatch(0.5)
    table = np.column_stack([edgeopt_zoo.TABLE, edgeopt_zoo.TABLE_LABELS])
    header = ",".join([*(f"x{place}" for place in range(16)), "kind"])
    np.savetxt(tmp_path / "t.csv", table, delimiter=",", header=header, comments="")
    options = ("--max-drop", "2%", "--label-column", "kind")
    assert ExitCode.GOOD == _quantize(tmp_path / "out", "edgeopt_zoo:tiny", tmp_path / "t.csv", *options)
    assert "PASS" in capsys.readouterr().out
    given = json.loads((tmp_path / "out" / "manifest.json").read_bytes())["lineage"]["settings"]["data"]
    assert {"data": str(tmp_path / "t.csv"), "label_column": "kind"} == given


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--input-shape", "8*8"), "error: --input-shape '8*8': expected the sizes of one sample with x between"),
        (("--input-shape", "16"), "error: the model's input wants 16: pictures are given as channels x height x width"),
        (("--labels", "digit 0,zero"), "which is not among --labels"),
    ],
)
def test_wrong_options_are_one_message(
    tmp_path: Path, digit_folder: Path, more: tuple[str, ...], message: str, capsys: Capture
) -> None:
    """Exit 2, nothing written."""
    options = ("--max-drop", "2%", *more)
    assert ExitCode.BAD_INPUT == _quantize(tmp_path / "out", "edgeopt_zoo:digits", digit_folder, *options)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_get_the_shape_that_is_asked_for(
    tmp_path: Path, digit_folder: Path, stopwatch: Ratio, capsys: Capture
) -> None:
    """--input-shape goes before what the files are, and stands in the lineage."""
    stopwatch(1.5)
    options = ("--metric", "agreement", "--max-drop", "20%", "--input-shape", "1x12x10")
    assert ExitCode.GOOD == _quantize(tmp_path / "out", "edgeopt_zoo:digits", digit_folder, *options)
    assert "PASS" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert [1, 12, 10] == manifest["inputs"][0]["shape"]
    assert [1, 12, 10] == manifest["lineage"]["settings"]["data"]["input_shape"]

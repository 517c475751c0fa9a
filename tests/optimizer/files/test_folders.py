"""Class folders: the order is that of the names, and what does not belong is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import edgeopt_zoo
import numpy as np
import pytest
from PIL import Image

from edgeopt.data import load_dataset
from edgeopt.files.folders import read_folder
from edgeopt.files.reading import Reading
from edgeopt.scoring import Metric
from edgeopt.sources import DataSources, read_splits
from edgeopt_contract.errors import DataError


def _picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, made in an order that is not that of their names."""
    for value, name in enumerate(("owl/2.png", "cat/b.PNG", "owl/10.png", "cat/a.png")):
        _picture(tmp_path / "pets" / name, 51 * value)
    return tmp_path / "pets"


def test_samples_come_by_class_and_name(folder: Path) -> None:
    """cat/a, cat/b, owl/10, owl/2, whatever the file system says."""
    dataset = load_dataset(str(folder), Reading())
    values = [round(float(sample.inputs["input"][0, 0, 0]) * 5) for sample in dataset.samples]
    assert [3, 1, 2, 0] == values
    assert [0, 0, 1, 1] == [sample.label for sample in dataset.samples]
    assert ("cat", "owl") == dataset.classes


def test_what_desktops_leave_behind_is_passed_over(folder: Path) -> None:
    """Hidden files and folders, Thumbs.db, and a text beside the classes."""
    for name in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "owl/desktop.ini", "README.md"):
        (folder / name).write_bytes(b"")
    (folder / ".cache").mkdir()
    assert 4 == len(load_dataset(str(folder), Reading()).samples)


def test_labels_in_the_models_order(folder: Path) -> None:
    """A folder with some of the model's classes only."""
    dataset = load_dataset(str(folder), Reading(labels=("owl", "dog", "cat")))
    assert [2, 2, 0, 0] == [sample.label for sample in dataset.samples]
    assert ("owl", "dog", "cat") == dataset.classes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stray.png", "stray.png lies beside the class folders"),
        ("cat/notes.txt", "notes.txt is neither a picture nor a WAV file"),
        ("cat/deep/c.png", "deep is a folder inside a class folder"),
        ("owl/hoot.wav", r"hoot.wav and .*a.png are of different kinds"),
        ("cat/c.png", r"cannot read the picture .*c.png"),
    ],
)
def test_what_does_not_belong_is_named(folder: Path, name: str, message: str) -> None:
    """The path, and why."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"text")
    with pytest.raises(DataError, match=message):
        load_dataset(str(folder), Reading())


def test_folders_that_have_no_classes(folder: Path) -> None:
    """No folders in it, one only, one that is empty."""
    with pytest.raises(DataError, match="cat has no class folders: expected one folder for each class"):
        read_folder(folder / "cat", Reading())
    (folder / "ant").mkdir()
    with pytest.raises(DataError, match=r"the class folder .*ant is empty"):
        read_folder(folder, Reading())
    shutil.rmtree(folder / "ant")
    shutil.rmtree(folder / "owl")
    with pytest.raises(DataError, match="has one class only, 'cat'"):
        read_folder(folder, Reading())


def test_three_folders_must_have_the_same_classes(folder: Path, tmp_path: Path) -> None:
    """A class more in one would shift its labels."""
    names = ("calibration", "selection", "certification")
    for offset, name in enumerate(names):
        for index in range(4):
            _picture(tmp_path / name / ("cat" if index % 2 else "owl") / f"{index}.png", 10 * offset + index)
    sources = {name: str(tmp_path / name) for name in names}
    assert ("cat", "owl") == read_splits(DataSources(**sources), 0, Metric("accuracy")).classes
    _picture(tmp_path / "selection" / "bee" / "1.png", 99)
    with pytest.raises(DataError, match=r"calibration and .*selection do not have the same classes \('bee'"):
        read_splits(DataSources(**sources), 0, Metric("accuracy"))


def test_pictures_are_the_digits_that_were_saved(digit_folder: Path) -> None:
    """Through PNG and back nothing is lost but the rounding to 8 bits."""
    dataset = load_dataset(str(digit_folder), Reading())
    pictures, labels = edgeopt_zoo.pictures()
    order = np.lexsort((np.arange(len(labels)), labels))
    assert np.allclose(pictures[order], [sample.inputs["input"] for sample in dataset.samples], atol=0.5 / 255 + 1e-6)
    assert labels[order].tolist() == [sample.label for sample in dataset.samples]

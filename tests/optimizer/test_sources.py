"""From sources to splits: nothing shared, drawn from the whole set, and hashed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeopt.loading import is_reference
from edgeopt.packing import check_output
from edgeopt.scoring import Metric
from edgeopt.sources import DataSources, SplitData, read_splits
from edgeopt.splits import MAX_CALIBRATION, Split, sample_digest
from edgeopt_contract.errors import DataError, UsageError

ACCURACY = Metric("accuracy")
Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write rows and labels to an .npz file and return its path."""

    def write(name: str, rows: np.ndarray, labels: np.ndarray | None = None) -> str:
        path = tmp_path / f"{name}.npz"
        np.savez(path, x=rows, y=np.zeros(len(rows), int) if labels is None else labels)
        return str(path)

    return write


def _digests(split: SplitData, name: str) -> set[str]:
    return {sample_digest(sample.inputs) for sample in getattr(split, name)}


def _rows(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)[:, None] * np.ones(3, np.float32)


def test_one_source_makes_three_splits_that_share_nothing(save: Save) -> None:
    """Every sample lands somewhere, none twice; duplicates stay together."""
    rows = np.concatenate([_rows(100), _rows(100)])  # each row twice
    splits = read_splits(DataSources(single=save("all", rows)), 0, ACCURACY)
    parts = [_digests(splits, name) for name in ("calibration", "selection", "certification")]
    assert 100 == len(set.union(*parts)) == sum(map(len, parts))
    assert 2 * len(parts[2]) == len(splits.certification)


def test_data_ordered_by_class_calibrates_on_all_classes(save: Save) -> None:
    """The first samples alone would show one class: the draw reaches through the whole set."""
    rows = _rows(3000)
    splits = read_splits(
        DataSources(
            calibration=save("a", rows), selection=save("b", _rows(50, 5000)), certification=save("c", _rows(50, 6000))
        ),
        0,
        ACCURACY,
    )
    assert MAX_CALIBRATION == len(splits.calibration)
    values = np.array([sample.inputs["input"][0] for sample in splits.calibration])
    counts, _ = np.histogram(values, bins=6, range=(0, 3000))
    assert counts.min() > MAX_CALIBRATION / 6 / 2


def test_the_same_data_in_another_order_gives_the_same_roots(save: Save) -> None:
    """A root names content; a changed label or value is another data set."""
    rows, labels = _rows(60), np.arange(60)
    base = read_splits(DataSources(single=save("a", rows, labels)), 0, ACCURACY).roots
    assert base == read_splits(DataSources(single=save("b", rows[::-1], labels[::-1])), 0, ACCURACY).roots
    relabelled = read_splits(DataSources(single=save("c", rows, labels + 1)), 0, ACCURACY).roots
    assert all(base[split] != relabelled[split] for split in Split)
    reseeded = read_splits(DataSources(single=save("a", rows, labels)), 1, ACCURACY).roots
    assert base != reseeded


def test_one_shared_sample_is_refused(save: Save) -> None:
    """Certifying on a calibration sample would be judging with a known answer."""
    sources = DataSources(
        calibration=save("a", _rows(20)), selection=save("b", _rows(20, 100)), certification=save("c", _rows(20, 19))
    )
    with pytest.raises(DataError, match="calibration and certification share 1 samples"):
        read_splits(sources, 0, ACCURACY)


def _pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 16, 16)).astype(np.float32)


def test_near_duplicates_land_together_and_are_counted(save: Save) -> None:
    """A brighter copy of a calibration picture would let the certification see what calibration saw."""
    pictures = _pictures(60)
    copies = np.clip(pictures * 1.05, 0, 1)
    splits = read_splits(DataSources(single=save("all", np.concatenate([pictures, copies]))), 0, ACCURACY)
    for name in ("calibration", "selection", "certification"):
        members = [sample.inputs["input"] for sample in getattr(splits, name)]
        held = {picture.tobytes() for picture in members}
        pairs = [(one.tobytes() in held, other.tobytes() in held) for one, other in zip(pictures, copies, strict=True)]
        assert {(True, True), (False, False)} == set(pairs)
    assert 60 == splits.near_duplicates
    assert 0 == read_splits(DataSources(single=save("b", pictures)), 0, ACCURACY).near_duplicates


def test_near_duplicates_across_given_splits_are_refused(save: Save) -> None:
    """How many, and one pair to look at."""
    pictures = _pictures(30)
    others = np.concatenate([_pictures(20, 1), np.clip(pictures[4:7] * 1.05, 0, 1)])
    sources = DataSources(
        calibration=save("a", pictures), selection=save("b", _pictures(20, 2)), certification=save("c", others)
    )
    expected = r"calibration and certification share 3, for instance sample 4 of .*a.npz and sample 20 of .*c.npz"
    with pytest.raises(DataError, match=expected):
        read_splits(sources, 0, ACCURACY)


def test_too_little_data_is_refused(save: Save) -> None:
    """Two samples cannot be three splits."""
    with pytest.raises(DataError, match="too small to split: expected at least 3 distinct samples, got 2"):
        read_splits(DataSources(single=save("a", _rows(2))), 0, ACCURACY)


def test_calibration_needs_no_labels() -> None:
    """Only what is scored must be labelled."""
    with pytest.raises(DataError, match="needs labels"):
        read_splits(DataSources(single="edgeopt_zoo:unlabelled"), 0, ACCURACY)
    splits = read_splits(
        DataSources(
            calibration="edgeopt_zoo:unlabelled",
            selection="edgeopt_zoo:sequences",
            certification="edgeopt_zoo:digits_data",
        ),
        0,
        Metric("agreement"),
    )
    assert {Split.CALIBRATION: 512, Split.SELECTION: 200, Split.CERTIFICATION: 1797} == splits.sizes()


def test_what_was_given_is_remembered() -> None:
    """For the lineage: sources by purpose."""
    assert {"data": "a:b"} == DataSources(single="a:b").given()
    three = DataSources(calibration="a:b", selection="c:d", certification="e:f").given()
    assert {"calibration": "a:b", "selection": "c:d", "certification": "e:f"} == three


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:b", True),
        ("a.b.c:d.e", True),
        ("a", False),
        ("a:", False),
        (":b", False),
        ("a/b:c", False),
        ("C:\\x", False),
    ],
)
def test_references(text: str, expected: bool) -> None:  # noqa: FBT001  (a table)
    """package.module:attribute, and no path."""
    assert expected is is_reference(text)


class TestCheckOutput:
    """Where a run may write."""

    def test_new_empty_and_older_results_are_fine(self, tmp_path: Path) -> None:
        """A second run replaces the first."""
        check_output(tmp_path / "new")
        check_output(tmp_path)
        (tmp_path / "report.json").write_text("{}")
        check_output(tmp_path)

    def test_anything_else_is_not(self, tmp_path: Path) -> None:
        """The whole directory would be replaced."""
        (tmp_path / "photo.jpg").write_bytes(b"")
        with pytest.raises(UsageError, match="give a new or empty one"):
            check_output(tmp_path)

"""Tables: columns become vectors in their order, labels stay what they mean, and every hole has an address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgeopt.files.reading import Reading
from edgeopt.files.tables import read_table
from edgeopt_contract.errors import DataError, MissingExtraError


def _table(path: Path, columns: dict[str, list[Any]]) -> Path:
    """Write the same columns as CSV or as Parquet, by the suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = zip(*columns.values(), strict=True)
        lines = [",".join("" if cell is None else str(cell) for cell in row) for row in (columns, *rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(params=["t.csv", "t.parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Both kinds of file hold to the same rules."""
    return tmp_path / str(request.param)


def test_columns_keep_their_order_and_classes_are_sorted(path: Path) -> None:
    """The label column may stand anywhere."""
    _table(path, {"b": [1, 2, 3], "label": ["owl", "cat", "owl"], "a": [0.5, -1.5, 1e3]})
    labelled = read_table(path, Reading())
    rows, labels = zip(*labelled.pairs, strict=True)
    assert "float32" == rows[0].dtype.name
    assert [[1, 0.5], [2, -1.5], [3, 1000]] == np.stack(rows).tolist()
    assert ((1, 0, 1), ("cat", "owl")) == (labels, labelled.classes)


@pytest.mark.parametrize(
    ("given", "expected"), [([3, 10, 3], [3, 10, 3]), ([0.5, 1.5, 2], [0.5, 1.5, 2.0]), ([2.0, 1.0, 2.0], [2, 1, 2])]
)
def test_numbers_are_labels_themselves(path: Path, given: list[float], expected: list[float]) -> None:
    """Class 10 is not the second class; a label of 0.5 is for a metric of one's own."""
    labelled = read_table(_table(path, {"x": [1, 2, 3], "y": given}), Reading(label_column="y"))
    labels = [label for _, label in labelled.pairs]
    assert (expected, ()) == (labels, labelled.classes)
    assert [type(item) for item in expected] == [type(label) for label in labels]


def test_labels_in_the_models_order(path: Path) -> None:
    """Names that --labels has get their place there."""
    _table(path, {"x": [1, 2], "label": ["owl", "cat"]})
    labelled = read_table(path, Reading(labels=("owl", "dog", "cat")))
    assert [0, 2] == [label for _, label in labelled.pairs]
    assert ("owl", "dog", "cat") == labelled.classes


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1, None], "label": [0, 1]}, "column 'x', row 2 has no value: fill it in"),
        ({"x": [1, float("nan")], "label": [0, 1]}, "column 'x', row 2 has no value"),
        ({"x": ["1", "red"], "label": [0, 1]}, "column 'x', row 2 holds 'red': expected a number"),
        ({"x": [1.0, 1e39], "label": [0, 1]}, "column 'x', row 2 holds .* within float32"),
        ({"x": [1.0, float("inf")], "label": [0, 1]}, "column 'x', row 2 holds .* finite"),
        ({"x": [1, 2], "label": ["a", None]}, "column 'label', row 2 has no label"),
        ({"x": [1, 2], "label": ["a", "a"]}, "has one class only, 'a'"),
        ({"x": [1, 2], "species": [0, 1]}, "has no column 'label', it has x, species: .* --label-column"),
        ({"label": [0, 1]}, "has the label column only"),
        ({"": [0, 1], "x": [1, 2], "label": [0, 1]}, "column 1 has no name; .* index=False"),
        ({"__index_level_0__": [0, 1], "label": [0, 1]}, "'__index_level_0__' looks like the index .* index=False"),
    ],
)
def test_what_is_wrong_has_an_address(path: Path, columns: dict[str, list[Any]], message: str) -> None:
    """Column and row, and what to do."""
    with pytest.raises(DataError, match=rf"{path.name}.*{message}"):
        read_table(_table(path, columns), Reading())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: expected a header"),
        (b"x,label\n1,0\n1,2,3\n", "row 2: expected 2 values as in the header, got 3"),
        (b"x,x,label\n1,1,0\n", "more than one column 'x'"),
        (b'x,label\n"1,0\n', "as CSV"),
        (b"x,label\n\xff,0\n", "as CSV: .*utf-8"),
        (b"x,label\n1_000,0\n", "column 'x', row 1 holds '1_000'"),
    ],
)
def test_csv_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    """A header, as many values in each row, UTF-8."""
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.csv", Reading())


def test_a_byte_order_mark_belongs_to_no_name(tmp_path: Path) -> None:
    """Spreadsheets write one before the header."""
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbflabel,x\r\n0,1\r\n\r\n1,2\r\n")
    assert [0, 1] == [label for _, label in read_table(tmp_path / "t.csv", Reading()).pairs]


def test_files_that_are_not_there_or_not_parquet(path: Path) -> None:
    """A missing file, a folder, and text that is called Parquet."""
    with pytest.raises(DataError, match="there is no file"):
        read_table(path, Reading())
    path.mkdir()
    with pytest.raises(DataError, match=r"cannot read .*: Is a directory"):
        read_table(path, Reading())
    other = path.with_name("other.parquet")
    other.write_text("hello, I am no table")
    with pytest.raises(DataError, match=r"cannot read .*other\.parquet as Parquet"):
        read_table(other, Reading())


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet needs it; CSV does not."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"edgeopt\[data\]"):
        read_table(tmp_path / "t.parquet", Reading())
    columns = {"x": [1, 2], "label": [0, 1]}
    assert 2 == len(list(read_table(_table(tmp_path / "t.csv", columns), Reading()).pairs))

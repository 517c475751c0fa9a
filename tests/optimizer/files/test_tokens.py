"""Token ids: integers that reach the model as they are, padded with what was declared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgeopt.data import fit_to, load_dataset
from edgeopt.files.reading import Labelled, Reading, TokenIds
from edgeopt.files.tokens import parse_tokens, read_tokens
from edgeopt.graph import prepare
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.sources import DataSources
from edgeopt_contract.errors import DataError, UsageError
from tests.optimizer import wild_graphs as wild

IDS = [[101, 7, 102], [101, 8, 9, 4, 102], [5]]
PADDED = [[101, 7, 102, 0, 0, 0], [101, 8, 9, 4, 102, 0], [5, 0, 0, 0, 0, 0]]
TOKENS = TokenIds(column="input_ids", pad=0, length=6)


def _write(path: Path, rows: Sequence[Any], labels: Sequence[Any], column: str = "input_ids") -> Path:
    """Write the same rows as JSON Lines, CSV or Parquet, by the suffix, with a text beside them."""
    columns = {"text": ["a text"] * len(rows), column: list(rows), "label": list(labels)}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        entries = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("\n".join(map(json.dumps, entries)) + "\n\n")
    else:
        cells = [[text, " ".join(map(str, ids)), label] for text, ids, label in zip(*columns.values(), strict=True)]
        path.write_text("\n".join(",".join(map(str, row)) for row in [list(columns), *cells]) + "\n")
    return path


@pytest.fixture(params=["t.jsonl", "t.csv", "t.parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """All kinds of file hold to the same rules."""
    return tmp_path / str(request.param)


def _lists(labelled: Labelled) -> tuple[list[Any], list[Any]]:
    inputs, labels = zip(*labelled.pairs, strict=True)
    assert all(np.int64 == array.dtype for array in inputs)
    return [array.tolist() for array in inputs], list(labels)


def test_rows_are_padded_at_their_end(path: Path) -> None:
    """To the declared length, else the model's, else the longest row's; text labels are classes."""
    _write(path, IDS, ["good", "bad", "good"])
    labelled = read_tokens(path, TOKENS, Reading())
    assert ("bad", "good") == labelled.classes
    assert (PADDED, [1, 0, 1]) == _lists(labelled)
    undeclared = TokenIds(column="input_ids", pad=0)
    assert PADDED == _lists(read_tokens(path, undeclared, Reading(shape=(6,))))[0]
    assert [row[:5] for row in PADDED] == _lists(read_tokens(path, undeclared, Reading(shape=(None,))))[0]
    (padded,) = {
        row[-1] for row in _lists(read_tokens(path, TokenIds(column="input_ids", pad=1, length=9), Reading()))[0]
    }
    assert 1 == padded


def test_a_mask_tells_tokens_from_padding(path: Path) -> None:
    """Both inputs have the model's names and dtypes."""
    _write(path, IDS, [0, 1, 0])
    tokens = TokenIds(column="input_ids", pad=0, length=6, mask="attention_mask")
    dataset = load_dataset(str(path), Reading(tokens=tokens))
    masks = [sample.inputs["attention_mask"].tolist() for sample in dataset.samples]
    assert [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0]] == masks
    assert PADDED == [sample.inputs["input_ids"].tolist() for sample in dataset.samples]
    wanted = {"input_ids": ("int32", (6,)), "attention_mask": ("int64", (6,))}
    assert {"int32", "int64"} == {array.dtype.name for array in fit_to(dataset.samples, wanted)[0].inputs.values()}


def test_ids_reach_the_model_unchanged(tmp_path: Path) -> None:
    """An embedding looks up the very rows that the ids name."""
    nodes = [wild.helper.make_node("Gather", ["table", "tokens"], ["y"])]
    table = wild.tensor("table", 200, 4)
    model = wild.model(nodes, [("tokens", wild.INT32, ["n", 6])], [("y", wild.FLOAT, ["n", 6, 4])], [table])
    session = OnnxRuntimeSession(prepare(model).model, threads=1)
    path = _write(tmp_path / "t.jsonl", IDS, [0, 1, 0], column="ids")
    samples = load_dataset(str(path), Reading(tokens=TokenIds(column="ids", pad=0, length=6))).samples
    rows = session.predict(fit_to(samples, session.inputs))["y"]
    assert np.array_equal(wild.onnx.numpy_helper.to_array(table)[np.array(PADDED)], rows)


@pytest.mark.parametrize(
    ("rows", "tokens", "message"),
    [
        (IDS, TokenIds(column="ids", pad=0), "has no .*'ids', it has .*input_ids"),
        (IDS, TokenIds(column="input_ids", length=6), "fewer than 6 tokens: say with what they are padded"),
        (
            IDS,
            TokenIds(column="input_ids", pad=0, length=4),
            "row 2 has 5 tokens, the model takes 4: let the tokenizer cut",
        ),
        ([[1], []], TOKENS, "column 'input_ids', row 2 has no token: remove the row"),
        ([[1], [2, -3]], TOKENS, "row 2 holds"),
        ([[1], [2**40]], TOKENS, r"row 2 holds the id 1099511627776: expected 0 to 2\*\*31"),
    ],
)
def test_what_is_wrong_has_an_address(path: Path, rows: list[list[int]], tokens: TokenIds, message: str) -> None:
    """Column and row, and what to do."""
    with pytest.raises(DataError, match=rf"{path.name}.*{message}"):
        read_tokens(_write(path, rows, [0] * len(rows)), tokens, Reading())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"input_ids": [1.5], "label": 0}', "row 1 holds .*expected a list of integers; tokenize the text first"),
        ('{"input_ids": [true], "label": 0}', "expected a list of integers"),
        ('{"input_ids": "some words", "label": 0}', "holds 'some words': expected ids with spaces"),
        ('{"input_ids": [1]}', "row 1 has no 'label', it has input_ids"),
        ('{"input_ids": [1], "label": null}', "row 1 has no label"),
        ("[1, 2]", "row 1: expected an object, got list"),
        ("{", "row 1: not JSON"),
        ("", "has no rows"),
    ],
)
def test_json_lines_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    """One object a line, with a list of whole numbers."""
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        read_tokens(tmp_path / "t.jsonl", TOKENS, Reading())


def test_other_axes_and_missing_files(tmp_path: Path) -> None:
    """A model of pictures does not read text; a list column without a declaration is explained."""
    path = _write(tmp_path / "t.jsonl", IDS, [0, 1, 0])
    with pytest.raises(DataError, match="has 3 axes for one sample: token ids have one"):
        read_tokens(path, TokenIds(column="input_ids", pad=0), Reading(shape=(3, 8, 8)))
    with pytest.raises(DataError, match="there is no file"):
        read_tokens(tmp_path / "none.jsonl", TOKENS, Reading())
    pq.write_table(pa.table({"ids": IDS, "label": [0, 1, 0]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="holds a list: if these are token ids, say so with --tokens ids"):
        load_dataset(str(tmp_path / "t.parquet"), Reading())


class TestDeclaration:
    """What stands on the command line."""

    def test_all_of_it(self) -> None:
        """In any order, and what was not said is left open."""
        assert TokenIds(column="ids") == parse_tokens("ids")
        full = TokenIds(column="ids", pad=1, length=64, mask="attention_mask")
        assert full == parse_tokens("ids, mask=attention_mask, length=64, pad=1")
        given = DataSources(single="t.jsonl", reading=Reading(tokens=full)).given()
        assert {"column": "ids", "pad": 1, "length": 64, "mask": "attention_mask"} == given["tokens"]

    @pytest.mark.parametrize(
        "text", ["", "ids,pad", "ids,pad=-1", "ids,pad=x", "ids,length=0", "ids,cut=3", "ids,pad=0,pad=1"]
    )
    def test_what_is_none(self, text: str) -> None:
        """With the form that is expected."""
        with pytest.raises(UsageError, match=r"--tokens .* expected COLUMN\[,pad=ID\]"):
            parse_tokens(text)

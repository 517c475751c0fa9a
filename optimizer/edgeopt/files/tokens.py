"""Texts as token ids: one text a row, in a column of a JSON Lines, CSV or Parquet file.

Tokenizing is not done here: ids depend on the model's own tokenizer, and are the data that the model sees. They are

- in ``.jsonl`` a list of integers, ``{"input_ids": [101, 2307, 102], "label": 1}``, one object a line;
- in ``.csv`` integers with spaces between them, ``101 2307 102``;
- in ``.parquet`` a list of integers.

Rows shorter than the model's length are padded at their end with the declared id; longer ones are an error, since where
to cut is the tokenizer's business. Columns other than that of the ids and the label are passed over: the text itself
often stands beside its ids. Labels are read as in :mod:`.tables`. Example::

    tokens = parse_tokens("input_ids,pad=0,length=128,mask=attention_mask")
    labelled = read_tokens(Path("reviews.jsonl"), tokens, Reading())
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.files.reading import Labelled, Reading, Shape, TokenIds
from edgeopt.files.tables import Columns, labels_of, read_columns
from edgeopt.samples import Array
from edgeopt_contract.errors import DataError, UsageError

__all__ = ["TOKEN_FILES", "parse_tokens", "read_tokens"]

TOKEN_FILES = frozenset((".csv", ".jsonl", ".parquet"))
_FORM = "expected COLUMN[,pad=ID][,length=N][,mask=INPUT], such as input_ids,pad=0,length=128,mask=attention_mask"


def parse_tokens(text: str) -> TokenIds:
    """Return what ``text`` declares, as on the command line. Raises :class:`UsageError`."""
    column, *options = text.split(",")
    given: dict[str, str] = {}
    for option in options:
        key, equals, value = option.strip().partition("=")
        if key not in ("pad", "length", "mask") or not equals or not value or key in given:
            raise UsageError(f"--tokens {text!r}: {option!r} is not known; {_FORM}")
        given[key] = value
    numbers = {key: given[key] for key in ("pad", "length") if key in given}
    wrong = [value for value in numbers.values() if not (value.isascii() and value.isdigit())]
    if not column.strip() or wrong or numbers.get("length") == "0":
        raise UsageError(f"--tokens {text!r}: {_FORM}")
    return TokenIds(
        column=column.strip(),
        pad=int(numbers["pad"]) if "pad" in numbers else None,
        length=int(numbers["length"]) if "length" in numbers else None,
        mask=given.get("mask"),
    )


def read_tokens(path: Path, tokens: TokenIds, reading: Reading) -> Labelled:
    """Return the rows of ``path``: int64 of shape (length,), and with a mask also its 0s and 1s, by the inputs' names.

    The length is the declared one, else the model's, else that of the longest row. Raises :class:`DataError`, naming
    column and row.
    """
    columns = _read_jsonl(path, tokens, reading) if path.suffix.lower() == ".jsonl" else read_columns(path)
    for name, option in ((tokens.column, "--tokens"), (reading.label_column, "--label-column")):
        if name not in columns:
            raise DataError(f"{path} has no column {name!r}, it has {', '.join(columns)}: name it with {option}")
    where = f"{path}: column {tokens.column!r}, row"
    rows = [_ids(cell, f"{where} {row}") for row, cell in enumerate(columns[tokens.column], 1)]
    if not rows:
        raise DataError(f"{path} has no rows: expected token ids")
    length = _length(rows, tokens, reading.shape, path)
    labels, classes = labels_of(columns[reading.label_column], path, reading)
    return Labelled(zip((_padded(row, length, tokens) for row in rows), labels, strict=True), classes)


def _read_jsonl(path: Path, tokens: TokenIds, reading: Reading) -> Columns:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}: check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    names = (tokens.column, reading.label_column)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row, line in enumerate((line for line in lines if line.strip()), 1):
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path}, row {row}: not JSON ({error}); expected one object a line") from error
        if not isinstance(entry, dict):
            raise DataError(f"{path}, row {row}: expected an object, got {type(entry).__name__}")
        for name in names:
            if name not in entry:
                raise DataError(f"{path}, row {row} has no {name!r}, it has {', '.join(entry)}")
            columns[name].append(entry[name])
    return columns


def _ids(cell: Any, where: str) -> Array:
    """Return the ids of one row, int64."""
    if isinstance(cell, str):
        words = cell.split()
        if not all(word.isascii() and word.isdigit() for word in words):
            raise DataError(f"{where} holds {cell[:60]!r}: expected ids with spaces between them, such as 101 7 102")
        cell = [int(word) for word in words]
    if not isinstance(cell, list) or not all(type(number) is int for number in cell):
        raise DataError(f"{where} holds {str(cell)[:60]}: expected a list of integers; tokenize the text first")
    if not cell:
        raise DataError(f"{where} has no token: remove the row")
    if min(cell) < 0 or max(cell) > np.iinfo(np.int32).max:
        raise DataError(f"{where} holds the id {min(cell) if min(cell) < 0 else max(cell)}: expected 0 to 2**31 - 1")
    return np.asarray(cell, np.int64)


def _length(rows: Sequence[Array], tokens: TokenIds, shape: Shape | None, path: Path) -> int:
    """Return the length of all samples."""
    longest = max(range(len(rows)), key=lambda row: len(rows[row]))
    most = len(rows[longest])
    if shape is not None and len(shape) != 1:
        raise DataError(f"the model's input has {len(shape)} axes for one sample: token ids have one")
    length = tokens.length or (shape[0] if shape else None) or most
    if most > length:
        raise DataError(
            f"{path}, row {longest + 1} has {most} tokens, the model takes {length}: let the tokenizer cut them"
        )
    if tokens.pad is None and any(len(row) != length for row in rows):
        raise DataError(
            f"{path} has rows of fewer than {length} tokens: say with what they are padded, such as "
            f"--tokens {tokens.column},pad=0"
        )
    return length


def _padded(row: Array, length: int, tokens: TokenIds) -> Array | dict[str, Array]:
    """Return the ids, padded at their end; with a mask, both by name."""
    ids = np.full(length, 0 if tokens.pad is None else tokens.pad, np.int64)
    ids[: len(row)] = row
    if tokens.mask is None:
        return ids
    return {tokens.column: ids, tokens.mask: (np.arange(length) < len(row)).astype(np.int64)}

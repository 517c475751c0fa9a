"""CSV and Parquet files with a label column: every other column is one number of a float32 vector.

Columns keep the order of the file. Whole numbers in the label column are the labels themselves, other numbers are kept
as numbers (for a metric of your own); text is the name of a class. Nothing is filled in and nothing left out: a text or
a missing value among the features is an error that names column and row (the first row after the header is row 1).
CSV is comma-separated UTF-8 with a header. Example::

    labelled = read_table(Path("letters.csv"), Reading(label_column="letter"))
    labelled.classes                                   # ("A", "B", ...)
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.files.reading import Labelled, Reading
from edgeopt_contract.errors import DataError, MissingExtraError

__all__ = ["TABLES", "Columns", "labels_of", "read_columns", "read_table"]

TABLES = frozenset((".csv", ".parquet"))
_MISSING = frozenset(("", "na", "n/a", "nan", "null"))
_INDEX = "looks like the index that pandas writes: write the file with index=False"
Columns = Mapping[str, Sequence[Any]]


def read_table(path: Path, reading: Reading) -> Labelled:
    """Return the rows of ``path``, in order. Raises :class:`DataError`, naming column and row."""
    columns = read_columns(path)
    if reading.label_column not in columns:
        raise DataError(
            f"{path} has no column {reading.label_column!r}, it has {', '.join(columns)}: name the column of the "
            "labels with --label-column"
        )
    names = [name for name in columns if name != reading.label_column]
    if not names:
        raise DataError(f"{path} has the label column only: expected at least one column of numbers")
    rows = np.stack([_features(columns[name], name, path) for name in names], axis=1)
    labels, classes = labels_of(columns[reading.label_column], path, reading)
    return Labelled(zip(rows, labels, strict=True), classes)


def read_columns(path: Path) -> Columns:
    """Return the cells of a CSV or Parquet file by column; those of CSV are text. Raises :class:`DataError`."""
    try:
        return _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}: check the path") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _read_csv(path: Path) -> Columns:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as CSV: {error}; expected UTF-8 with commas between the values") from error
    _check_names(header, path)
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise DataError(f"{path}, row {number}: expected {len(header)} values as in the header, got {len(row)}")
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _read_parquet(path: Path) -> Columns:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "data") from error
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file).read()
    except pa.ArrowException as error:
        raise DataError(f"cannot read {path} as Parquet: {error}") from error
    _check_names(table.column_names, path)
    return {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}


def _check_names(names: Sequence[str], path: Path) -> None:
    """Refuse a header that is missing or ambiguous, and the index column that pandas adds."""
    if not names:
        raise DataError(f"{path} is empty: expected a header and rows")
    for place, name in enumerate(names, 1):
        if not name.strip():
            raise DataError(f"{path}: column {place} has no name; it {_INDEX}")
        if name.startswith("__index_level_"):
            raise DataError(f"{path}: the column {name!r} {_INDEX}")
        if list(names).count(name) > 1:
            raise DataError(f"{path} has more than one column {name!r}: expected each name once")


def _features(cells: Sequence[Any], name: str, path: Path) -> Any:
    """Return one column as float32."""
    values = []
    for row, cell in enumerate(cells, 1):
        value = _number(cell)
        where = f"{path}: column {name!r}, row {row}"
        if value is None and _is_missing(cell):
            raise DataError(f"{where} has no value: fill it in, or remove the row")
        if value is None and isinstance(cell, list):
            raise DataError(f"{where} holds a list: if these are token ids, say so with --tokens {name}")
        if value is None:
            raise DataError(f"{where} holds {cell!r}: expected a number; encode the column as numbers, or remove it")
        if not abs(value) <= float(np.finfo(np.float32).max):
            raise DataError(f"{where} holds {cell!r}: expected a finite number within float32")
        values.append(value)
    return np.asarray(values, dtype=np.float32)


def labels_of(cells: Sequence[Any], path: Path, reading: Reading) -> tuple[list[Any], tuple[str, ...]]:
    """Return a label for each row, and the names of the classes when labels are text. Raises :class:`DataError`."""
    for row, cell in enumerate(cells, 1):
        if _is_missing(cell):
            raise DataError(
                f"{path}: column {reading.label_column!r}, row {row} has no label: add it, or remove the row"
            )
    numbers = [_number(cell) for cell in cells]
    known = [number for number in numbers if number is not None]
    if len(known) == len(cells):
        whole = all(number.is_integer() for number in known)
        return ([int(number) for number in known] if whole else known), ()
    names = [str(cell).strip() for cell in cells]
    classes = tuple(sorted(set(names)))
    indices = reading.indices(classes, str(path))
    return [indices[name] for name in names], reading.labels if set(classes) <= set(reading.labels) else classes


def _is_missing(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _number(cell: Any) -> float | None:
    """Return ``cell`` as a number; ``None`` when it is missing or none."""
    if _is_missing(cell) or not isinstance(cell, str | bool | int | float | Decimal):
        return None
    try:
        return None if isinstance(cell, str) and "_" in cell else float(cell)  # Python reads 1_000 as a number
    except (ValueError, OverflowError):
        return None

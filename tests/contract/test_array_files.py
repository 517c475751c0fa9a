"""Reading NumPy's files: what is whole comes through, damage is one kind of error, and nothing is unpickled."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeopt_contract.array_files import load_arrays

ROWS = np.random.default_rng(4).random((40, 6)).astype(np.float32)


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    """One array of an .npy, all by name of an .npz, and only those that are wanted."""
    np.save(tmp_path / "a.npy", ROWS)
    np.savez_compressed(tmp_path / "a.npz", x=ROWS, y=ROWS[0])
    one = load_arrays(tmp_path / "a.npy")
    assert isinstance(one, np.ndarray)
    assert np.array_equal(ROWS, one)
    stored = load_arrays(tmp_path / "a.npz")
    assert isinstance(stored, dict)
    assert ["x", "y"] == list(stored)
    assert np.array_equal(ROWS, stored["x"])
    assert ["y"] == list(load_arrays(tmp_path / "a.npz", wanted=lambda name: name == "y"))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 not a zip", b"\x93NUMPY\x01\x00\x05\x00{'des"])
def test_what_is_no_array_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Nothing, rubbish, and beginnings of what it should be."""
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"\w+"):
        load_arrays(tmp_path / "a.npz")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    """They would run code."""
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_arrays(tmp_path / "a.npz")


def test_a_file_that_is_not_there_stays_an_error_of_the_disk(tmp_path: Path) -> None:
    """The caller says what was looked for."""
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("write", [np.save, lambda file, rows: np.savez_compressed(file, x=rows)])
def test_no_damage_gives_another_error(tmp_path: Path, write: Callable[[Path, np.ndarray], None]) -> None:
    """Changed bytes, mostly of headers, which NumPy hands to zip, zlib and the tokenizer: whatever these raise."""
    path = tmp_path / ("a.npy" if write is np.save else "a.npz")
    write(path, ROWS)
    whole = path.read_bytes()
    drawn = random.Random(3)  # damage, not secrets
    refused = 0
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(drawn.choice([1, 1, 2, 4])):
            place = drawn.choice([drawn.randrange(128), len(whole) - 1 - drawn.randrange(128)])
            damaged[place] = drawn.randrange(256)
        path.write_bytes(damaged)
        try:
            load_arrays(path)
        except (ValueError, MemoryError):
            refused += 1
    assert 300 < refused

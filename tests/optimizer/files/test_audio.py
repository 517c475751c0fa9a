"""WAV files: values, channels and lengths, and one sentence for a file that cannot be read."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edgeopt.files.audio import read_sounds
from edgeopt_contract.errors import DataError


def _saved(path: Path, values: np.ndarray, *, rate: int = 8000, width: int | None = None) -> Path:
    """Write values of shape (n,) or (n, channels) as they are."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(width or values.dtype.itemsize)
        file.setframerate(rate)
        file.writeframes(values.tobytes())
    return path


def _read(paths: list[Path], shape: tuple[int | None, ...] | None = None) -> list[np.ndarray]:
    return [sound for sound, _ in read_sounds([(path, 0) for path in paths], shape)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 128, 255], np.uint8), [-1, 0, 127 / 128]),
        (np.array([-32768, 0, 16384], np.int16), [-1, 0, 0.5]),
        (np.array([-(2**31), 0, 2**30], np.int32), [-1, 0, 0.5]),
    ],
)
def test_full_scale_is_one(tmp_path: Path, values: np.ndarray, expected: list[float]) -> None:
    """8 bits are unsigned, 16 and 32 signed."""
    (sound,) = _read([_saved(tmp_path / "a.wav", values)])
    assert "float32" == sound.dtype.name
    assert expected == sound.tolist()


def test_channels_are_averaged(tmp_path: Path) -> None:
    """Left and right count equally."""
    (sound,) = _read([_saved(tmp_path / "a.wav", np.array([[16384, 0], [-16384, 16384]], np.int16))])
    assert [0.25, 0.0] == sound.tolist()


@pytest.mark.parametrize(
    ("shape", "expected"), [((5,), (5,)), ((1, 5), (1, 5)), ((2,), (2,)), ((None, None), (1, 3)), (None, (3,))]
)
def test_cut_or_padded_to_the_input(
    tmp_path: Path, shape: tuple[int | None, ...] | None, expected: tuple[int, ...]
) -> None:
    """The beginning stays, zeros follow; where the input is free, the length of the files."""
    (sound,) = _read([_saved(tmp_path / "a.wav", np.array([8192, 16384, 8192], np.int16))], shape)
    assert expected == sound.shape
    assert [0.25, 0.5, 0.25, 0.0, 0.0][: expected[-1]] == sound.ravel().tolist()


def test_the_most_common_length_wins_and_the_longest_of_equals(tmp_path: Path) -> None:
    """Lengths 2, 3, 3 give 3; lengths 2, 4 give 4."""
    two, three, also, four = (
        _saved(tmp_path / f"{index}.wav", np.ones(length, np.int16)) for index, length in enumerate((2, 3, 3, 4))
    )
    assert [(3,)] * 3 == [sound.shape for sound in _read([two, three, also])]
    assert [(4,)] * 2 == [sound.shape for sound in _read([two, four])]


def test_unequal_rates_are_refused(tmp_path: Path) -> None:
    """The same length would be another time."""
    paths = [_saved(tmp_path / "a.wav", np.ones(3, np.int16)), _saved(tmp_path / "b.wav", np.ones(3, np.int16), rate=1)]
    with pytest.raises(DataError, match=r"b.wav has 1 Hz, .*a.wav has 8000 Hz"):
        _read(paths)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """No WAV, an empty file, one cut off, one without sound, 24 bits."""
    good = _saved(tmp_path / "good.wav", np.ones(100, np.int16)).read_bytes()
    (tmp_path / "text.wav").write_bytes(b"hello, I am no sound at all")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "cut.wav").write_bytes(good[:-50])
    _saved(tmp_path / "silent.wav", np.ones(0, np.int16))
    _saved(tmp_path / "wide.wav", np.ones(6, np.uint8), width=3)
    for name, reason in {
        "text": "as WAV",
        "empty": "as WAV: it ends too early",
        "cut": "holds 150 bytes of sound, its header says 200",
        "silent": "holds 0 bytes",
        "wide": "24 bits a value: expected 8, 16 or 32",
        "absent": "No such file",
    }.items():
        with pytest.raises(DataError, match=rf"{name}\.wav.*{reason}"):
            _read([tmp_path / f"{name}.wav"])


@pytest.mark.parametrize("shape", [(), (2, 100), (1, 64, 21)])
def test_an_input_that_takes_no_sound(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Stereo and spectrograms."""
    with pytest.raises(DataError, match="a sound is given as its length, or as 1 x length"):
        _read([_saved(tmp_path / "a.wav", np.ones(3, np.int16))], shape)

"""WAV files as float32 vectors in [-1, 1], one channel, all of one length.

PCM of 8, 16 or 32 bits, read by the standard library. Channels are averaged. Every sound is cut at its end, or padded
with zeros there, to the length that the input fixes; if it fixes none, to the most common length, the greatest of
equally common ones. Nothing is resampled: all files must have the same rate. Example::

    sound, label = next(read_sounds([(Path("yes/1.wav"), 0)], shape=(16000,)))
"""

from __future__ import annotations

import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgeopt.files.reading import Shape, in_words
from edgeopt.samples import Array
from edgeopt_contract.errors import DataError

__all__ = ["read_sounds"]

_DTYPES = {1: "<u1", 2: "<i2", 4: "<i4"}  # 8 bits are unsigned, the others signed (Microsoft's RIFF specification)


def read_sounds(files: Sequence[tuple[Path, int]], shape: Shape | None) -> Iterator[tuple[Array, int]]:
    """Yield each sound with its label, shape (length,), or (1, length) where ``shape`` has a channel.

    Raises :class:`DataError`, naming the file.
    """
    if shape is not None and (len(shape) not in (1, 2) or (len(shape) == 2 and shape[0] not in (None, 1))):
        raise DataError(
            f"the model's input wants {in_words(shape)}: a sound is given as its length, or as 1 x length; write a "
            "data factory that computes the features"
        )
    sounds, rates = zip(*(_read(path) for path, _ in files), strict=True)
    for (path, _), rate in zip(files, rates, strict=True):
        if rate != rates[0]:
            raise DataError(f"{path} has {rate} Hz, {files[0][0]} has {rates[0]} Hz: resample them to one rate")
    fixed = None if shape is None else shape[-1]
    length = _most_common([len(sound) for sound in sounds]) if fixed is None else fixed
    for sound, (_, label) in zip(sounds, files, strict=True):
        fitted = np.zeros(length, np.float32)
        fitted[: len(sound)] = sound[:length]
        yield (fitted[None] if shape is not None and len(shape) == 2 else fitted), label


def _most_common(lengths: Sequence[int]) -> int:
    counts = Counter(lengths)
    return max(counts, key=lambda length: (counts[length], length))


def _read(path: Path) -> tuple[Array, int]:
    """Return the averaged channels and the rate in Hz."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, count = file.getparams()[:4]
            data = file.readframes(count)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (wave.Error, EOFError) as error:
        raise DataError(f"cannot read {path} as WAV: {str(error) or 'it ends too early'}; expected PCM") from error
    if width not in _DTYPES:
        raise DataError(f"{path} has {8 * width} bits a value: expected 8, 16 or 32; convert it")
    if not count or len(data) != count * channels * width:
        raise DataError(f"{path} holds {len(data)} bytes of sound, its header says {count * channels * width}")
    values = np.frombuffer(data, _DTYPES[width]).reshape(-1, channels).mean(axis=1)
    full = 1 << (8 * width - 1)
    return np.asarray((values - full if width == 1 else values) / full, dtype=np.float32), rate

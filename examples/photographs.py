"""Crops of photographs in the form an ImageNet network reads: one picture after the other, nothing kept in memory.

A crop is a square of 70 to 100 % of the picture's shorter side, near its centre, mirrored half the time; a seed
decides all of it. It reads no labels. Example::

    for inputs in crops([path], each=25, seed=1):     # float32 3 x 224 x 224, (pixel - 127) / 128
        ...
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["SIDE", "crops"]

SIDE = 224  # pixels
_SMALLEST = 0.7  # share of the shorter side
_WANDER = 0.5  # how much of the room beside the crop its centre may use: 0 is the middle, 1 is everywhere


def crops(paths: Iterable[Path], each: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield ``each`` crops of every picture, float32 3 x 224 x 224, (pixel - 127) / 128.

    The crops of a picture depend on ``seed`` and its file name alone, so any subset of pictures gives the same.
    """
    for path in paths:
        random = np.random.default_rng([seed, *path.name.encode()])
        with Image.open(path) as file:
            picture = file.convert("RGB")
        for _ in range(each):
            yield _as_input(_crop(picture, random))


def _crop(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    side = random.uniform(_SMALLEST, 1.0) * min(picture.size)
    left, top = ((length - side) * (0.5 + _WANDER * random.uniform(-0.5, 0.5)) for length in picture.size)
    square = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else square


def _as_input(square: Image.Image) -> npt.NDArray[np.float32]:
    pixels = np.asarray(square, dtype=np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray((pixels - np.float32(127)) / np.float32(128))

"""Pictures as float32 channels x height x width in [0, 1], decoded by Pillow.

One rule for all of them:

1. Channels: as many as the input has. If it does not say, one when every picture is stored grey, else three (RGB).
   Grey is Pillow's ``L`` (ITU-R 601-2 luma). Transparency is dropped, 16-bit grey scaled to 8 bits, of an animation
   the first frame taken, and the orientation noted by a camera left as it is.
2. Size: when the input fixes height and width, the whole picture is resized to them, bilinear with antialiasing,
   neither cropped nor kept in proportion. Otherwise pictures stay as they are, and all must have the same size.
3. Values: divided by 255. There is no other normalisation: it belongs into the model.

Example::

    picture, label = next(read_images([(Path("cat/1.jpg"), 0)], shape=(3, 224, 224)))
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.files.reading import Shape, in_words
from edgeopt.samples import Array
from edgeopt_contract.errors import DataError, MissingExtraError

__all__ = ["read_images"]

_MODES = {1: "L", 3: "RGB"}
_GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I;16N")


def read_images(files: Sequence[tuple[Path, int]], shape: Shape | None) -> Iterator[tuple[Array, int]]:
    """Yield each picture with its label, for an input of ``shape``. Raises :class:`DataError`, naming the file."""
    channels, height, width = shape if shape is not None and len(shape) == 3 else (None, None, None)
    if shape is not None and (len(shape) != 3 or channels not in (None, *_MODES)):
        raise DataError(
            f"the model's input wants {in_words(shape)}: pictures are given as channels x height x width, with 1 or 3 "
            "channels; write a data factory that lays them out"
        )
    channels = channels or _stored_channels([path for path, _ in files])
    size = None if height is None or width is None else (width, height)
    first: Array | None = None
    for path, label in files:
        picture = _read(path, _MODES[channels], size)
        first = picture if first is None else first
        if picture.shape != first.shape:
            raise DataError(
                f"{path} has {picture.shape[2]} x {picture.shape[1]} pixels, {files[0][0]} has {first.shape[2]} x "
                f"{first.shape[1]}, and the model fixes no size: say it, such as --input-shape {channels}x224x224"
            )
        yield picture, label


def _stored_channels(paths: Sequence[Path]) -> int:
    """Return 1 when every picture is stored grey, else 3; only headers are read."""
    for path in paths:
        with _Opened(path) as image:
            if image.mode not in _GREY:
                return 3
    return 1


def _read(path: Path, mode: str, size: tuple[int, int] | None) -> Array:
    pillow = _pillow()
    with _Opened(path) as opened:
        image = opened
        if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255 instead of scaling
            image = pillow.fromarray((np.asarray(image, dtype=np.float32) / 257).round().astype(np.uint8))
        if image.mode in ("I", "F"):
            raise DataError(f"{path} has 32-bit pixels, whose range nobody knows: convert it to 8 bits")
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert(mode)
        image = image if size is None else image.resize(size, pillow.Resampling.BILINEAR)
        values = np.asarray(image, dtype=np.float32) / 255
    return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("PIL", "data") from error
    return Image


class _Opened:
    """An open picture; whatever Pillow raises while it is open becomes :class:`DataError` with the path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._image: Any = None

    def __enter__(self) -> Any:
        pillow = _pillow()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pillow.DecompressionBombWarning)
                self._image = pillow.open(self._path)
        except Exception as error:
            raise self._refusal(error) from error
        return self._image

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._image.close()
        if isinstance(error, Exception) and not isinstance(error, DataError):
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> DataError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if type(error).__name__ == "UnidentifiedImageError":
            reason = "it is not in a format that Pillow knows"
        return DataError(f"cannot read the picture {self._path}: {reason}")

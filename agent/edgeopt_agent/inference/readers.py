"""Files as inputs of a model: ``.npy`` and ``.npz``; pictures and WAV where the model takes them as they are.

A picture is an input when the model takes uint8 values with one or three channels, that is when its preprocessing is
part of the graph: nothing is resized or scaled here, for what was validated is what shall run. A WAV is one for a
model that takes a wave: int16 as stored, or float32 as value / 32768. Pickles are never read. It imports NumPy, and
Pillow for pictures; programs beside the agent use it, not the agent. Example::

    inputs = read_inputs(Path("cat.png"), manifest.inputs)        # an array, or arrays by name
"""

from __future__ import annotations

import warnings
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_contract.array_files import load_arrays
from edgeopt_contract.errors import DataError, MissingExtraError
from edgeopt_contract.manifest import TensorSpec

__all__ = ["SUFFIXES", "read_inputs"]

Array = npt.NDArray[Any]
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
SUFFIXES = (".npy", ".npz", ".wav", *_PICTURES)
_CHANNELS = (1, 3)
_PCM16_BYTES = 2


def read_inputs(path: Path, specs: Sequence[TensorSpec]) -> Any:
    """Return what ``path`` holds for a model with the inputs ``specs``: an array, or arrays by name.

    Raises :class:`DataError` for what cannot be read or is not an input of this model, and
    :class:`MissingExtraError` when a picture needs Pillow.
    """
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return _read_picture(path, _only(path, specs))
    if suffix == ".wav":
        return _read_sound(path, _only(path, specs))
    if suffix not in SUFFIXES:
        raise DataError(f"{path.name}: expected one of {', '.join(SUFFIXES)}")
    try:
        return load_arrays(path)
    except (OSError, ValueError, MemoryError) as error:
        raise DataError(f"{path.name}: expected arrays as numpy.save or numpy.savez write them: {error}") from error


def _only(path: Path, specs: Sequence[TensorSpec]) -> TensorSpec:
    if len(specs) != 1:
        raise DataError(f"{path.name}: the model has {len(specs)} inputs: give an .npz with arrays by name")
    return specs[0]


def _read_picture(path: Path, spec: TensorSpec) -> Array:
    """Return a picture in the layout that ``spec`` has: height x width [x channels], or channels x height x width."""
    shape = spec.shape
    channels_last = len(shape) == 3 and shape[2] in _CHANNELS
    channels_first = len(shape) == 3 and not channels_last and shape[0] in _CHANNELS
    if spec.dtype != "uint8" or not (len(shape) == 2 or channels_last or channels_first):
        raise DataError(
            f"{path.name}: this model takes {spec.dtype} of shape {shape}: its preprocessing is not part of the graph. "
            "Give .npy files, or build the bundle with --preprocess"
        )
    grey = len(shape) == 2 or shape[2 if channels_last else 0] == 1
    pixels = _decoded(path, "L" if grey else "RGB")
    if len(shape) == 3 and pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if channels_first else pixels


def _decoded(path: Path, mode: str) -> Array:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("PIL", "data") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return np.asarray(image.convert(mode))
    except Exception as error:  # whatever Pillow's decoders raise
        raise DataError(f"{path.name}: cannot be read as a picture: {error}") from error


def _read_sound(path: Path, spec: TensorSpec) -> Array:
    if spec.dtype not in ("int16", "float32") or len(spec.shape) not in (1, 2) or spec.shape[:-1] not in ((), (1,)):
        raise DataError(
            f"{path.name}: this model takes {spec.dtype} of shape {spec.shape}, not a wave: its features are not part "
            "of the graph. Give .npy files"
        )
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, _, count = file.getparams()[:4]
            data = file.readframes(count)
    except (OSError, wave.Error, EOFError) as error:
        raise DataError(f"{path.name}: cannot be read as WAV: {error}; expected PCM") from error
    if (channels, width) != (1, _PCM16_BYTES) or len(data) != _PCM16_BYTES * count:
        raise DataError(f"{path.name}: expected one channel of 16 bits, got {channels} of {8 * width}; convert it")
    values: Array = np.frombuffer(data, "<i2")
    if spec.dtype == "float32":
        values = values.astype(np.float32) / np.float32(32768)
    return values.reshape((*spec.shape[:-1], -1))

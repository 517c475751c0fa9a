"""What may be done to a sample before the model sees it, and to its answer afterwards, in numpy.

Each step is a record that knows its own arithmetic on one sample without batch dimension; :mod:`edgeopt.preprocess`
writes the same into an ONNX graph, and the two must agree. Pictures are channels x height x width unless said
otherwise. Pure: it reads no file. Example::

    steps = Preprocessing(inputs=(ChannelsFirst(), ToFloat(dtype="uint8"), Scale(factor=1 / 255)))
    steps.applied(Sample({"input": picture}, 3))     # uint8 224 x 224 x 3 becomes float32 3 x 224 x 224 in [0, 1]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from edgeopt.files.reading import Shape, in_words
from edgeopt.samples import Array, Sample
from edgeopt_contract.errors import DataError, UsageError

__all__ = [
    "INPUT_STEPS",
    "LUMA",
    "OUTPUT_STEPS",
    "Argmax",
    "ChannelsFirst",
    "Crop",
    "Grayscale",
    "InputStep",
    "Normalize",
    "OutputStep",
    "Preprocessing",
    "Resize",
    "ReverseChannels",
    "Scale",
    "Sigmoid",
    "Softmax",
    "ToFloat",
    "chosen",
]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601-7, section 2.5.1: what Pillow's "L" and OpenCV's grey are made with
T = TypeVar("T")


class OutputStep(Protocol):
    """One step; ``name`` is the output that it works on, ``None`` the only one."""

    @property
    def name(self) -> str | None:
        """Which tensor."""

    def apply(self, array: Array) -> Array:
        """Return what becomes of one sample's tensor."""


class InputStep(OutputStep, Protocol):
    """One step on an input, which also knows what it takes."""

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return shape and dtype that it takes, to give ``shape`` and ``dtype``; ``None`` in a shape is any length.

        Raises :class:`UsageError` when it can give no such thing.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ToFloat:
    """The same numbers in float32; ``dtype`` is that of the data."""

    dtype: str
    name: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("uint8", "int8", "uint16", "int16", "int32"):
            raise UsageError(f"to-float: expected uint8, int8, uint16, int16 or int32 as dtype, got {self.dtype!r}")

    def apply(self, array: Array) -> Array:
        """Return float32 of the same shape."""
        return array.astype(np.float32)

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return the shape and the data's dtype."""
        _need_float(dtype, "to-float")
        return shape, self.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsFirst:
    """Height x width x channels, as cameras and decoders give it, to channels x height x width."""

    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return the picture with its last axis first."""
        return np.ascontiguousarray(np.moveaxis(array, -1, 0))

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return height x width x channels."""
        channels, height, width = _picture(shape, "channels-first")
        return (height, width, channels), dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseChannels:
    """RGB to BGR, or back."""

    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return the channels in reverse order."""
        return np.ascontiguousarray(array[::-1])

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return the same."""
        return _picture(shape, "reverse-channels"), dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Grayscale:
    """RGB to one channel of luma (ITU-R BT.601), not rounded."""

    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return 1 x height x width."""
        weights = np.array(LUMA, np.float32).reshape(3, 1, 1)
        return np.asarray((array * weights).sum(axis=0, keepdims=True, dtype=np.float32))

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return three channels."""
        _need_float(dtype, "grayscale")
        channels, height, width = _picture(shape, "grayscale")
        if channels not in (None, 1):
            raise UsageError(f"grayscale gives one channel, what follows wants {in_words(shape)}")
        return (3, height, width), dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Every number times ``factor``, for instance 1 / 255."""

    factor: float
    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return float32 of the same shape."""
        return np.asarray(array * np.float32(self.factor))

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return the same."""
        _need_float(dtype, "scale")
        return shape, dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalize:
    """Less ``mean``, divided by ``std``: one number for all, or one for each channel (the first axis)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or not all(self.std):
            raise UsageError(
                f"normalize: expected as many means as deviations, and none of these zero; got mean {list(self.mean)} "
                f"and std {list(self.std)}"
            )

    def constants(self, rank: int) -> tuple[Array, Array]:
        """Return mean and std shaped for a sample of ``rank`` axes."""
        shape = (-1, *[1] * (rank - 1)) if len(self.mean) > 1 else (1,) * rank
        return np.array(self.mean, np.float32).reshape(shape), np.array(self.std, np.float32).reshape(shape)

    def apply(self, array: Array) -> Array:
        """Return float32 of the same shape."""
        mean, std = self.constants(array.ndim)
        return np.asarray((array - mean) / std)

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return the same."""
        _need_float(dtype, "normalize")
        channels = len(self.mean)
        if channels > 1 and (not shape or shape[0] not in (None, channels)):
            raise UsageError(
                f"normalize has {channels} means, and the tensor is {in_words(shape)}: one for each channel"
            )
        return shape, dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """The whole picture to ``height`` x ``width``, bilinear between pixel centres, without antialiasing."""

    height: int
    width: int
    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return float32 channels x height x width (ONNX operator Resize: linear, half_pixel)."""
        for axis, size in ((1, self.height), (2, self.width)):
            array = _interpolated(array, axis, size)
        return array

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return any size."""
        _need_float(dtype, "resize")
        return _sized(shape, self.height, self.width, "resize"), dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """The middle ``height`` x ``width`` of a picture that is at least as large."""

    height: int
    width: int
    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return the middle. Raises :class:`DataError` for a smaller picture."""
        top, left = (array.shape[1] - self.height) // 2, (array.shape[2] - self.width) // 2
        if top < 0 or left < 0:
            raise DataError(f"crop {self.height} x {self.width}: the picture has {array.shape[1]} x {array.shape[2]}")
        return np.ascontiguousarray(array[:, top : top + self.height, left : left + self.width])

    def before(self, shape: Shape, dtype: str) -> tuple[Shape, str]:
        """Return any size."""
        return _sized(shape, self.height, self.width, "crop"), dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax:
    """Probabilities over the last axis."""

    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return float32 of the same shape."""
        powers = np.exp(array - array.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigmoid:
    """1 / (1 + exp(-x)) of each number."""

    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return float32 of the same shape."""
        return np.asarray(1 / (1 + np.exp(-array)), dtype=array.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Argmax:
    """The index of the greatest number of the last axis, the first of equal ones, as int64."""

    name: str | None = None

    def apply(self, array: Array) -> Array:
        """Return the indices, without the last axis."""
        return np.asarray(array.argmax(axis=-1), dtype=np.int64)


INPUT_STEPS: Mapping[str, type[InputStep]] = {
    "channels-first": ChannelsFirst,
    "crop": Crop,
    "grayscale": Grayscale,
    "normalize": Normalize,
    "resize": Resize,
    "reverse-channels": ReverseChannels,
    "scale": Scale,
    "to-float": ToFloat,
}
OUTPUT_STEPS: Mapping[str, type[OutputStep]] = {"argmax": Argmax, "sigmoid": Sigmoid, "softmax": Softmax}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """All that is folded around a model, in the order in which the data go through it.

    ``constants`` are inputs that always have the same value; ``batch_axes`` say which axis of an input or output is the
    batch where it is not the first one.
    """

    inputs: tuple[InputStep, ...] = ()
    outputs: tuple[OutputStep, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    batch_axes: Mapping[str, int] = field(default_factory=dict)

    def applied(self, sample: Sample) -> Sample:
        """Return ``sample`` as the model without folded steps takes it."""
        inputs = dict(sample.inputs)
        for step in self.inputs:
            name = chosen(step.name, inputs, "input")
            inputs[name] = step.apply(inputs[name])
        return Sample(inputs, sample.label)

    def answered(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return ``outputs`` of the model without folded steps, first axis samples, as the folded one gives them."""
        answers = dict(outputs)
        for step in self.outputs:
            name = chosen(step.name, answers, "output")
            answers[name] = np.stack([step.apply(array) for array in answers[name]])
        return answers


def chosen(name: str | None, tensors: Mapping[str, T] | Sequence[str], kind: str) -> str:
    """Return ``name``, or that of the only tensor. Raises :class:`UsageError` when it is not there or not clear."""
    names = list(tensors)
    if len(names) == 1 and name is None:
        return names[0]
    if name not in names:
        said = "does not say which" if name is None else f"names {name!r}"
        raise UsageError(f"a step {said}: the {kind}s are {', '.join(names)}; give one as name")
    return name


def _need_float(dtype: str, step: str) -> None:
    if not dtype.startswith("float"):
        raise UsageError(f"{step} gives floats, and what follows it takes {dtype}: put it behind to-float")


def _picture(shape: Shape, step: str) -> Shape:
    if len(shape) != 3:
        raise UsageError(f"{step} is for pictures of channels x height x width, and the tensor is {in_words(shape)}")
    return shape


def _sized(shape: Shape, height: int, width: int, step: str) -> Shape:
    channels, *size = _picture(shape, step)
    if any(want not in (None, have) for want, have in zip(size, (height, width), strict=True)):
        raise UsageError(f"{step} gives {height} x {width}, and what follows it wants {in_words(shape)}")
    if min(height, width) < 1:
        raise UsageError(f"{step}: expected a height and width of at least 1, got {height} x {width}")
    return (channels, None, None)


def _interpolated(array: Array, axis: int, size: int) -> Array:
    """Return ``array`` with ``size`` values along ``axis``, each between the two nearest centres."""
    have = array.shape[axis]
    places = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(have / size) - np.float32(0.5)
    places = np.clip(places, 0, have - 1)
    below = np.floor(places).astype(int)
    above = np.minimum(below + 1, have - 1)
    shape = [1] * array.ndim
    shape[axis] = size
    share = (places - below).astype(np.float32).reshape(shape)
    return np.asarray(array.take(below, axis) * (1 - share) + array.take(above, axis) * share, dtype=np.float32)

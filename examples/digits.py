"""Handwritten digits of 8 x 8 pixels: a small CNN, its test pictures, and what cameras in the field would see.

The pictures come with scikit-learn, so nothing has to be fetched. Training saw 40 % of them; ``data`` yields the
others. For a fleet there are sources without end (``field``, ``bright_field``), drawn from the same unseen pictures,
and a network with a real-life fault (``mis_scaled_model``). It does not train: that is ``train_digits.py``. Example::

    edgeopt quantize examples.digits:model --data examples.digits:data --max-drop 2% -o build/digits
    EDGEOPT_DEMO_SEED=7 edgeopt-agent run --source examples.digits:field ...

The sources read two environment variables: ``EDGEOPT_DEMO_SEED`` (a whole number, 0 if unset) decides which pictures
come, and ``EDGEOPT_DEMO_SWITCH`` names a file whose existence makes ``field`` brighter.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # publishes no types
from torch import nn

from examples.npz_weights import WEIGHTS, load

__all__ = [
    "WEIGHTS_FILE",
    "bright_field",
    "data",
    "field",
    "mis_scaled_model",
    "model",
    "pictures",
    "untrained",
]

Picture = npt.NDArray[np.float32]

WEIGHTS_FILE = WEIGHTS / "digits.npz"
_TRAINING_SHARE = 0.4
_SPLIT_SEED = 8
_FULL = np.float32(16)  # scikit-learn counts the inked pixels of a 4 x 4 block
_WIDTH = 48  # channels: from about here on int8 is faster than float32 in spite of its overhead
_GLARE = np.float32(0.25)  # what a brighter scene adds to every pixel of [0, 1]
_WRONG_DIVISOR = 4.0


def untrained() -> nn.Sequential:
    """Return the network with random weights: float32 N x 1 x 8 x 8 in [0, 1] to N x 10 logits."""
    return nn.Sequential(
        *_convolution(1, _WIDTH),
        *_convolution(_WIDTH, _WIDTH),
        *_convolution(_WIDTH, 2 * _WIDTH, stride=2),
        *_convolution(2 * _WIDTH, 2 * _WIDTH),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * _WIDTH, 10),
    )


def model() -> nn.Module:
    """Return the trained network."""
    return load(untrained(), WEIGHTS_FILE)


class _WrongScale(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """The classical fault of preprocessing: pixels that are in [0, 1] already are divided once more."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels / _WRONG_DIVISOR)


def mis_scaled_model() -> nn.Module:
    """Return the trained network behind a wrong input scale.

    It quantizes faithfully, because int8 agrees with the same wrong float32; only its confidence gives it away.
    """
    return _WrongScale(model()).eval()


def data() -> Iterator[tuple[Picture, int]]:
    """Yield (picture float32 1 x 8 x 8 in [0, 1], digit) for every picture that training did not see."""
    inputs, labels = pictures("test")
    for picture, label in zip(inputs, labels, strict=True):
        yield picture, int(label)


def pictures(part: str) -> tuple[Picture, npt.NDArray[np.int64]]:
    """Return (pictures float32 N x 1 x 8 x 8 in [0, 1], digits int64 N) of part ``train`` or ``test``."""
    digits = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(digits.images))
    border = round(_TRAINING_SHARE * len(order))
    chosen = order[:border] if part == "train" else order[border:]
    inputs: Picture = digits.images[chosen, np.newaxis].astype(np.float32) / _FULL
    return inputs, digits.target[chosen].astype(np.int64)


def field() -> Iterator[Picture]:
    """Yield pictures without end, float32 1 x 8 x 8, as a device's camera would give them.

    Where ``EDGEOPT_DEMO_SWITCH`` names a file, they are brighter as long as that file exists.
    """
    switch = os.environ.get("EDGEOPT_DEMO_SWITCH")
    camera = _camera()
    if not switch:
        return camera
    return (_brightened(picture) if Path(switch).exists() else picture for picture in camera)


def bright_field() -> Iterator[Picture]:
    """Yield pictures without end under a brighter light."""
    return (_brightened(picture) for picture in _camera())


def _camera() -> Iterator[Picture]:
    """Draw unseen pictures with replacement, in an order that ``EDGEOPT_DEMO_SEED`` decides."""
    inputs, _ = pictures("test")
    random = np.random.default_rng(int(os.environ.get("EDGEOPT_DEMO_SEED", "0")))
    while True:
        yield inputs[random.integers(len(inputs))]


def _brightened(picture: Picture) -> Picture:
    brighter: Picture = np.minimum(picture + _GLARE, np.float32(1))
    return brighter


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()

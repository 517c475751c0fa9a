"""Handwritten digits, dark ink on bright paper, by a network that x86 CPUs without VNNI get wrong in full-range int8.

Two of its ten layers were trained with clipped weights, as accelerators with few bits want them, so most of their
weights have the same size; bright pixels and a hard sigmoid give them large inputs. Products of both add up beyond 16
bits. In float, and on ARM or with VNNI, nothing is wrong. It does not train: that is ``train_bright_digits.py``.
Example::

    edgeopt quantize examples.bright_digits:model --data examples.bright_digits:data --max-drop 2% -o build/bright
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import nn

from examples import digits
from examples.npz_weights import WEIGHTS, load

__all__ = ["CLIPPED", "WEIGHTS_FILE", "data", "model", "pictures", "untrained"]

WEIGHTS_FILE = WEIGHTS / "bright_digits.npz"
CLIPPED = {0: 0.05, 9: 0.01}  # the layer's place in the network -> the greatest size of its weights


def untrained() -> nn.Sequential:
    """Return the network with random weights: float32 N x 1 x 8 x 8 in [0, 1] to N x 10 logits."""
    return nn.Sequential(
        *_layer(1, 16, 3),
        *_layer(16, 24, 3),
        *_layer(24, 32, 3, stride=2, activation=nn.Hardsigmoid),
        *_layer(32, 32, 3),
        *_layer(32, 48, 1),
        *_layer(48, 48, 3, stride=2),
        *_layer(48, 48, 1),
        *_layer(48, 48, 1),
        *_layer(48, 48, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def model() -> nn.Module:
    """Return the trained network."""
    return load(untrained(), WEIGHTS_FILE)


def data() -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Yield (picture float32 1 x 8 x 8 in [0, 1], digit) for every picture that training did not see."""
    inputs, labels = pictures("test")
    for picture, label in zip(inputs, labels, strict=True):
        yield picture, int(label)


def pictures(part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return (pictures float32 N x 1 x 8 x 8, paper 1 and ink 0; digits int64 N) of part ``train`` or ``test``."""
    inputs, labels = digits.pictures(part)
    return 1 - inputs, labels


def _layer(
    inputs: int, outputs: int, kernel: int, stride: int = 1, activation: type[nn.Module] = nn.ReLU
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs), activation()

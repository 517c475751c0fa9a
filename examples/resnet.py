"""A residual network of 151 thousand parameters for Fashion-MNIST, wide enough that pruning it pays.

``data`` yields the 10,000 test pictures, of which training saw none; ``train_data`` a part of the training pictures, to
fine-tune with after pruning. It does not train: that is ``train_resnet.py``. The pictures come from the Debian package
``dataset-fashion-mnist``. Example::

    edgeopt prune examples.resnet:model --data examples.resnet:data --train-data examples.resnet:train_data \
        --speedup 1.6 --max-drop 1% -o build/resnet
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from examples.fashion_mnist import data, pictures
from examples.npz_weights import WEIGHTS, load

__all__ = ["WEIGHTS_FILE", "data", "model", "train_data", "untrained"]

WEIGHTS_FILE = WEIGHTS / "resnet.npz"
_TRAINING_PICTURES = 20_000  # of 60,000: enough to win back what pruning costs, in minutes


class _Block(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy
    """Two 3x3 convolutions beside a shortcut (He et al., arXiv:1512.03385, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.conv2(torch.relu(self.bn1(self.conv1(x))))
        return torch.relu(self.bn2(inner) + self.shortcut(x))


def untrained() -> nn.Sequential:
    """Return the network with random weights: float32 N x 1 x 28 x 28 in [0, 1] to N x 10 logits."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        _Block(32, 32),
        _Block(32, 64, stride=2),
        _Block(64, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def model() -> nn.Module:
    """Return the trained network."""
    return load(untrained(), WEIGHTS_FILE)


def train_data() -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Yield (picture float32 1 x 28 x 28 in [0, 1], class 0 to 9) for the first 20,000 training pictures."""
    inputs, labels = pictures("train")
    for picture, label in zip(inputs[:_TRAINING_PICTURES], labels[:_TRAINING_PICTURES], strict=True):
        yield picture, int(label)

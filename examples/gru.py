"""Fashion-MNIST read from top to bottom by a GRU: a picture is a sequence of 14 steps, two rows of pixels each.

``data`` yields the 10,000 test pictures, of which training saw none. It does not train: that is ``train_gru.py``. The
pictures come from the Debian package ``dataset-fashion-mnist``. Example::

    edgeopt quantize examples.gru:model --data examples.gru:data --max-drop 1% -o build/gru
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from examples.fashion_mnist import pictures
from examples.npz_weights import WEIGHTS, load

__all__ = ["WEIGHTS_FILE", "data", "model", "sequences", "untrained"]

WEIGHTS_FILE = WEIGHTS / "gru.npz"
_STEPS = 14
_PIXELS = 56  # of a step
_HIDDEN = 176


class _Reader(nn.Module):  # type: ignore[misc]  # torch is not followed by mypy here
    """Reads all steps and names the class from the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(_PIXELS, _HIDDEN, batch_first=True)
        self.classify = nn.Linear(_HIDDEN, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(x)
        logits: torch.Tensor = self.classify(states[:, -1])
        return logits


def untrained() -> nn.Module:
    """Return the network with random weights: float32 N x 14 x 56 in [0, 1] to N x 10 logits."""
    return _Reader()


def model() -> nn.Module:
    """Return the trained network."""
    return load(untrained(), WEIGHTS_FILE)


def data() -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Yield (steps float32 14 x 56 in [0, 1], class 0 to 9) for the 10,000 test pictures."""
    inputs, labels = sequences("t10k")
    for steps, label in zip(inputs, labels, strict=True):
        yield steps, int(label)


def sequences(part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return (steps float32 N x 14 x 56 in [0, 1], classes int64 N) of part ``train`` or ``t10k``.

    Raises :class:`MissingDataError` when the Debian package is not installed.
    """
    inputs, labels = pictures(part)
    return inputs.reshape(len(inputs), _STEPS, _PIXELS), labels

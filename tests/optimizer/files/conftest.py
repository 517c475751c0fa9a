"""What the tests of files share: the digits as a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import edgeopt_zoo
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def digit_folder(tmp_path: Path) -> Path:
    """scikit-learn's digits, saved as grey pictures of 8 x 8 pixels, a folder for each class."""
    folder = tmp_path / "digits"
    for index, (picture, label) in enumerate(zip(*edgeopt_zoo.pictures(), strict=True)):
        path = folder / f"digit {label}" / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(picture[0] * 255).astype(np.uint8)).save(path)
    return folder

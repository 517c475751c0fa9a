"""Weights of the example models as plain arrays in an ``.npz`` file: nothing is ever unpickled.

It writes the arrays of a ``state_dict`` as float16, which halves a file that is committed and costs these models no
accuracy, and reads them back as float32. It does not choose, train or judge a model. Example::

    save(model, WEIGHTS / "digits.npz")
    load(model, WEIGHTS / "digits.npz")      # -> the same model, in evaluation mode
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["WEIGHTS", "load", "save"]

WEIGHTS = Path(__file__).resolve().parent / "weights"


def save(model: torch.nn.Module, path: Path) -> None:
    """Write every parameter and buffer of ``model`` to ``path`` as float16; counters of batches are left out."""
    arrays = {
        name: tensor.detach().numpy().astype(np.float16)
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def load(model: torch.nn.Module, path: Path) -> torch.nn.Module:
    """Fill ``model`` from ``path`` and return it in evaluation mode.

    Raises ``FileNotFoundError`` when the file is missing, and ``RuntimeError`` when a name or a shape in it does
    not belong to the model, or one of the model's is missing.
    """
    with np.load(path, allow_pickle=False) as stored:
        state = {name: torch.from_numpy(_float32(stored[name])) for name in stored.files}
    counters = {name: value for name, value in model.state_dict().items() if not value.is_floating_point()}
    model.load_state_dict(state | counters)
    return model.eval()


def _float32(array: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    return array.astype(np.float32)

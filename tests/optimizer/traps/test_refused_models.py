"""Trap 8: TorchScript cannot go through the exporter, and pickled modules must not be unpickled by default."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest
import torch

from edgeopt.models import load_model
from edgeopt_contract.errors import ModelError

pytestmark = pytest.mark.traps


class _Harmful:
    """An object that writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self._trace,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".bin", ".ckpt", ".joblib", ".PT"])
def test_a_pickled_module_is_not_unpickled(tmp_path: Path, suffix: str) -> None:
    """Whatever its suffix: the code in it does not run, and the sentence says what to do instead."""
    trace, path = tmp_path / "trace", tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(_Harmful(trace)))
    with pytest.raises(ModelError, match=r"would run code when loaded, and is never opened; .*write a function"):
        load_model(str(path))
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have


@pytest.mark.parametrize("suffix", [".pt", ".ts", ".pth"])
def test_a_torchscript_file_is_refused(tmp_path: Path, suffix: str) -> None:
    """It is saved under any of these names."""
    path = tmp_path / f"scripted{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(torch.nn.Linear(4, 2)).save(str(path))
    with pytest.raises(ModelError, match=r"write a function that builds the module"):
        load_model(str(path))
    with pytest.raises(ModelError, match="gave a TorchScript module, which cannot go through torch's exporter"):
        load_model("edgeopt_zoo:scripted")

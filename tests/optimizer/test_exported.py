"""Exported programs: they answer as they did, and a file that would run code is refused before it does."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import edgeopt_zoo
import numpy as np
import pytest
import torch
from torch import nn

from edgeopt.data import fit_to, load_samples
from edgeopt.models import load_model
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.silence import silenced
from edgeopt_contract.errors import ModelError

FREE = torch.export.Dim.DYNAMIC


def _saved(path: Path, module: nn.Module, feeds: dict[str, torch.Tensor], *, free: bool = True) -> str:
    """Export ``module`` with its inputs by name and save it."""
    shapes = {name: {0: FREE} for name in feeds} if free else None
    with silenced():
        torch.export.save(torch.export.export(module, (), feeds, dynamic_shapes=shapes), path)
    return str(path)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """The linear classifier, with a free batch."""
    return _saved(tmp_path / "tiny.pt2", edgeopt_zoo.tiny(), {"input": torch.zeros(2, 16)})


@pytest.mark.parametrize("free", [True, False])
def test_it_answers_as_the_module_does(tmp_path: Path, free: bool) -> None:  # noqa: FBT001  (a table)
    """With a free batch many at once, with a batch of one sample by sample; as ONNX as well."""
    rows = torch.zeros(2 if free else 1, 16)
    model = load_model(_saved(tmp_path / "t.pt2", edgeopt_zoo.tiny(), {"input": rows}, free=free))
    samples = load_samples("edgeopt_zoo:table")[:5]
    (expected,) = load_model("edgeopt_zoo:tiny").predict(samples) or []
    (actual,) = model.predict(samples) or []
    assert np.allclose(expected, actual, atol=1e-6)
    session = OnnxRuntimeSession(model.to_onnx(samples[0]), threads=1)
    assert {"input": ("float32", (16,))} == session.inputs
    assert np.allclose(expected, *session.predict(fit_to(samples, session.inputs)).values(), atol=1e-5)


def test_several_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    """One input by position, one by keyword, integers among them; their shape is not one."""
    example = (torch.zeros(2, 16),), {"ids": torch.zeros(2, 3, dtype=torch.int64)}
    with silenced():
        program = torch.export.export(
            edgeopt_zoo.two_inputs(), *example, dynamic_shapes={"x": {0: FREE}, "ids": {0: FREE}}
        )
        torch.export.save(program, tmp_path / "two.pt2")
    model = load_model(str(tmp_path / "two.pt2"))
    samples = load_samples("edgeopt_zoo:two_inputs_data")[:4]
    expected = load_model("edgeopt_zoo:two_inputs").predict(samples) or []
    assert model.input_shape() is None
    session = OnnxRuntimeSession(model.to_onnx(samples[0]), threads=1)
    for want, own, onnx in zip(expected, model.predict(samples) or [], session.predict(samples).values(), strict=True):
        assert np.allclose(want, own, atol=1e-6)
        assert np.allclose(want, onnx, atol=1e-5)


def test_the_shape_is_known_without_the_batch(tiny: str, tmp_path: Path) -> None:
    """Fixed sizes as numbers, free ones as None; ONNX of it says the same."""
    assert (16,) == load_model(tiny).input_shape()
    module = nn.Conv2d(3, 4, 3)
    with silenced():
        program = torch.export.export(module, (torch.zeros(2, 3, 9, 8),), dynamic_shapes=({0: FREE, 2: FREE},))
        torch.export.save(program, tmp_path / "free.pt2")
    model = load_model(str(tmp_path / "free.pt2"))
    assert (3, None, 8) == model.input_shape()
    (tmp_path / "free.onnx").write_bytes(model.to_onnx(load_samples("edgeopt_zoo:table")[0]))
    assert (3, None, 8) == load_model(str(tmp_path / "free.onnx")).input_shape()


class _Evil:
    """A pickle that leaves a trace when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize(
    "member", ["data/sample_inputs/model.pt", "data/constants/opaque_obj_0", "data/aotinductor/a.so"]
)
def test_nothing_in_the_file_is_run(tiny: str, tmp_path: Path, member: str) -> None:
    """Neither a pickled object among the tensors, nor constants of other kinds, nor a compiled library."""
    trace, evil = tmp_path / "trace", io.BytesIO()
    torch.save(_Evil(trace), evil) if member.endswith(".pt") else pickle.dump(_Evil(trace), evil)
    with zipfile.ZipFile(tiny) as good, zipfile.ZipFile(tmp_path / "evil.pt2", "w") as bad:
        for name in good.namelist():
            if not name.endswith(member):
                bad.writestr(name, good.read(name))
        bad.writestr(f"tiny/{member}", evil.getvalue())
    with pytest.raises(ModelError, match=r"would run code from the file|pickled objects in it are never loaded"):
        load_model(str(tmp_path / "evil.pt2"))
    assert not trace.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_the_users_own_setting_of_torch_is_put_back(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was set before is set after."""
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "true")
    load_model(tiny)
    assert "true" == os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]


def test_files_that_are_no_program(tmp_path: Path) -> None:
    """Missing, no archive, another archive."""
    with pytest.raises(ModelError, match=r"there is no file .*absent\.pt2"):
        load_model(str(tmp_path / "absent.pt2"))
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(ModelError, match=r"as an exported program: .*not a zip file"):
        load_model(str(tmp_path / "text.pt2"))
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("a/readme", "hello")
    with pytest.raises(ModelError, match=r"cannot load .*other.pt2"):
        load_model(str(tmp_path / "other.pt2"))


class _Nested(nn.Module):
    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return pair[0] + pair[1]


def test_inputs_that_are_no_tensors(tmp_path: Path) -> None:
    """A tuple of tensors has no name that data could give."""
    with silenced():
        torch.export.save(torch.export.export(_Nested(), ((torch.zeros(2, 3),) * 2,)), tmp_path / "nested.pt2")
    with pytest.raises(ModelError, match="expected a program whose inputs are tensors"):
        load_model(str(tmp_path / "nested.pt2"))


def test_data_that_the_program_refuses(tiny: str) -> None:
    """The program's own words, as an error of the model."""
    samples = [type(s)({"input": s.inputs["input"][:4]}, s.label) for s in load_samples("edgeopt_zoo:table")[:2]]
    with pytest.raises(ModelError, match="running the exported program on samples of the data failed"):
        load_model(tiny).predict(samples)

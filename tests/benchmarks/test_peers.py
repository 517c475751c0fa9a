"""Every peer works on a small network, or says why not; a peer that crashes or hangs costs its row only."""

from __future__ import annotations

import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from benchmarks.optimizer.judging import opened
from benchmarks.optimizer.peers.apart import INC, OLIVE, Apart, interpreter
from benchmarks.optimizer.peers.catalogue import APART, PEERS
from benchmarks.optimizer.peers.port import Form, Made, Refused, Work, ir_bytes, ir_parts
from benchmarks.optimizer.peers.worker import quantized, read_work, write_work
from edgeopt.graph import prepare
from edgeopt.models import TorchModel
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample, stack

_AGREE = 0.9  # of 64 pictures; a small network that nothing has gone wrong with


def small_work() -> Work:
    """Return the digits example with 32 pictures for calibration and 64 for selection."""
    from examples import digits

    pictures, labels = digits.pictures("test")
    samples = [Sample({"input": one}, int(label)) for one, label in zip(pictures[:96], labels, strict=False)]
    model = prepare(TorchModel(digits.model()).to_onnx(samples[0])).model
    return Work(
        float_model=model,
        reference="examples.digits:model",
        calibration=samples[:32],
        selection=samples[32:],
        metric="accuracy",
        max_drop=0.02,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the work in it."""
    place = tmp_path_factory.mktemp("work")
    write_work(place, small_work())
    return place


def test_work_survives_the_folder(folder: Path) -> None:
    """What a peer reads is what was written."""
    want, have = small_work(), read_work(folder)
    assert (want.float_model, want.reference, want.metric) == (have.float_model, have.reference, have.metric)
    assert [one.label for one in want.selection] == [one.label for one in have.selection]
    np.testing.assert_array_equal(stack(want.calibration)["input"], stack(have.calibration)["input"])


def test_ir_is_two_files_in_one() -> None:
    """Both come back, and the whole is hardly larger than they are."""
    whole = ir_bytes(b"<xml/>", bytes(10_000))
    assert (b"<xml/>", bytes(10_000)) == ir_parts(whole)
    assert len(whole) < 10_400


@pytest.mark.peers
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", [name for name in PEERS if name not in APART])
def test_peer_makes_a_model_that_runs(name: str, folder: Path) -> None:
    """Its model loads in its runtime and answers nearly as the float model does; the file is not larger for int8."""
    for need in PEERS[name].needs:
        try:
            metadata.version(need)
        except metadata.PackageNotFoundError:
            pytest.skip(f"needs: pip install {need}")
    result = quantized(name, folder, Path(sys.executable), limit_seconds=200)
    assert result.problem is None
    assert result.made is not None
    assert result.seconds > 0
    work = small_work()
    want = OnnxRuntimeSession(work.float_model, threads=1).predict(work.selection)
    have = opened(result.made).predict(work.selection)
    first = next(iter(want))
    same = want[first].argmax(axis=-1) == have[first].argmax(axis=-1)
    assert same.mean() >= _AGREE
    if not any(large in name for large in ("fp32", "onnxsim")):  # onnxsim keeps the weights in float beside int8 ones
        assert len(result.made.model) < len(work.float_model)


def test_peer_that_raises_becomes_a_reason(folder: Path, tmp_path: Path) -> None:
    """The tool's own words are what the row says."""
    (tmp_path / "float.onnx").write_bytes(b"no model")
    for name in ("work.json", "calibration.npz", "selection.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    result = quantized("onnxruntime, dynamic", tmp_path, Path(sys.executable), limit_seconds=100)
    assert result.made is None
    assert "Error" in str(result.problem)


def test_peer_that_dies_becomes_a_reason(tmp_path: Path) -> None:
    """A process that ends without a result is told from one that gave one: an empty folder has no work."""
    result = quantized("onnxruntime, dynamic", tmp_path, Path(sys.executable), limit_seconds=100)
    assert result.made is None
    assert "FileNotFoundError" in str(result.problem)


def test_peer_that_hangs_is_ended(folder: Path) -> None:
    """The limit holds: nothing can be imported in a hundredth of a second."""
    began = time.monotonic()
    result = quantized("onnxruntime, dynamic", folder, Path(sys.executable), limit_seconds=0.01)
    assert "not done after 0 s" == result.problem
    assert time.monotonic() - began < 60


def test_environment_that_cannot_be_made_is_a_reason(tmp_path: Path) -> None:
    """What pip says stands in the row; nothing was installed where the benchmark runs."""
    nowhere = Apart("nowhere", (str(tmp_path / "missing-1.0-py3-none-any.whl"),))
    with pytest.raises(Refused, match=r"pip install .*missing-1\.0.* failed"):
        interpreter(tmp_path, nowhere)
    assert not (tmp_path / "nowhere" / "ready").exists()


def test_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is ready for the same requirements is used as it is."""
    for apart in (OLIVE, INC):
        (tmp_path / apart.name).mkdir()
        (tmp_path / apart.name / "ready").write_text(repr(apart.requirements))
        monkeypatch.setattr("venv.create", lambda *_args, **_options: pytest.fail("made again"))
        assert tmp_path / apart.name / "bin" / "python" == interpreter(tmp_path, apart)


def test_made_is_onnx_unless_it_says_otherwise() -> None:
    """The common case needs no words."""
    assert Form.ONNX == Made(model=b"").form

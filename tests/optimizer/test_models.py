"""Loading and exporting models: what works, and one sentence for what does not."""

from __future__ import annotations

from pathlib import Path

import edgeopt_zoo
import numpy as np
import onnx
import pytest

from edgeopt.data import load_samples
from edgeopt.models import load_model
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt_contract.errors import ModelError


@pytest.fixture(scope="module")
def exported() -> bytes:
    """The tiny classifier as ONNX."""
    return load_model("edgeopt_zoo:tiny").to_onnx(load_samples("edgeopt_zoo:table")[0])


def test_an_exported_module_takes_any_batch_and_computes_the_same(exported: bytes) -> None:
    """The ONNX form answers like the module, one sample at a time or many at once."""
    samples = load_samples("edgeopt_zoo:table")[:5]
    (expected,) = load_model("edgeopt_zoo:tiny").predict(samples)
    session = OnnxRuntimeSession(exported, threads=1)
    assert {"input": ("float32", (16,))} == session.inputs
    (batched,), (single,) = session.predict(samples).values(), session.predict_singly(samples).values()
    assert np.allclose(expected, batched, atol=1e-5)
    assert np.allclose(batched, single, atol=1e-5)


def test_inputs_by_name_and_several_outputs() -> None:
    """A dict of arrays reaches the parameters of the same names, integers included."""
    samples = load_samples("edgeopt_zoo:two_inputs_data")[:4]
    model = load_model("edgeopt_zoo:two_inputs")
    session = OnnxRuntimeSession(model.to_onnx(samples[0]), threads=1)
    assert {"x": ("float32", (16,)), "ids": ("int64", (3,))} == session.inputs
    for expected, actual in zip(model.predict(samples), session.predict(samples).values(), strict=True):
        assert np.allclose(expected, actual, atol=1e-5)


def test_the_exporter_says_nothing(capfd: pytest.CaptureFixture[str], exported: bytes) -> None:
    """Neither torch nor onnxscript writes to the user's terminal."""
    assert exported
    load_model("edgeopt_zoo:tiny").to_onnx(load_samples("edgeopt_zoo:table")[0])
    assert ("", "") == tuple(capfd.readouterr())


def test_an_onnx_file_is_taken_as_it_is(tmp_path: Path, exported: bytes) -> None:
    """There is nothing to export and nothing to compare with."""
    path = tmp_path / "tiny.onnx"
    path.write_bytes(exported)
    model = load_model(str(path))
    sample = load_samples("edgeopt_zoo:table")[0]
    assert exported == model.to_onnx(sample)
    assert model.predict([sample]) is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("net.pt", "would run code from the file .* write a function"),
        ("net.pth", "would run code"),
        ("net.ts", "TorchScript cannot be exported"),
        ("net.onnx", "there is no file net.onnx"),
        ("net", "expected 'package.module:factory', an .onnx or a .pt2 file"),
        ("edgeopt_zoo:absent", "has no function 'absent'"),
        ("no_such:model", "cannot find the module 'no_such' .* check the spelling"),
        ("edgeopt_zoo:broken_factory", r"FileNotFoundError: weights.npz \(edgeopt_zoo.py, line \d+\)"),
        ("edgeopt_zoo:not_a_module", "gave int: expected a torch.nn.Module"),
        ("edgeopt_zoo:scripted", "gave a TorchScript module"),
    ],
)
def test_what_cannot_be_loaded(reference: str, message: str) -> None:
    """The reason and the way out."""
    with pytest.raises(ModelError, match=message):
        load_model(reference)


def test_a_module_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A syntax error and a missing dependency are told apart from a misspelt name."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "crooked.py").write_text("def model(:\n")
    (tmp_path / "needy.py").write_text("import surely_not_installed\n")
    with pytest.raises(ModelError, match="importing crooked failed: SyntaxError"):
        load_model("crooked:model")
    with pytest.raises(ModelError, match="needs the module 'surely_not_installed', which is not installed"):
        load_model("needy:model")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "edgeopt_zoo:misfit",
            r"running the model on a sample of the data \(input 16\) failed: .*cannot be multiplied",
        ),
        ("edgeopt_zoo:data_dependent", r"cannot export the model: Could not guard on data-dependent .* give the .onnx"),
    ],
)
def test_what_cannot_be_exported(reference: str, message: str) -> None:
    """A shape that does not fit, and control flow that depends on data, each name their cause."""
    with pytest.raises(ModelError, match=message):
        load_model(reference).to_onnx(load_samples("edgeopt_zoo:table")[0])


def _model(batch: int | str, *, output: list[int | str] | None = None) -> bytes:
    """Return an identity on four numbers with the batch dimension ``batch``."""
    make = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    if output is not None:
        node = onnx.helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    graph = onnx.helper.make_graph([node], "g", [make("x", 1, [batch, 4])], [make("y", 1, output or [batch, 4])])
    return onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)]
    ).SerializeToString()


class TestSession:
    """What the runtime accepts."""

    def test_a_fixed_batch_of_one_runs_sample_by_sample(self) -> None:
        """Many exported models have no free batch dimension."""
        samples = [type(s)({"x": s.inputs["input"][:4]}, s.label) for s in load_samples("edgeopt_zoo:table")[:40]]
        outputs = OnnxRuntimeSession(_model(1), threads=1).predict(samples)["y"]
        assert np.array_equal(edgeopt_zoo.TABLE[:40, :4], outputs)

    def test_other_fixed_batches_are_refused(self) -> None:
        """A batch of seven cannot serve one sample."""
        with pytest.raises(ModelError, match="expected a first dimension of 1 or of any length"):
            OnnxRuntimeSession(_model(7), threads=1)

    def test_an_output_without_batch_axis_is_refused(self) -> None:
        """Whose answer a sum over the batch is, nobody can say."""
        sample = load_samples("edgeopt_zoo:table")[0]
        session = OnnxRuntimeSession(_model("n", output=[]), threads=1)
        with pytest.raises(ModelError, match="its first axis must be the batch"):
            session.predict([type(sample)({"x": sample.inputs["input"][:4]}, 0)])

    def test_rubbish_is_refused(self) -> None:
        """Bytes that are no model."""
        with pytest.raises(ModelError, match="cannot load the model"):
            OnnxRuntimeSession(b"rubbish", threads=1)

    def test_data_that_the_model_cannot_run(self) -> None:
        """ONNX Runtime's reason, as an error of the tree."""
        sample = load_samples("edgeopt_zoo:table")[0]
        with pytest.raises(ModelError, match="the model failed on the data"):
            OnnxRuntimeSession(_model("n"), threads=1).predict([type(sample)({"x": sample.inputs["input"]}, 0)])

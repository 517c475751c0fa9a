"""Loading and exporting models: what works, and one sentence for what does not."""

from __future__ import annotations

from pathlib import Path

import edgeopt_zoo
import numpy as np
import onnx
import pytest
import torch

from edgeopt.data import load_samples
from edgeopt.folding import lift_constants
from edgeopt.models import load_model
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt_contract.errors import ModelError
from tests.optimizer.graphs import old_convolution
from tests.optimizer.wild_graphs import model as graph_of
from tests.optimizer.wild_graphs import pictures


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


def test_a_module_is_left_as_it_came() -> None:
    """Its owner may go on to train it: modes, running statistics, and what it keeps of a call stay good for that."""
    network = edgeopt_zoo.in_training()
    modes = [part.training for part in network.modules()]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    samples = load_samples("edgeopt_zoo:table")[:5]
    model = load_model("edgeopt_zoo:in_training")
    exported = OnnxRuntimeSession(model.to_onnx(samples[0]), threads=1).predict(samples)
    assert np.allclose(*model.predict(samples), *exported.values(), atol=1e-5)
    assert [True, False] == sorted(set(modes), reverse=True)
    assert modes == [part.training for part in network.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    network(torch.from_numpy(edgeopt_zoo.TABLE[:5])).sum().backward()


def test_outputs_within_outputs() -> None:
    """An LSTM's scores and its states: all outputs come in the exporter's order."""
    samples = load_samples("edgeopt_zoo:table")[:4]
    model = load_model("edgeopt_zoo:nested")
    answers = OnnxRuntimeSession(model.to_onnx(samples[0]), threads=1).predict(samples)
    assert 3 == len(answers)
    for expected, actual in zip(model.predict(samples), answers.values(), strict=True):
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
        ("net.pt", "would run code .* write a function .* weights_only=True"),
        ("NET.PTH", "would run code when loaded, and is never opened"),
        ("net.ckpt", "would run code .* write a function"),
        ("pytorch_model.bin", "would run code .* write a function"),
        ("net.pkl", "would run code .* skl2onnx"),
        ("net.joblib", "would run code .* skl2onnx"),
        ("net.ts", "TorchScript cannot go through .* write a function"),
        ("net.safetensors", "weights without the network; write a function .*function'; safetensors.torch.load_file"),
        ("net.h5", "TensorFlow or Keras .* tf2onnx"),
        ("net.keras", "TensorFlow or Keras .* tf2onnx"),
        ("frozen.pb", "TensorFlow or Keras .* tf2onnx"),
        ("net.tflite", "what edgeopt makes, .* give the float model"),
        ("net.engine", "compiled for one runtime; give the float model"),
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


def test_an_empty_file_is_no_model(tmp_path: Path) -> None:
    """What an export that was broken off leaves, by its name."""
    (tmp_path / "net.onnx").touch()
    with pytest.raises(ModelError, match=r"net.onnx is empty: export the model again"):
        load_model(str(tmp_path / "net.onnx"))


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    """People give what TensorFlow or Hugging Face saved."""
    with pytest.raises(ModelError, match=r"is a folder: expected .* optimum"):
        load_model(str(tmp_path))
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelError, match=r"is a TensorFlow SavedModel: .* tf2onnx"):
        load_model(str(tmp_path))


def test_weights_beside_an_onnx_file_are_read(tmp_path: Path) -> None:
    """Large exports keep them in a file of their own; the path says where that is."""
    model = onnx.load_model_from_string(old_convolution())
    lift_constants(model)
    path = tmp_path / "model.onnx"
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save_model(model, path, **options, convert_attribute=False)
    samples = pictures(3)
    loaded = load_model(str(path)).to_onnx(samples[0])
    (expected,) = OnnxRuntimeSession(old_convolution(), threads=1).predict(samples).values()
    (actual,) = OnnxRuntimeSession(loaded, threads=1).predict(samples).values()
    assert np.array_equal(expected, actual)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"cannot read the weights beside .*model\.onnx"):
        load_model(str(path))


def test_a_quantized_file_is_refused(tmp_path: Path) -> None:
    """What int8 lost, no float baseline could show."""
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale"], ["y"]),
    ]
    scale = onnx.numpy_helper.from_array(np.float32(0.1), "scale")
    path = tmp_path / "int8.onnx"
    path.write_bytes(graph_of(nodes, [("x", 1, ["n", 4])], [("y", 1, ["n", 4])], [scale]))
    with pytest.raises(ModelError, match=r"is quantized already .* give the float model"):
        load_model(str(path))


def test_the_module_behind_a_model(tmp_path: Path) -> None:
    """Converters that start from torch ask for it; a file of ONNX has none."""
    assert isinstance(load_model("edgeopt_zoo:tiny").module, torch.nn.Linear)
    path = tmp_path / "old.onnx"
    path.write_bytes(old_convolution())
    assert load_model(str(path)).module is None


def test_a_module_that_does_not_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A syntax error and a missing dependency are told apart from a misspelt name."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "crooked.py").write_text("def model(:\n")
    (tmp_path / "needy.py").write_text("import surely_not_installed\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ModelError, match="importing crooked failed: SyntaxError"):
        load_model("crooked:model")
    with pytest.raises(ModelError, match="needs the module 'surely_not_installed', which is not installed"):
        load_model("needy:model")
    with pytest.raises(ModelError, match=r"importing script failed: SystemExit: 3 \(script.py, line 2\)"):
        load_model("script:model")  # its exit code would say that the gate had failed


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "edgeopt_zoo:misfit",
            r"running the model on a sample of the data \(input 16\) failed: .*cannot be multiplied",
        ),
        ("edgeopt_zoo:half", r"failed: .*its weight weight is torch.float16: let the factory .* with .float\(\)"),
        ("edgeopt_zoo:elsewhere", r"its weight weight is on the device 'meta': let the factory .* with .cpu\(\)"),
        ("edgeopt_zoo:says_hello", "the model gives str: expected one tensor"),
        ("edgeopt_zoo:says_nothing", "the model gives nothing: expected one tensor"),
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

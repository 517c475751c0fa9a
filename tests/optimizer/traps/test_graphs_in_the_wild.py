"""Trap 7: If nodes, several outputs, integer inputs, PReLU, a norm after ReLU, old opsets, weights in Constant nodes.

Each is prepared, computes what it did before, and is quantized with what can be quantized in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeopt.graph import prepare
from edgeopt.nodes import all_nodes
from edgeopt.preprocess import bind
from edgeopt.preprocess_steps import Preprocessing
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from tests.optimizer import wild_graphs as wild
from tests.optimizer.graphs import old_convolution
from tests.optimizer.minmax_int8 import minmax_int8
from tests.optimizer.traps.public_files import package_file

pytestmark = pytest.mark.traps


def _outputs(model: bytes, samples: Sequence[Sample]) -> list[np.ndarray]:
    # simulated: what the integers stand for, whatever this machine's kernels saturate
    return list(OnnxRuntimeSession(model, threads=1, simulated=True).predict(samples).values())


def _operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_model_from_string(model).graph.node)


def _hold(original: bytes, samples: Sequence[Sample], correlation: float = 0.99) -> tuple[bytes, bytes]:
    """Prepare and quantize ``original``; float answers are equal, those of int8 correlate. Return both models."""
    prepared = prepare(original)
    assert prepared.model == prepare(original).model
    names = [node.name for node in all_nodes(onnx.load_model_from_string(prepared.model).graph)]
    assert all(names)
    assert len(names) == len(set(names))
    for expected, actual in zip(_outputs(original, samples), _outputs(prepared.model, samples), strict=True):
        assert expected.dtype == actual.dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    int8 = minmax_int8(prepared.model, samples)
    onnx.checker.check_model(onnx.load_model_from_string(int8))
    assert _operators(int8)["DequantizeLinear"]
    for expected, actual in zip(_outputs(original, samples), _outputs(int8, samples), strict=True):
        assert expected.shape == actual.shape
        assert np.corrcoef(expected.ravel(), actual.ravel())[0, 1] > correlation
    return prepared.model, int8


@pytest.mark.parametrize("opset", [11, 12, 13, 15, 18, 21])
def test_weights_in_constant_nodes_at_every_opset(opset: int) -> None:
    """Before opset 13 per-channel scales would make an invalid graph."""
    prepared, int8 = _hold(old_convolution(opset), wild.pictures())
    assert _operators(prepared) == {"Conv": 1, "Relu": 1}
    scales = [tensor.dims for tensor in onnx.load_model_from_string(int8).graph.initializer if "w" in tensor.name]
    assert [6] in scales


def test_an_if_whose_condition_is_constant_vanishes() -> None:
    """The branch that is taken becomes part of the graph, so that quantizers see through it."""
    prepared, _ = _hold(wild.decided_if(), wild.pictures())
    assert not _operators(prepared)["If"]


def test_an_if_that_looks_at_the_data_survives_in_float() -> None:
    """It cannot be decided; the convolutions on both of its sides are quantized all the same."""
    prepared, int8 = _hold(wild.real_if(), wild.pictures())
    (kept,) = [node for node in onnx.load_model_from_string(int8).graph.node if node.op_type == "If"]
    assert 1 == _operators(prepared)["If"]
    assert {"Constant", "Mul"} >= {node.op_type for attribute in kept.attribute for node in attribute.g.node}
    weights = [tensor for tensor in onnx.load_model_from_string(int8).graph.initializer if tensor.data_type == 3]
    assert {(6, 3, 3, 3), (4, 6, 3, 3)} <= {tuple(tensor.dims) for tensor in weights}


def test_several_outputs_keep_their_order() -> None:
    """Scores, box and features are three answers, none of them left out."""
    _, int8 = _hold(wild.several_outputs(), wild.pictures())
    assert ["scores", "box", "features"] == [one.name for one in onnx.load_model_from_string(int8).graph.output]


def test_integer_and_bool_inputs_keep_their_dtypes() -> None:
    """Token ids are no numbers to be scaled: int64, int32 and bool go in as they are."""
    _, int8 = _hold(wild.integer_inputs(), wild.integer_data())
    inputs = OnnxRuntimeSession(int8, threads=1).inputs
    assert {"ids": ("int64", (7,)), "offset": ("int32", (1,)), "mask": ("bool", (7,))} == inputs


@pytest.mark.parametrize("opset", [11, 16])
def test_prelu(opset: int) -> None:
    """One slope for each channel."""
    prepared, _ = _hold(wild.prelu(opset), wild.pictures())
    assert 1 == _operators(prepared)["PRelu"]


def test_batch_norm_after_relu_is_not_folded_into_the_convolution_before_it() -> None:
    """Folding it across the ReLU, or into the padded convolution behind it, would change the answers."""
    prepared, _ = _hold(wild.norm_after_relu(), wild.pictures())
    kinds = [node.op_type for node in onnx.load_model_from_string(prepared).graph.node]
    assert kinds[:2] == ["Conv", "Relu"]
    assert kinds[-1] == "Conv"
    assert len(kinds) > 3


def test_free_axes_other_than_the_batch() -> None:
    """Height and width stay free unless the data's are asked for; then what depends on them is decided."""
    samples = wild.pictures(side=10)
    prepared, _ = _hold(wild.dynamic_axes(), samples)
    for side in (7, 12):
        (expected,), (actual,) = (_outputs(one, wild.pictures(4, side=side)) for one in (wild.dynamic_axes(), prepared))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    fixed = prepare(wild.dynamic_axes(), {"input": (3, 10, 10)}).model  # the only input, however the data call it
    assert prepared == prepare(wild.dynamic_axes(), {"input": (10, 10)}).model  # no shape of this model
    assert {"x": ("float32", (3, 10, 10))} == OnnxRuntimeSession(fixed, threads=1).inputs
    np.testing.assert_allclose(_outputs(fixed, samples)[0], _outputs(prepared, samples)[0], rtol=1e-4, atol=1e-6)


def test_pp_ocr_orientation_classifier() -> None:
    """A file of opset 11 with 308 Constant nodes and no initializer."""
    path = package_file("rapidocr-onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    random = np.random.default_rng(0)
    strips = [Sample({"x": random.uniform(-1, 1, (3, 48, 192)).astype(np.float32)}, None) for _ in range(8)]
    original = Path(path).read_bytes()
    prepared, int8 = _hold(original, strips, correlation=0.9)
    assert 53 == _operators(prepared)["Conv"]
    assert not _operators(prepared)["Constant"]
    assert len(int8) < 0.6 * len(original)


@pytest.mark.parametrize("file", ["silero_vad_16k_op15.onnx", "silero_vad_half.onnx"])
def test_silero_vad_whose_ifs_depend_on_shapes(file: str) -> None:
    """Its LSTM stands in an If that asks for the input's rank: with the data's shape it comes into the main graph."""
    original = Path(package_file("silero-vad", file)).read_bytes()
    random = np.random.default_rng(0)
    feeds = {
        "input": random.uniform(-0.1, 0.1, (1, 576)).astype(np.float32),
        "state": np.zeros((2, 1, 128), np.float32),
    }
    names = [value.name for value in onnx.load_model_from_string(original).graph.input]
    feeds = {**feeds, "sr": np.array(16000)} if "sr" in names else feeds
    free, fixed = prepare(original).model, prepare(original, {"input": (576,)}).model
    assert _operators(free)["If"]
    assert {"If": 0, "LSTM": 1, "Conv": 6} == {kind: _operators(fixed)[kind] for kind in ("If", "LSTM", "Conv")}
    expected = _run(original, feeds)
    for prepared in (free, fixed):
        for want, have in zip(expected, _run(prepared, feeds), strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


def test_silero_vad_with_its_rate_fixed_takes_samples() -> None:
    """Rate and state would be no samples: bound, the file runs sample by sample, in batches, and in the main graph."""
    original = Path(package_file("silero-vad", "silero_vad_16k_op15.onnx")).read_bytes()
    steps = Preprocessing(constants={"sr": 16000}, batch_axes={"state": 1, "stateN": 1})
    prepared = prepare(bind(original, steps), {"input": (576,), "state": (2, 128)}).model
    assert {"If": 0, "LSTM": 1} == {kind: _operators(prepared)[kind] for kind in ("If", "LSTM")}
    graph = onnx.load_model_from_string(prepared).graph
    (recurrent,) = [node for node in graph.node if node.op_type == "LSTM"]
    assert set(recurrent.input[1:4]) <= {tensor.name for tensor in graph.initializer}
    random = np.random.default_rng(0)
    sounds = random.uniform(-0.1, 0.1, (4, 576)).astype(np.float32)
    states = random.uniform(-0.5, 0.5, (4, 2, 128)).astype(np.float32)
    session = OnnxRuntimeSession(prepared, threads=1)
    assert {"input": ("float32", (576,)), "state": ("float32", (2, 128))} == session.inputs
    samples = [Sample({"input": sound, "state": state}, None) for sound, state in zip(sounds, states, strict=True)]
    answers, next_states = session.predict(samples).values()
    for index, sample in enumerate(samples):
        feeds = {"input": sample.inputs["input"][None], "state": sample.inputs["state"][:, None], "sr": np.array(16000)}
        answer, state = _run(original, feeds)
        np.testing.assert_allclose(answers[index], answer[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(next_states[index], state[:, 0], rtol=1e-3, atol=1e-4)


def test_preparing_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 6: symbolic shape inference stops at this file, and would write what it has where the user works."""
    monkeypatch.chdir(tmp_path)
    original = Path(package_file("silero-vad", "silero_vad_16k_op15.onnx")).read_bytes()
    assert any("symbolic shape inference left out" in note for note in prepare(original).notes)
    assert [] == list(tmp_path.iterdir())
    assert tmp_path == Path.cwd()


def _run(model: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run ONNX Runtime directly: the state's batch is its second axis."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    outputs = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    return [np.asarray(output) for output in outputs]

"""Traps of transformers, recurrent networks and tiny ones, on trained models (traps 3, 4, 6, 10 and 12)."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as onnxruntime_dynamic
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

from edgeopt.calibration.collection import collect
from edgeopt.criteria import Limits, Name, PairedScores, judge_all
from edgeopt.gate import Verdict
from edgeopt.graph import op_types, prepare
from edgeopt.metrics import accuracy, agreement
from edgeopt.quantization.dynamic import dynamic_weights, quantize_dynamic
from edgeopt.quantization.families import Family, family_of, family_recipes
from edgeopt.quantization.static import quantize_static
from edgeopt.quantization.weights import compress_weights
from edgeopt.recipe import Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array, Sample
from edgeopt.silence import silenced
from edgeopt.targets import host_target
from edgeopt_contract.errors import ModelError
from tests.optimizer.plain_int8 import plain_int8
from tests.optimizer.sequence_graphs import graph
from tests.optimizer.sequence_models import Trained, exported, trained
from tests.optimizer.traps.public_files import package_file

pytestmark = pytest.mark.traps
DYNAMIC = Recipe(precision=Precision.INT8_DYNAMIC)
WEIGHTS = Recipe(precision=Precision.INT8_WEIGHTS)
FEW = 100  # calibration samples
ENOUGH = 1500  # certification samples, for sound recipes to pass at a margin of one point


@functools.cache
def padded_transformer() -> Trained:
    """Return the transformer as text is fed to one: rows padded to 20 words, and a mask."""
    plain = trained("transformer")

    def pad(sample: Sample) -> Sample:
        return Sample({"x": np.pad(sample.inputs["input"], (0, 4)), "mask": np.arange(20) < 16}, sample.label)

    return exported(
        "transformer", list(map(pad, plain.calibration[:FEW])), list(map(pad, plain.certification[:ENOUGH]))
    )


def told(title: str, one: Trained, variant: bytes) -> Verdict:
    """Print what ``variant`` costs and saves, and return what the gate says at a margin of one point."""
    judgement = one.judged(variant)
    print(
        f"{title:42} {len(variant) / len(one.model):6.1%} of the size; accuracy {judgement.baseline:.2%} -> "
        f"{judgement.value:.2%}, agreement {one.agreement(variant):.2%}: {judgement.verdict}"
    )
    return judgement.verdict


def by_onnxruntime(model: bytes) -> bytes:
    """Return ``model`` in dynamic int8 by ONNX Runtime's tool as it comes: one scale for each tensor."""
    graph = onnx.load_model_from_string(model)
    del graph.graph.value_info[:]  # it does not bear the exporter's names for what it transposes
    with tempfile.TemporaryDirectory() as folder, silenced():
        result = Path(folder) / "dynamic.onnx"
        onnxruntime_dynamic(graph, str(result), weight_type=QuantType.QInt8)
        return result.read_bytes()


def changed(model: bytes, arrays: dict[str, Array]) -> bytes:
    """Return ``model`` with these initializers instead of its own."""
    graph = onnx.load_model_from_string(model)
    for constant in graph.graph.initializer:
        if constant.name in arrays:
            constant.CopyFrom(numpy_helper.from_array(arrays[constant.name].astype(np.float32), constant.name))
    return graph.SerializeToString()


def weights_of(model: bytes) -> dict[str, Array]:
    """Return copies of the float matrices of ``model``."""
    constants = onnx.load_model_from_string(model).graph.initializer
    arrays = {one.name: numpy_helper.to_array(one).copy() for one in constants}
    return {name: array for name, array in arrays.items() if array.dtype == np.float32 and array.ndim > 1}


def test_trap_3_a_transformer_with_every_operator_in_static_int8_collapses() -> None:
    """The masked scores stretch one scale beyond use, and only the gate tells; the family's recipes lose nothing."""
    one = padded_transformer()
    assert Family.TRANSFORMER is family_of(op_types(one.model))
    everything = plain_int8(one.model, one.calibration)
    assert Verdict.FAIL is told("every operator in static int8", one, everything)
    assert one.judged(everything).drop > 0.1
    weights = dynamic_weights(one.model, DYNAMIC)
    for recipe in family_recipes(Family.TRANSFORMER, host_target(), weights):
        assert Verdict.PASS is told(recipe.title, one, made(one, recipe))


def made(one: Trained, recipe: Recipe) -> bytes:
    """Return what the recipe makes of a model."""
    if recipe.precision is Precision.INT8:
        return quantize_static(one.model, recipe, collect(one.model, one.calibration).ranges(recipe.calibrator))
    return (quantize_dynamic if recipe.precision is Precision.INT8_DYNAMIC else compress_weights)(one.model, recipe)


def test_trap_4_weights_of_an_lstm_are_quantized_only_when_they_are_folded() -> None:
    """As exported, a quantizer leaves nearly all bytes in float without a word; folded, a quarter remains."""
    one = trained("lstm")
    skipped = len(by_onnxruntime(one.exported)) / len(one.exported)
    print(f"dynamic int8 of the LSTM as exported: {skipped:.1%} of the size")
    assert skipped > 0.9
    with pytest.raises(ModelError, match="prepare the model first"):
        quantize_dynamic(one.exported, DYNAMIC)
    variant = quantize_dynamic(one.model, replace(DYNAMIC, reduced_weights=("all",)))
    assert Verdict.PASS is told("dynamic int8 of the LSTM, folded", one, variant)
    assert len(variant) <= 0.4 * len(one.model)


def test_trap_4_dynamic_int8_that_wrecks_an_lstm_is_seen_by_the_gate() -> None:
    """A unit that nothing listens to has great weights: one scale for all leaves nothing of the others."""
    plain = trained("lstm")
    nodes = {node.op_type: node for node in onnx.load_model_from_string(plain.model).graph.node}
    arrays = weights_of(plain.model)
    inputs, states, classes = (arrays[name] for name in (*nodes["LSTM"].input[1:3], nodes["Gemm"].input[1]))
    states[:, :, 0], classes[:, 0] = 0, 0
    inputs[0, 0] = np.where(np.arange(inputs.shape[2]) % 2, 60, -60)
    one = replace(plain, model=changed(plain.model, arrays))
    assert Verdict.FAIL is told("one scale for each tensor", one, by_onnxruntime(one.model))
    sound = quantize_dynamic(one.model, replace(DYNAMIC, reduced_weights=("all",)))
    assert Verdict.PASS is told("one scale for each channel", one, sound)


def test_trap_4_a_public_lstm_inside_an_if() -> None:
    """Silero VAD: ONNX Runtime's tool leaves 61 % of the bytes; taken out of its If, a quarter remains, and it runs."""
    original = Path(package_file("silero-vad", "silero_vad_16k_op15.onnx")).read_bytes()
    model = prepare(original, {"input": (576,)}).model
    variant = quantize_dynamic(model, replace(DYNAMIC, reduced_weights=("all",)))
    print(f"dynamic int8 of silero VAD: {len(variant) / len(original):.1%} of {len(original):,} bytes")
    assert len(variant) <= 0.3 * len(original)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 576)).astype(np.float32)
    feeds = {"input": noise, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}
    expected, actual = (
        InferenceSession(one, providers=["CPUExecutionProvider"]).run(None, feeds) for one in (model, variant)
    )
    for want, have in zip(expected, actual, strict=True):
        assert np.abs(have - want).mean() < 0.02 * max(np.abs(want).mean(), 0.1)


@pytest.mark.parametrize("name", ["masked transformer", "lstm"])
def test_trap_6_a_crash_of_symbolic_shape_inference_stops_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether this ONNX Runtime's preparation copes with masks and LSTM or not, the model is prepared, and says how."""
    one = padded_transformer() if name == "masked transformer" else trained(name)

    def crash(*args: object, **options: object) -> None:
        raise AssertionError("symbolic shapes")

    monkeypatch.setattr(SymbolicShapeInference, "infer_shapes", crash)
    prepared = prepare(one.exported)
    assert "symbolic shape inference left out" in " ".join(prepared.notes)
    few = replace(one, certification=one.certification[:64])
    for output, array in few.outputs(one.exported).items():
        np.testing.assert_allclose(few.outputs(prepared.model)[output], array, rtol=1e-3, atol=1e-3)
    assert len(quantize_dynamic(prepared.model, DYNAMIC)) < 0.4 * len(one.exported)


def test_trap_10_accuracy_is_kept_while_many_answers_change() -> None:
    """An LSTM in 3 bits loses less than a point, and one answer in 25 is another one: agreement must be judged too."""
    one = trained("lstm")
    variant = changed(one.model, {name: coarse(array) for name, array in weights_of(one.model).items()})
    told("weights in 3 bits", one, variant)
    paired = PairedScores(
        baseline=one.scores(one.model),
        variant=one.scores(variant),
        agreement=agreement(one.outputs(one.model), one.outputs(variant)),
    )
    assert Verdict.PASS is judge_all(paired, Limits(max_drop=0.01, confidence=0.95)).verdict
    joint = judge_all(paired, Limits(max_drop=0.01, confidence=0.95, min_agreement=0.98))
    assert Verdict.FAIL is joint.verdict
    assert [Name.AGREEMENT] == [criterion.name for criterion in joint.criteria if criterion.verdict is Verdict.FAIL]


def coarse(values: Array) -> Array:
    """Return ``values`` rounded to 3 bits with one scale for each row."""
    steps = np.abs(values).max(axis=-1, keepdims=True) / 3
    return np.rint(values / steps) * steps


def test_trap_10_a_detector_keeps_its_ranking_and_calls_everything_positive() -> None:
    """Scores that are all pushed up rank as before: AUC is one, and every criterion on answers sees the collapse."""
    labels = np.repeat([0, 1], 500)
    scores = np.clip(np.random.default_rng(0).normal(np.where(labels, 0.8, 0.2), 0.05), 0.01, 0.99)[:, None]
    before, after = {"score": scores}, {"score": 0.6 + 0.4 * scores}
    assert auc(before["score"], labels) == auc(after["score"], labels) == 1
    paired = PairedScores(
        baseline=accuracy(before, labels), variant=accuracy(after, labels), agreement=agreement(before, after)
    )
    joint = judge_all(paired, Limits(max_drop=0.01, confidence=0.95, min_agreement=0.95))
    assert {Name.DROP, Name.AGREEMENT} == {one.name for one in joint.criteria if one.verdict is Verdict.FAIL}


def auc(scores: Array, labels: Array) -> float:
    """Return the share of pairs of a positive and a negative that are ranked rightly (Mann and Whitney)."""
    return float((scores[labels == 1][:, 0][:, None] > scores[labels == 0][:, 0][None, :]).mean())


def test_trap_12_a_tiny_detector_is_left_as_it_is() -> None:
    """Every way to int8 makes the file larger, or is refused with the reason: the right answer is fp32."""
    random = np.random.default_rng(0)
    shapes = {"a": (8, 12), "b": (12,), "c": (12, 1), "d": (1,)}
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "a", "b"], ["h"], "first"),
        onnx.helper.make_node("Relu", ["h"], ["r"], "rectify"),
        onnx.helper.make_node("Gemm", ["r", "c", "d"], ["y"], "second"),
    ]
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    detector = graph(nodes, {"x": (onnx.TensorProto.FLOAT, [8])}, weights)
    model = prepare(detector).model
    rows = [Sample({"x": row}, None) for row in random.standard_normal((FEW, 8)).astype(np.float32)]
    with pytest.raises(ModelError, match="no weights to compress"):
        compress_weights(model, WEIGHTS)
    for variant in (quantize_dynamic(model, DYNAMIC), plain_int8(model, rows)):
        assert len(variant) > len(model)
        assert np.isfinite(OnnxRuntimeSession(variant, threads=1).predict(rows)["y"]).all()

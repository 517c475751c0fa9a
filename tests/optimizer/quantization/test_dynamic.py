"""Dynamic int8: which kernels, which weights, how many bits, and what is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt.quantization.dynamic import dynamic_weights, quantize_dynamic
from edgeopt.recipe import Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError
from tests.optimizer.sequence_graphs import embedding, graph, recurrent, sequences, tokens

DYNAMIC = Recipe(precision=Precision.INT8_DYNAMIC)
REDUCED = Recipe(precision=Precision.INT8_DYNAMIC, reduced_weights=("w",))
PAIR_SAFE = Recipe(precision=Precision.INT8_DYNAMIC, reduced_weights=("w",), pair_safe=True)


def operators(model: bytes) -> list[str]:
    """Return the operator of each node in order."""
    return [node.op_type for node in onnx.load_model_from_string(model).graph.node]


def stored(model: bytes) -> dict[str, np.ndarray]:
    """Return each int8 weight; zero points, which are all zero, are left out."""
    constants = onnx.load_model_from_string(model).graph.initializer
    found = {one.name: numpy_helper.to_array(one) for one in constants if one.data_type == onnx.TensorProto.INT8}
    return {name: array for name, array in found.items() if array.ndim > 1 and array.any()}


def greatest(model: bytes) -> dict[str, int]:
    """Return the greatest absolute value of each int8 weight."""
    return {name: int(np.abs(array.astype(int)).max()) for name, array in stored(model).items()}


def answers(model: bytes, samples: list[Sample]) -> np.ndarray:
    """Return the output of ``model`` for ``samples``."""
    return OnnxRuntimeSession(model, threads=1).predict(samples)["y"]


def two_products(**attributes: float) -> bytes:
    """Return a Gemm (transposed weight and bias) behind a MatMul."""
    random = np.random.default_rng(0)
    shapes = {"a": (16, 32), "b": (24, 32), "c": (24,)}
    weights = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        onnx.helper.make_node("Gemm", ["h", "b", "c"], ["y"], "second", transB=1, **attributes),
    ]
    return graph(nodes, {"x": (onnx.TensorProto.FLOAT, [16])}, weights)


ROWS = [Sample({"x": row}, None) for row in np.random.default_rng(3).standard_normal((64, 16)).astype(np.float32)]


def test_products_and_gemms_get_integer_kernels() -> None:
    """Both become MatMulInteger with a scale for each channel, and still mean the same."""
    small = quantize_dynamic(two_products(), REDUCED)  # which no CPU saturates
    assert 2 == operators(small).count("MatMulInteger")
    assert ("a", "b") == dynamic_weights(two_products(), DYNAMIC)
    assert np.corrcoef(answers(two_products(), ROWS).ravel(), answers(small, ROWS).ravel())[0, 1] > 0.999


@pytest.mark.parametrize(("recipe", "most"), [(DYNAMIC, 127), (REDUCED, 64)])
def test_reduced_weights_use_seven_bits(recipe: Recipe, most: int) -> None:
    """Where products of u8 by s8 saturate, all weights that are multiplied give up one bit; others need not."""
    for model in (two_products(), recurrent("LSTM")):
        values = greatest(quantize_dynamic(model, recipe)).values()
        assert len(values) == 2
        assert {most} == set(values)


@pytest.mark.parametrize("model", [two_products(), recurrent("LSTM"), recurrent("LSTM", directions=2, hidden=4)])
def test_pairs_that_are_safe_lose_less_than_seven_bits(model: bytes) -> None:
    """In exact arithmetic and on any CPU alike, for matrices that the quantizer transposes, square ones included."""
    samples = ROWS if "first" in [node.name for node in onnx.load_model_from_string(model).graph.node] else sequences()
    expected = answers(model, samples)
    safe = quantize_dynamic(model, PAIR_SAFE)
    seven, eight = (
        float(np.abs(answers(one, samples) - expected).mean()) for one in (quantize_dynamic(model, REDUCED), safe)
    )
    assert eight < 0.85 * seven
    for name, integers in stored(safe).items():
        pairs = integers.reshape(-1, integers.shape[-2] // 2, 2, integers.shape[-1]).astype(int)
        assert max(np.maximum(pairs, 0).sum(axis=2).max(), np.maximum(-pairs, 0).sum(axis=2).max()) <= 128, name


@pytest.mark.parametrize("name", ["first", "second"])
def test_nodes_in_float_stay_there(name: str) -> None:
    """By its name in the prepared graph, a Gemm too, which ONNX Runtime's quantizer renames."""
    small = quantize_dynamic(two_products(), Recipe(precision=Precision.INT8_DYNAMIC, float_nodes=(name,)))
    assert 1 == operators(small).count("MatMulInteger")


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_only_the_operators_of_the_recipe_are_quantized(operator: str) -> None:
    """A Gemm is no MatMul, although the quantizer writes it as one."""
    small = quantize_dynamic(two_products(), Recipe(precision=Precision.INT8_DYNAMIC, operators=(operator,)))
    assert 1 == operators(small).count("MatMulInteger")


@pytest.mark.parametrize("directions", [1, 2])
def test_an_lstm_gets_its_kernel(directions: int) -> None:
    """In one direction and in two, with a scale for each gate of each unit."""
    model = recurrent("LSTM", directions=directions)
    small = quantize_dynamic(model, REDUCED)
    assert "DynamicQuantizeLSTM" in operators(small)
    assert len(small) < 0.35 * len(model)
    assert np.corrcoef(answers(model, sequences()).ravel(), answers(small, sequences()).ravel())[0, 1] > 0.999


def test_what_has_no_integer_kernel_is_stored_in_int8() -> None:
    """A table that is looked up before a product shrinks as well."""
    small = quantize_dynamic(embedding(then_product=True), REDUCED)
    assert {"Gather", "Cast", "MatMulInteger"} <= set(operators(small))
    assert {"table_int8"} < set(greatest(small))
    assert (
        np.corrcoef(answers(embedding(then_product=True), tokens()).ravel(), answers(small, tokens()).ravel())[0, 1]
        > 0.999
    )


def test_an_lstm_whose_weights_are_computed_is_refused() -> None:
    """Quantizers skip it without a word; the message says what to do."""
    model = onnx.load_model_from_string(recurrent("LSTM"))
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["w"], ["w_computed"], "slice"))
    next(node for node in model.graph.node if node.op_type == "LSTM").input[1] = "w_computed"
    with pytest.raises(ModelError, match="prepare the model first"):
        quantize_dynamic(model.SerializeToString(), DYNAMIC)


def test_nothing_to_quantize_is_said() -> None:
    """A GRU alone has no integer kernel: its weights may be stored in int8, and that is another recipe."""
    with pytest.raises(ModelError, match=r"nothing to quantize dynamically.*int8-weights"):
        quantize_dynamic(recurrent("GRU"), DYNAMIC)
    assert () == dynamic_weights(recurrent("GRU"), DYNAMIC)


def test_quantizing_twice_gives_the_same_bytes_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The variant of a bundle is reproducible."""
    for model in (two_products(), recurrent("LSTM")):
        assert quantize_dynamic(model, REDUCED) == quantize_dynamic(model, REDUCED)
    assert ("", "") == tuple(capfd.readouterr())

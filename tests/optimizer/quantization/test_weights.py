"""Weights in int8, arithmetic in float: what is stored, what it computes, and what stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgeopt.quantization.weights import WEIGHT_OPERATORS, compress_weights, compressible_weights
from edgeopt.recipe import Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError
from tests.optimizer.sequence_graphs import embedding, graph, recurrent, sequences, tokens

WEIGHTS = Recipe(precision=Precision.INT8_WEIGHTS)


def arrays(model: bytes) -> dict[str, np.ndarray]:
    """Return the initializers of ``model``."""
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(model).graph.initializer}


def one_node(operator: str, weight: np.ndarray, shape: list[int], **attributes: int) -> bytes:
    """Return a graph of one node: its first operand is the input ``x``, its second the weight ``w``."""
    node = onnx.helper.make_node(operator, ["x", "w"], ["y"], "only", **attributes)
    return graph([node], {"x": (onnx.TensorProto.FLOAT, shape)}, {"w": weight}, rank=1 + len(shape))


def answers(model: bytes, samples: list[Sample]) -> np.ndarray:
    """Return the output of ``model`` for ``samples``."""
    return OnnxRuntimeSession(model, threads=1).predict(samples)["y"]


def uneven(*shape: int, axis: int) -> np.ndarray:
    """Return weights whose channels along ``axis`` differ a thousandfold in size."""
    sizes = np.logspace(-2, 1, shape[axis]).reshape([-1 if index == axis else 1 for index in range(len(shape))])
    return (np.random.default_rng(0).uniform(-1, 1, shape) * sizes).astype(np.float32)


@pytest.mark.parametrize(
    ("operator", "shape", "axis", "attributes", "data"),
    [
        ("MatMul", (32, 24), 1, {}, [32]),
        ("Gemm", (32, 24), 1, {}, [32]),
        ("Gemm", (24, 32), 0, {"transB": 1}, [32]),
        ("Conv", (24, 8, 3, 3), 0, {}, [8, 5, 5]),
        ("ConvTranspose", (8, 24, 3, 3), 1, {}, [8, 5, 5]),
    ],
)
def test_each_output_channel_has_its_own_scale(
    operator: str, shape: tuple[int, ...], axis: int, attributes: dict[str, int], data: list[int]
) -> None:
    """A channel loses at most half of its own step, however large the others are."""
    weight = uneven(*shape, axis=axis)
    stored = arrays(compress_weights(one_node(operator, weight, data, **attributes), WEIGHTS))
    assert np.int8 == stored["w_int8"].dtype
    assert weight.shape == stored["w_int8"].shape
    step = np.abs(weight).max(axis=tuple(index for index in range(weight.ndim) if index != axis), keepdims=True) / 127
    assert (np.abs(stored["w_int8"] * stored["w_scale"] - weight) <= 0.501 * step).all()


@pytest.mark.parametrize("operator", ["LSTM", "GRU"])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_weights_shrink_and_answers_stay(operator: str, directions: int) -> None:
    """An LSTM's or GRU's two weights are a quarter of their size; each state stays close to what it was."""
    model = recurrent(operator, directions=directions)
    small = compress_weights(model, WEIGHTS)
    assert len(small) < 0.35 * len(model)
    assert np.abs(answers(model, sequences()) - answers(small, sequences())).max() < 0.02


def test_a_looked_up_table_stays_int8_until_a_row_is_found() -> None:
    """The embedding is never turned into float as a whole, and a column keeps its own step."""
    small = compress_weights(embedding(), WEIGHTS)
    gather, cast, mul = onnx.load_model_from_string(small).graph.node
    assert ["Gather", "Cast", "Mul"] == [gather.op_type, cast.op_type, mul.op_type]
    assert np.int8 == arrays(small)[gather.input[0]].dtype
    expected, actual = answers(embedding(), tokens()), answers(small, tokens())
    steps = np.abs(arrays(embedding())["table"]).max(axis=0) / 127
    assert (np.abs(expected - actual) <= 0.501 * steps).all()


def test_a_table_that_a_product_reads_too_is_expanded_for_both() -> None:
    """Tied weights (embedding and output layer) are stored once and still mean the same to both."""
    small = compress_weights(embedding(tied=True), WEIGHTS)
    assert ["table_int8"] == [name for name, array in arrays(small).items() if array.dtype == np.int8]
    expected = answers(embedding(tied=True), tokens())
    assert np.abs(expected - answers(small, tokens())).max() < 0.05 * expected.std()


def test_onnxruntime_expands_the_weights_while_it_loads(tmp_path: Path) -> None:
    """No Cast or Mul is left to do at each run: it computes what float computes, as fast."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    ort.InferenceSession(compress_weights(recurrent("LSTM"), WEIGHTS), options, providers=["CPUExecutionProvider"])
    assert not {"Cast", "Mul"} & {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


def test_nodes_in_float_and_other_operators_keep_their_weights() -> None:
    """The recipe says what is compressed."""
    model = one_node("MatMul", uneven(32, 24, axis=1), [32])
    assert ("w",) == compressible_weights(model, WEIGHTS)
    assert () == compressible_weights(model, Recipe(precision=Precision.INT8_WEIGHTS, float_nodes=("only",)))
    assert () == compressible_weights(model, Recipe(precision=Precision.INT8_WEIGHTS, operators=("Conv",)))


def test_a_weight_that_a_float_node_reads_too_stays() -> None:
    """Rounding it for one reader would round it for both."""
    nodes = [onnx.helper.make_node("MatMul", [left, "w"], [right], name) for left, right, name in ("xha", "hyb")]
    model = graph(nodes, {"x": (onnx.TensorProto.FLOAT, [32])}, {"w": uneven(32, 32, axis=1)})
    assert ("w",) == compressible_weights(model, WEIGHTS)
    assert () == compressible_weights(model, Recipe(precision=Precision.INT8_WEIGHTS, float_nodes=("b",)))


def test_a_weight_that_callers_may_replace_stays() -> None:
    """Old exporters list every weight among the inputs as well: such a one is a default value, and no constant."""
    model = onnx.load_model_from_string(one_node("MatMul", uneven(32, 24, axis=1), [32]))
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [32, 24]))
    assert () == compressible_weights(model.SerializeToString(), WEIGHTS)


def test_operators_without_weights_are_no_error() -> None:
    """A recipe may name operators that only another precision knows."""
    weight = uneven(32, 24, axis=1)
    both = Recipe(precision=Precision.INT8_WEIGHTS, operators=("Add", "MatMul"))
    assert ("w",) == compressible_weights(one_node("MatMul", weight, [32]), both)
    assert () == compressible_weights(one_node("Add", weight, [32, 24]), both)


def test_what_would_grow_is_refused() -> None:
    """A weight whose scales take more than int8 saves is left alone, and a model of only such weights is refused."""
    with pytest.raises(ModelError, match="no weights to compress"):
        compress_weights(one_node("MatMul", uneven(4, 4, axis=1), [4]), WEIGHTS)


def test_zeros_stay_zeros() -> None:
    """A channel without any weight has no scale to divide by, and means zero all the same."""
    small = compress_weights(one_node("MatMul", np.zeros((32, 24), np.float32), [32]), WEIGHTS)
    assert 0 == np.abs(answers(small, [Sample({"x": np.ones(32, np.float32)}, None)])).max()


def test_compressing_twice_gives_the_same_bytes_and_a_valid_graph() -> None:
    """The variant of a bundle is reproducible, and other tools can read it."""
    model = recurrent("GRU")
    small = compress_weights(model, WEIGHTS)
    onnx.checker.check_model(onnx.load_model_from_string(small), full_check=True)
    assert small == compress_weights(model, WEIGHTS)
    assert {"LSTM", "GRU", "Gather"} < set(WEIGHT_OPERATORS)

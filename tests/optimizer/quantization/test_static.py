"""Static int8: what ONNX Runtime's quantizer makes, and what it makes wrong, put right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType

from edgeopt.calibration.collection import collect
from edgeopt.graph import prepare
from edgeopt.quantization.static import depthwise_weights, quantize_static, reducible_weights
from edgeopt.recipe import Calibrator, Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt.silence import silenced
from edgeopt_contract.errors import ModelError
from tests.optimizer import wild_graphs
from tests.optimizer.calibration_reader import Reader
from tests.optimizer.graphs import convolution_chain, old_convolution
from tests.optimizer.wild_graphs import FLOAT, INT64, pictures, tensor

INT8 = Recipe(precision=Precision.INT8)
node = helper.make_node


def quantized(model: bytes, samples: list[Sample], **choices: Any) -> bytes:
    """Quantize with min-max ranges of ``samples``."""
    recipe = Recipe(precision=Precision.INT8, **choices)
    return quantize_static(model, recipe, collect(model, samples).ranges(Calibrator.MINMAX))


def arrays(model: bytes) -> dict[str, np.ndarray]:
    """Return the constants of a model."""
    graph = onnx.load_model_from_string(model).graph
    return {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}


def correlation(model: bytes, other: bytes, samples: list[Sample], *, simulated: bool = True) -> float:
    """Return how alike all outputs are; simulated, so that saturation of this CPU plays no part."""
    expected = OnnxRuntimeSession(model, threads=1).predict(samples)
    actual = OnnxRuntimeSession(other, threads=1, simulated=simulated).predict(samples)
    return min(float(np.corrcoef(expected[name].ravel(), actual[name].ravel())[0, 1]) for name in expected)


@pytest.fixture(scope="module")
def digits(trained_digits: tuple[bytes, list[Sample]]) -> tuple[bytes, list[Sample]]:
    """Return the trained digits network and 40 digits."""
    model, samples = trained_digits
    return model, samples[:40]


def of_onnxruntime(model: bytes, samples: list[Sample], folder: Path, **options: Any) -> bytes:
    """Return what onnxruntime.quantization.quantize_static makes."""
    path = folder / "theirs.onnx"
    settings: Mapping[str, Any] = {"per_channel": True, "activation_type": QuantType.QUInt8} | options
    with silenced():
        onnxruntime.quantization.quantize_static(
            onnx.load_model_from_string(model), path, Reader(samples), weight_type=QuantType.QInt8, **settings
        )
    return path.read_bytes()


def convolutions_of(model: bytes) -> list[str]:
    """Return the names of the convolutions."""
    return [one.name for one in onnx.load_model_from_string(model).graph.node if one.op_type == "Conv"]


class TestAgainstOnnxRuntime:
    """With equal settings the outputs are those of its own quantize_static, bit for bit."""

    @pytest.mark.parametrize("signed", [False, True])
    @pytest.mark.parametrize("spared", ["nothing", "a node", "operators", "reduced"])
    def test_equal_settings(
        self, digits: tuple[bytes, list[Sample]], tmp_path: Path, *, signed: bool, spared: str
    ) -> None:
        """Number types, nodes in float, chosen operators, and 7 bits for all weights of the products."""
        model, samples = digits
        first, products = convolutions_of(model)[:1], ["Conv", "Gemm", "MatMul"]
        choices: dict[str, dict[str, Any]] = {
            "nothing": {},
            "a node": {"float_nodes": tuple(first)},
            "operators": {"operators": tuple(products)},
            "reduced": {"operators": tuple(products), "reduced_weights": reducible_weights(model)},
        }
        options: dict[str, dict[str, Any]] = {
            "nothing": {},
            "a node": {"nodes_to_exclude": first},
            "operators": {"op_types_to_quantize": products},
            "reduced": {"op_types_to_quantize": products, "reduce_range": True},
        }
        types = {"activation_type": QuantType.QInt8 if signed else QuantType.QUInt8}
        theirs = of_onnxruntime(model, samples, tmp_path, **options[spared], **types)
        ours = quantized(model, samples, signed_activations=signed, **choices[spared])
        expected = OnnxRuntimeSession(theirs, threads=1).predict(samples)
        actual = OnnxRuntimeSession(ours, threads=1).predict(samples)
        for name, array in expected.items():
            assert np.array_equal(array, actual[name])

    def test_the_bytes_are_the_same_each_time_and_nothing_is_said(
        self, digits: tuple[bytes, list[Sample]], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A variant of a bundle can be made again."""
        assert quantized(*digits) == quantized(*digits)
        assert ("", "") == tuple(capfd.readouterr())


class TestNumberTypes:
    """What stands in the file."""

    @pytest.mark.parametrize(("signed", "activations"), [(False, "uint8"), (True, "int8")])
    def test_activations(self, *, signed: bool, activations: str) -> None:
        """Unsigned or signed, as the recipe says."""
        result = quantized(prepare(old_convolution()).model, pictures(), signed_activations=signed)
        constants = arrays(result)
        nodes = onnx.load_model_from_string(result).graph.node
        assert {activations} == {constants[n.input[2]].dtype.name for n in nodes if n.op_type == "QuantizeLinear"}

    def test_exactly_the_reduced_weights_have_seven_bits(self) -> None:
        """One depthwise and one dense weight; all others have eight."""
        result = arrays(quantized(convolution_chain(6), pictures(), reduced_weights=("w1", "w2")))
        greatest = {f"w{i}": int(np.abs(result[f"w{i}_quantized"].astype(int)).max()) for i in range(6)}
        assert {"w0": 127, "w1": 64, "w2": 64, "w3": 127, "w4": 127, "w5": 127} == greatest

    def test_each_channel_has_a_scale_and_biases_are_int32(self, digits: tuple[bytes, list[Sample]]) -> None:
        """Also where a Gemm's weight is transposed."""
        result = quantized(*digits)
        constants = arrays(result)
        sources = {n.output[0]: n for n in onnx.load_model_from_string(result).graph.node}
        for one in onnx.load_model_from_string(result).graph.node:
            if one.op_type in ("Conv", "Gemm"):
                _, weight, bias = (sources[name] for name in one.input)
                assert "int32" == constants[bias.input[0]].dtype.name
                assert constants[bias.input[0]].shape == constants[weight.input[1]].shape


def _model(nodes: list[Any], constants: list[Any], shape: list[Any], kind: int = FLOAT) -> bytes:
    return wild_graphs.model(nodes, [("x", kind, shape)], [("y", FLOAT, None)], constants)


def _rows(*shape: int) -> list[Sample]:
    random = np.random.default_rng(0)
    return [Sample({"x": random.standard_normal(shape).astype(np.float32)}, None) for _ in range(40)]


def _ids() -> list[Sample]:
    return [Sample({"x": np.random.default_rng(seed).integers(0, 16, 5)}, None) for seed in range(40)]


def _shared(*constants: str) -> bytes:
    nodes = [
        node("Conv", ["x", *constants], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", *constants], ["y"]),
    ]
    return _model(nodes, [tensor("w", 3, 3, 3, 3), tensor("b", 3)], ["n", 3, 8, 8])


def tied_embedding() -> bytes:
    """Return a table of embeddings that is also the last layer's weight."""
    nodes = [
        node("Gather", ["w", "x"], ["e"]),
        node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        node("Gemm", ["m", "w"], ["y"], transB=1),
    ]
    return _model(nodes, [tensor("w", 16, 8)], ["n", 5], INT64)


def two_axes() -> bytes:
    """Return a weight that one layer uses as it is and another transposed."""
    nodes = [
        node("Gemm", ["x", "w"], ["a"], transB=1),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "w"], ["y"]),
    ]
    return _model(nodes, [tensor("w", 16, 16)], ["n", 16])


SHARED = {
    "two convolutions": (_shared("w"), pictures()),
    "two convolutions with biases": (_shared("w", "b"), pictures()),
    "a tied embedding": (tied_embedding(), _ids()),
    "two axes": (two_axes(), _rows(16)),
}
ODD = {
    "a stack of matrices": (
        _model([node("MatMul", ["x", "w"], ["y"])], [tensor("w", 1, 16, 4)], ["n", 5, 16]),
        (5, 16),
    ),
    "a vector": (_model([node("MatMul", ["x", "w"], ["y"])], [tensor("w", 16)], ["n", 5, 16]), (5, 16)),
    "the weight first": (_model([node("MatMul", ["w", "x"], ["y"])], [tensor("w", 4, 5)], ["n", 5, 16]), (5, 16)),
    "a bias that is computed": (
        _model([node("Gemm", ["x", "w", "x"], ["y"])], [tensor("w", 16, 16)], ["n", 16]),
        (16,),
    ),
    "transposed": (
        _model([node("ConvTranspose", ["x", "w"], ["y"])], [tensor("w", 3, 6, 3, 3)], ["n", 3, 8, 8]),
        (3, 8, 8),
    ),
}  # fmt: skip  (one line each)


class TestTraps:
    """Graphs on which ONNX Runtime's quantizer fails, or its result does."""

    @pytest.mark.parametrize("name", SHARED)
    def test_weights_that_two_nodes_share(self, name: str) -> None:
        """Each gets the form that it needs; 7 bits reach every copy, so no kernel saturates."""
        model, samples = SHARED[name]
        assert correlation(model, quantized(model, samples), samples) > 0.999
        reduced = quantized(model, samples, reduced_weights=("w",))
        assert correlation(model, reduced, samples, simulated=False) > 0.999

    @pytest.mark.parametrize("make", [tied_embedding, two_axes])
    def test_onnxruntime_alone_gets_them_wrong(self, make: Any, tmp_path: Path) -> None:
        """Should this fail, it has learned it, and giving copies can go."""
        model, samples = make(), _ids() if make is tied_embedding else _rows(16)
        theirs = of_onnxruntime(model, samples, tmp_path, reduce_range=True)
        try:
            alike = correlation(model, theirs, samples, simulated=False)
        except ModelError:
            alike = 0.0
        assert alike < 0.999

    def test_depthwise_with_a_channel_multiplier_saturates_like_dense(self) -> None:
        """So its weights are reducible: in 7 bits ONNX Runtime computes what they stand for, on any CPU."""
        random = np.random.default_rng(0)
        samples = [Sample({"x": random.uniform(0.8, 1, (8, 8, 8)).astype(np.float32)}, None) for _ in range(10)]
        weights = numpy_helper.from_array(random.uniform(0.8, 1, (16, 1, 3, 3)).astype(np.float32), "w")
        model = _model([node("Conv", ["x", "w"], ["y"], group=8)], [weights], ["n", 8, 8, 8])
        assert ("w",) == reducible_weights(model)
        result = quantized(model, samples, reduced_weights=reducible_weights(model))
        native, simulated = (OnnxRuntimeSession(result, threads=1, simulated=each) for each in (False, True))
        error = np.abs(native.predict(samples)["y"] - simulated.predict(samples)["y"]).max()
        assert error < 0.1  # 3 of 10 with 8 bits on AVX2

    @pytest.mark.parametrize("name", ODD)
    def test_products_of_odd_shapes(self, name: str) -> None:
        """They run with ONNX Runtime's integer kernels, and give what they should."""
        model, shape = ODD[name]
        reduced = quantized(model, _rows(*shape), reduced_weights=reducible_weights(model))
        assert correlation(model, reduced, _rows(*shape), simulated=False) > 0.999

    def test_a_channel_of_zeros_keeps_its_bias(self, tmp_path: Path) -> None:
        """It computes nothing else; ONNX Runtime rounds it to multiples of the input's scale."""
        weights = np.random.default_rng(0).standard_normal((6, 3, 3, 3)).astype(np.float32)
        weights[[2, 4]] = 0
        bias = np.array([0.1, 0.5, 0.0033, 0.2, 0.0071, 0.1], np.float32)
        constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
        model = _model([node("Conv", ["x", "w", "b"], ["y"])], constants, ["n", 3, 8, 8])

        def biases(result: bytes) -> np.ndarray:
            found = arrays(result)
            return found["b_quantized"] * found["b_quantized_scale"]

        np.testing.assert_allclose(bias, biases(quantized(model, pictures())), rtol=0.05)
        assert abs(bias[2] - biases(of_onnxruntime(model, pictures(), tmp_path))[2]) > 0.1 * bias[2]

    def test_weights_that_are_all_zero(self) -> None:
        """Nothing to scale by."""
        zeros = numpy_helper.from_array(np.zeros((6, 3, 3, 3), np.float32), "w")
        model = _model([node("Conv", ["x", "w", "b"], ["y"])], [zeros, tensor("b", 6)], ["n", 3, 8, 8])
        assert correlation(model, quantized(model, pictures()), pictures()) > 0.999

    @pytest.mark.parametrize(
        "make",
        [
            wild_graphs.decided_if,
            wild_graphs.real_if,
            wild_graphs.prelu,
            wild_graphs.several_outputs,
            wild_graphs.norm_after_relu,
        ],
    )
    def test_graphs_in_the_wild(self, make: Any) -> None:
        """Once prepared, they quantize and compute what they should."""
        model = prepare(make()).model
        assert correlation(model, quantized(model, pictures()), pictures()) > 0.999

    def test_integer_inputs(self) -> None:
        """Ids and masks stay what they are."""
        model, samples = prepare(wild_graphs.integer_inputs()).model, wild_graphs.integer_data()
        assert correlation(model, quantized(model, samples), samples) > 0.999


class TestRefusals:
    """A sentence instead of a wrong model."""

    def test_old_opsets(self) -> None:
        """One scale for each channel came with opset 13."""
        with pytest.raises(ModelError, match=r"opset 11.*prepare it first"):
            quantize_static(old_convolution(), INT8, {})

    def test_ranges_that_are_missing(self) -> None:
        """With ONNX Runtime's reason."""
        with pytest.raises(ModelError, match=r"cannot quantize the model \(int8, minmax\): .*param"):
            quantize_static(convolution_chain(2), INT8, {"x": (-1.0, 1.0)})

    @pytest.mark.parametrize("choice", [{"float_nodes": ("conv_9",)}, {"reduced_weights": ("conv_9",)}])
    def test_names_of_another_model(self, choice: dict[str, Any]) -> None:
        """A node or weight that is not there was meant to be spared: that must not pass in silence."""
        with pytest.raises(ModelError, match=r"the model does not have \(conv_9\)"):
            quantized(convolution_chain(2), pictures(), **choice)


def test_weights_by_kind(digits: tuple[bytes, list[Sample]]) -> None:
    """Every second one of the chain is depthwise; the digits network has two convolutions and a Gemm."""
    chain = convolution_chain(5)
    assert ("w0", "w2", "w4") == reducible_weights(chain)
    assert ("w1", "w3") == depthwise_weights(chain)
    assert 3 == len(reducible_weights(digits[0]))
    assert ("w",) == reducible_weights(tied_embedding())

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt.nodes import name_nodes, parsed
from edgeopt.quantization import sensitivity
from edgeopt.quantization.sensitivity import rank
from edgeopt_contract.errors import ModelError
from examples import fashion_mnist
from tests.optimizer.graphs import convolution_chain
from tests.optimizer.plain_int8 import plain_int8
from tests.optimizer.quantization.rung_models import error, example, he, network, outputs, pictures


def spoilt(quantized: bytes, weight: str) -> bytes:
    """Return ``quantized`` with the integers of one weight cut to two bits."""
    model = onnx.load_model_from_string(quantized)
    (tensor,) = (item for item in model.graph.initializer if item.name == f"{weight}_quantized")
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((np.round(array / 32) * 32).astype(array.dtype), tensor.name))
    return model.SerializeToString()


@pytest.mark.parametrize("index", [0, 3, 5])
def test_a_spoilt_layer_ranks_first(index: int) -> None:
    """Whichever layer has the worst weights is found, and the error of the others is what it was."""
    model, samples = convolution_chain(6), pictures(12)
    quantized = plain_int8(model, samples)
    before = {layer.node: layer.error for layer in rank(model, quantized, samples)}
    ranking = rank(model, spoilt(quantized, f"w{index}"), samples)
    convolutions = [node.name for node in name_nodes(parsed(model)).graph.node if node.op_type == "Conv"]
    assert convolutions[index] == ranking[0].node
    assert {node: value for node, value in before.items() if node != ranking[0].node} == {
        layer.node: layer.error for layer in ranking[1:]
    }
    assert [layer.error for layer in ranking] == sorted((layer.error for layer in ranking), reverse=True)


@pytest.mark.parametrize("name", ["chain", "residual", "fashion_mnist", "mobilenet_v3_like"])
def test_all_nodes_together_are_the_quantized_model(name: str) -> None:
    """Rounding at every node, one after the other, gives what the quantized model gives: nothing is left out."""
    if name == "chain":
        model, samples = convolution_chain(5), pictures(12)
    elif name == "residual":
        nodes = "a = Conv<pads=[1,1,1,1]>(x, w0, b0) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, w1, b1) y = Add(c, r)"
        weights = {"w0": he(6, 3, 3, 3), "b0": np.ones(6), "w1": he(6, 6, 3, 3), "b1": np.ones(6)}
        model, samples = network(nodes, weights), pictures(12)
    else:
        if not fashion_mnist.FOLDER.exists():
            pytest.skip("needs the Debian package dataset-fashion-mnist")
        model, samples = example(name, 16)
    quantized = plain_int8(model, samples)
    rounded = name_nodes(parsed(model))
    for node, roundings in sensitivity._roundings(rounded.graph, name_nodes(parsed(quantized)).graph).items():
        rounded = onnx.load_model_from_string(sensitivity._with_rounding(rounded, node, roundings))
    expected = outputs(quantized, samples)
    plain = error(outputs(model, samples), expected)
    assert error(expected, outputs(rounded.SerializeToString(), samples)) < 0.02 * plain


def test_times_are_passed_on_and_float_nodes_left_out() -> None:
    """A node in float is not ranked; the time saved stands beside the error."""
    model, samples = convolution_chain(4), pictures(8)
    names = [node.name for node in name_nodes(parsed(model)).graph.node if node.op_type == "Conv"]
    ranking = rank(model, plain_int8(model, samples, [names[1]]), samples, {names[0]: 0.5, names[2]: -0.1})
    found = {layer.node: layer for layer in ranking}
    assert names[1] not in found
    assert (0.5, -0.1, None) == tuple(found[names[index]].saved_ms for index in (0, 2, 3))
    assert {"Conv"} == {layer.operator for layer in ranking}


def test_float_model_has_nothing_to_rank() -> None:
    """Without int8 the ranking is empty; what is no model is refused."""
    model, samples = convolution_chain(2), pictures(4)
    assert () == rank(model, model, samples)
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        rank(model, b"nonsense", samples)

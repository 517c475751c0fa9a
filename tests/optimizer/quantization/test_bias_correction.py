import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgeopt.quantization.bias_correction import correct_bias
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError
from examples import fashion_mnist
from tests.optimizer.plain_int8 import plain_int8
from tests.optimizer.quantization.rung_models import constants, error, example, he, network, outputs, pictures

LEVELS = 64  # of the seven bits that plain_int8 gives to weights


def lopsided(*shape: int, seed: int = 0) -> np.ndarray:
    """Return weights that nearest rounding makes smaller by four tenths of a step, all of them but the greatest."""
    whole = np.random.default_rng(seed).integers(-LEVELS // 2, LEVELS // 2, shape).astype(np.float32)
    array = (whole + 0.4) / LEVELS
    array.reshape(shape[0], -1)[:, 0] = 1  # the greatest sets the scale
    return array * np.sqrt(2 / np.prod(shape[1:]))


def chain(*, bias: bool = True) -> bytes:
    """Return four convolutions with lopsided weights and ReLUs between them."""
    weights = {f"w{index}": lopsided(8, 3 if index == 0 else 8, 3, 3, seed=index) for index in range(4)}
    weights |= {f"b{index}": np.full(8, 0.1, np.float32) for index in range(4) if bias}
    name, nodes = "x", []
    for index in range(4):
        last = index == 3
        third = f", b{index}" if bias else ""
        nodes.append(f"{'y' if last else f'c{index}'} = Conv<pads=[1,1,1,1]>({name}, w{index}{third})")
        name = f"r{index}"
        nodes += [] if last else [f"{name} = Relu(c{index})"]
    return network(" ".join(nodes), weights)


@pytest.mark.parametrize("bias", [True, False])
def test_lopsided_rounding_is_made_good(*, bias: bool) -> None:
    """Rounding that always goes down shifts each channel; corrected, the mean error of unseen data is near zero."""
    model, samples = chain(bias=bias), pictures(48)
    quantized = plain_int8(model, samples[:32])
    corrected = correct_bias(model, quantized, samples[:32])
    expected = outputs(model, samples[32:])
    before, after = (outputs(one, samples[32:]) for one in (quantized, corrected))
    shifts = [np.abs((one - expected).mean(axis=(0, 2, 3))).mean() / expected.std() for one in (before, after)]
    assert shifts[0] > 0.1
    assert shifts[1] < 0.2 * shifts[0]
    assert error(expected, after) < 0.6 * error(expected, before)


def test_only_biases_change() -> None:
    """Weights, scales and nodes are those of before, so size and speed stay."""
    model, samples = chain(), pictures()
    quantized = plain_int8(model, samples)
    corrected = correct_bias(model, quantized, samples)
    before, after = constants(quantized), constants(corrected)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {f"b{index}_quantized" for index in range(4)} == changed
    graphs = [onnx.load_model_from_string(one).graph for one in (quantized, corrected)]
    assert list(graphs[0].node) == list(graphs[1].node)
    assert corrected == correct_bias(model, quantized, samples)


def test_added_bias_is_one_that_integer_kernels_take(tmp_path_factory: pytest.TempPathFactory) -> None:
    """int32 with the product of both scales: ONNX Runtime still fuses every convolution."""
    model, samples = chain(bias=False), pictures()
    corrected = correct_bias(model, plain_int8(model, samples), samples)
    onnx.checker.check_model(onnx.load_model_from_string(corrected))
    options = ort.SessionOptions()
    optimized = tmp_path_factory.mktemp("optimized") / "model.onnx"
    options.optimized_model_filepath, options.log_severity_level = str(optimized), 3
    ort.InferenceSession(corrected, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load_model(optimized).graph.node]
    assert 4 == operators.count("QLinearConv")
    assert 0 == operators.count("Conv")


def test_a_later_layer_sees_what_an_earlier_one_became() -> None:
    """What one layer corrects, the next does not correct again: the mean is right after every layer, not overdone."""
    model, samples = chain(), pictures(32)
    corrected = correct_bias(model, plain_int8(model, samples), samples)
    expected, actual = outputs(model, samples), outputs(corrected, samples)
    steps = constants(corrected)["y_scale"]
    assert np.abs((actual - expected).mean(axis=(0, 2, 3))).max() < steps


def test_float_models_and_empty_samples_come_back() -> None:
    """Where there is nothing to correct, nothing changes."""
    model, samples = chain(), pictures(4)
    assert model == correct_bias(model, model, samples)
    quantized = plain_int8(model, samples)
    assert quantized == correct_bias(model, quantized, [])


def test_what_cannot_be_run_is_refused() -> None:
    """Wrong bytes, and data that does not fit, are the model's errors."""
    model, samples = chain(), pictures(4)
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        correct_bias(model, b"nonsense", samples)
    with pytest.raises(ModelError, match="failed on the data"):
        correct_bias(model, plain_int8(model, samples), [Sample({"x": np.zeros((5, 8, 8), np.float32)}, None)])


def test_a_fixed_batch_of_one_is_walked_singly() -> None:
    """Models that take one picture at a time are corrected alike."""
    nodes = "c = Conv(x, w0, b0) r = Relu(c) f = Flatten(r) y = Gemm(f, w1, b1)"
    weights = {"w0": lopsided(8, 3, 3, 3), "b0": np.zeros(8), "w1": he(288, 5), "b1": np.zeros(5)}
    free, fixed = (network(nodes, weights, f"float[{batch},3,8,8] x") for batch in ("n", "1"))
    samples = pictures(8)
    corrected = [correct_bias(model, plain_int8(model, samples), samples) for model in (free, fixed)]
    for name in ("b0_quantized", "b1_quantized"):
        np.testing.assert_allclose(*(constants(one)[name] for one in corrected), atol=2)  # sums end differently


def test_trained_depthwise_network_gains() -> None:
    """The Fashion-MNIST network's outputs come nearer to the float model's on pictures that were not used."""
    if not fashion_mnist.FOLDER.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    model, samples = example("fashion_mnist", 320)
    quantized = plain_int8(model, samples[::5])
    corrected = correct_bias(model, quantized, samples[::5])
    unseen = [sample for index, sample in enumerate(samples) if index % 5]
    expected = outputs(model, unseen)
    assert error(expected, outputs(corrected, unseen)) < 0.85 * error(expected, outputs(quantized, unseen))

import numpy as np
import pytest

from edgeopt.quantization.equalization import equalize
from examples import fashion_mnist
from tests.optimizer.plain_int8 import plain_int8
from tests.optimizer.quantization.rung_models import constants, error, example, he, network, outputs, pictures

APART = np.logspace(-2.5, 2.5, 16, dtype=np.float32)[np.random.default_rng(3).permutation(16)]


def two_layers(between: str = "b = Relu(a)", apart: np.ndarray = APART) -> bytes:
    """Return two convolutions whose channels in between differ in size by five orders of magnitude."""
    weights = {
        "w0": he(16, 3, 3, 3) * apart[:, None, None, None],
        "b0": 0.1 * apart,
        "w1": he(4, 16, 3, 3) / apart[None, :, None, None],
        "slope": np.linspace(0.1, 0.4, 16, dtype=np.float32)[:, None, None],
        "low": np.float32(0),
        "high": np.float32(1),
    }
    nodes = f"a = Conv(x, w0, b0) {between} y = Conv(b, w1)"
    return network(nodes, {name: array for name, array in weights.items() if name in nodes})


def test_channels_that_differ_in_size_are_recovered() -> None:
    """Activations share one scale, so small channels are lost in int8; equalized, they are not."""
    model, samples = two_layers(), pictures()
    expected = outputs(model, samples)
    plain = error(expected, outputs(plain_int8(model, samples), samples))
    equalized = error(expected, outputs(plain_int8(equalize(model).model, samples), samples))
    assert plain > 0.3
    assert equalized < 0.05


@pytest.mark.parametrize(
    "between",
    [
        "b = Relu(a)",
        "b = LeakyRelu<alpha=0.2>(a)",
        "b = PRelu(a, slope)",
        "c = Relu(a) b = MaxPool<kernel_shape=[2,2]>(c)",
        "c = PRelu(a, slope) b = AveragePool<kernel_shape=[2,2]>(c)",
        "b = Clip(a, low)",
    ],
)
def test_what_lets_a_factor_through_keeps_the_function(between: str) -> None:
    """The float model computes the same, and the pair was treated."""
    model, samples = two_layers(between), pictures(8)
    equalized = equalize(model)
    assert [("make_a", "make_y")] == [(pair.first, pair.second) for pair in equalized.pairs]
    assert equalized.pairs[0].greatest > 100
    expected = outputs(model, samples)
    np.testing.assert_allclose(outputs(equalized.model, samples), expected, rtol=1e-4, atol=1e-4 * expected.std())


@pytest.mark.parametrize(
    "between",
    [
        "b = Sigmoid(a)",
        "b = HardSwish(a)",
        "c = Relu(a) b = Add(c, a)",
        "b = Clip(a, high)",
        "b = Clip(a, high, high)",
    ],
)
def test_what_lets_no_factor_through_is_left_alone(between: str) -> None:
    """The bytes come back as they were."""
    model = two_layers(between)
    assert model == equalize(model).model


def test_clip_is_left_alone() -> None:
    """ReLU with a limit is not homogeneous: the pair is listed as skipped."""
    model = two_layers("b = Clip(a, low, high)", apart=np.logspace(-1, 1, 16, dtype=np.float32))
    untouched = equalize(model)
    assert (model, (), (("make_a", "make_y"),)) == (untouched.model, untouched.pairs, untouched.skipped)


def test_depthwise_triple_converges_to_the_closed_form() -> None:
    """All three ranges of a channel become the cube root of their product (Nagel's depthwise case)."""
    weights = {
        "w0": he(12, 3, 1, 1) * APART[:12, None, None, None],
        "w1": he(12, 1, 3, 3) * APART[4:, None, None, None],
        "w2": he(5, 12, 1, 1),
    }
    model = network("a = Conv(x, w0) b = Relu(a) c = Conv<group=12>(b, w1) d = Relu(c) y = Conv(d, w2)", weights)
    ranges = [
        np.abs(weights["w0"]).max(axis=(1, 2, 3)),
        np.abs(weights["w1"]).max(axis=(1, 2, 3)),
        np.abs(weights["w2"]).max(axis=(0, 2, 3)),
    ]
    expected = np.cbrt(np.prod(ranges, axis=0))
    equalized = equalize(model)
    found = constants(equalized.model)
    for name, axes in (("w0", (1, 2, 3)), ("w1", (1, 2, 3)), ("w2", (0, 2, 3))):
        np.testing.assert_allclose(np.abs(found[name]).max(axis=axes), expected, rtol=1e-3)
    samples = pictures(8)
    reference = outputs(model, samples)
    np.testing.assert_allclose(outputs(equalized.model, samples), reference, rtol=1e-4, atol=1e-4 * reference.std())


def test_grouped_convolutions_and_gemms_of_both_layouts() -> None:
    """Channels are found where each layout has them."""
    convolutions = network(
        "a = Conv(x, w0, b0) b = Relu(a) y = Conv<group=4>(b, w1)",
        {"w0": he(16, 3, 3, 3) * APART[:, None, None, None], "b0": APART, "w1": he(8, 4, 3, 3)},
    )
    gemms = network(
        "f = Flatten(x) a = Gemm<transB=1>(f, w0, b0) b = Relu(a) y = Gemm(b, w1)",
        {"w0": he(16, 192) * APART[:, None], "b0": APART, "w1": he(16, 5)},
    )
    samples = pictures(8)
    for model in (convolutions, gemms):
        equalized = equalize(model)
        assert equalized.pairs[0].greatest > 5
        expected = outputs(model, samples)
        np.testing.assert_allclose(outputs(equalized.model, samples), expected, rtol=1e-4, atol=1e-4 * expected.std())


def test_dead_channels_stay_finite() -> None:
    """A channel that is zero on either side is left as it is."""
    apart = APART.copy()
    weights = {"w0": he(16, 3, 3, 3) * apart[:, None, None, None], "b0": apart, "w1": he(4, 16, 3, 3)}
    weights["w0"][2], weights["w1"][:, 5] = 0, 0
    equalized = equalize(network("a = Conv(x, w0, b0) b = Relu(a) y = Conv(b, w1)", weights))
    found = constants(equalized.model)
    assert all(np.isfinite(array).all() for array in found.values())
    np.testing.assert_array_equal(weights["w1"][:, 2], found["w1"][:, 2])
    np.testing.assert_array_equal(weights["w0"][5], found["w0"][5])


def test_same_model_gives_same_bytes() -> None:
    """Nothing is drawn; and an equalized model has no more to gain."""
    equalized = equalize(two_layers())
    assert equalized == equalize(two_layers())
    assert all(pair.greatest < 1.01 for pair in equalize(equalized.model).pairs)


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "mobilenet_v3_like"])
def test_trained_networks_compute_the_same(name: str) -> None:
    """Within 1e-4 of the outputs' greatest value."""
    if name != "digits" and not fashion_mnist.FOLDER.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    model, samples = example(name, 64)
    equalized = equalize(model)
    assert len(equalized.pairs) + len(equalized.skipped) >= 3
    expected = outputs(model, samples)
    np.testing.assert_allclose(outputs(equalized.model, samples), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.ladder
def test_efficientnet_computes_the_same() -> None:
    """Of its 34 pairs, depthwise triples among them, those without a ReLU6 between them are treated."""
    model, samples = example("efficientnet_lite0", 8)
    equalized = equalize(model)
    assert 34 == len(equalized.pairs) + len(equalized.skipped)
    expected = outputs(model, samples)
    np.testing.assert_allclose(outputs(equalized.model, samples), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)

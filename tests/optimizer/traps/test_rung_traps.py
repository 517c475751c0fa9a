"""Graphs on which recovery rungs break elsewhere: the float function is kept, and int8 is not made worse."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeopt.quantization.bias_correction import correct_bias
from edgeopt.quantization.equalization import equalize
from edgeopt.quantization.rounding import learn_rounding
from edgeopt.quantization.sensitivity import rank
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from tests.optimizer.plain_int8 import plain_int8
from tests.optimizer.quantization.rung_models import error, he, network, outputs, smooth_pictures

pytestmark = pytest.mark.traps

_APART = np.logspace(-0.5, 0.5, 8, dtype=np.float32)
_PADS = "<pads=[1,1,1,1]>"
_BIAS = np.full(8, 0.1, np.float32)
_FIRST = {"w0": he(8, 3, 3, 3) * _APART[:, None, None, None], "b0": _BIAS}
_SECOND = {"w1": he(8, 8, 3, 3), "b1": _BIAS}
_LIMITS = {"zero": np.float32(0), "six": np.float32(1.5)}

GRAPHS = {
    "hard-swish": (f"a = Conv{_PADS}(x, w0, b0) b = HardSwish(a) y = Conv(b, w1, b1)", _FIRST | _SECOND),
    "squeeze and excite": (
        (
            f"a = Conv{_PADS}(x, w0, b0) b = Relu(a) s = GlobalAveragePool(b) t = Conv(s, w2, b2) "
            "u = HardSigmoid(t) v = Mul(b, u) y = Conv(v, w1, b1)"
        ),
        _FIRST | _SECOND | {"w2": he(8, 8, 1, 1), "b2": _BIAS},
    ),
    "relu6": (f"a = Conv{_PADS}(x, w0, b0) b = Clip(a, zero, six) y = Conv(b, w1, b1)", _FIRST | _SECOND | _LIMITS),
    "shared weights": (
        f"a = Conv{_PADS}(x, w0, b0) b = Relu(a) c = Conv{_PADS}(b, w1, b1) d = Relu(c) y = Conv{_PADS}(d, w1, b1)",
        _FIRST | _SECOND,
    ),
    "two consumers": (
        f"a = Conv{_PADS}(x, w0, b0) b = Relu(a) c = Conv(b, w1, b1) d = Conv(b, w2, b1) y = Add(c, d)",
        _FIRST | _SECOND | {"w2": he(8, 8, 3, 3, seed=4)},
    ),
    "residual sum": (
        f"a = Conv{_PADS}(x, w0, b0) b = Relu(a) c = Conv{_PADS}(b, w1, b1) y = Add(b, c)",
        _FIRST | _SECOND,
    ),
    "norm after relu": (
        f"a = Conv{_PADS}(x, w0, b0) r = Relu(a) n = BatchNormalization(r, g, b1, m, v) y = Conv(n, w1, b1)",
        _FIRST | _SECOND | {"g": _APART, "m": _BIAS, "v": np.ones(8)},
    ),
    "weights used outside a layer": (
        (
            f"a = Conv{_PADS}(x, w0, b0) b = Relu(a) c = Conv{_PADS}(b, w1, b1) "
            "s = ReduceMean<keepdims=0>(w1) y = Add(c, s)"
        ),
        _FIRST | _SECOND,
    ),
    "same padding": (
        'a = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w0, b0) b = Relu(a) y = Conv<auto_pad="SAME_LOWER">(b, w1)',
        _FIRST | {"w1": he(8, 8, 3, 3)},
    ),
}


def graph(name: str) -> bytes:
    """Return one of ``GRAPHS``."""
    nodes, weights = GRAPHS[name]
    return network(nodes, weights)


@pytest.mark.parametrize("name", list(GRAPHS))
def test_equalization_keeps_the_function(name: str) -> None:
    """Clips are left alone."""
    model, samples = graph(name), smooth_pictures(8)
    expected = outputs(model, samples)
    actual = outputs(equalize(model).model, samples)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * expected.std())


@pytest.mark.parametrize("name", list(GRAPHS))
def test_no_rung_makes_it_worse(name: str) -> None:
    """Correction and learning leave a valid model whose error on unseen data is at most a tenth greater."""
    model, samples, unseen = graph(name), smooth_pictures(48), smooth_pictures(48, seed=8)
    quantized = plain_int8(model, samples)
    expected = outputs(model, unseen)
    before = error(expected, outputs(quantized, unseen))
    for changed in (correct_bias(model, quantized, samples), learn_rounding(model, quantized, samples).model):
        onnx.checker.check_model(onnx.load_model_from_string(changed))
        assert error(expected, outputs(changed, unseen)) < 1.1 * before
    assert rank(model, quantized, samples[:8])


def test_several_outputs_and_a_layer_that_is_one() -> None:
    """An output in the middle of the network is neither scaled nor lost."""
    nodes = f"y = Conv{_PADS}(x, w0, b0) b = Relu(y) z = Conv(b, w1, b1)"
    model = network(nodes, _FIRST | _SECOND, outputs="float y, float z")
    samples = smooth_pictures()
    assert model == equalize(model).model
    quantized = plain_int8(model, samples)
    expected, before, after = (
        OnnxRuntimeSession(one, threads=1, simulated=True).predict(samples)
        for one in (model, quantized, learn_rounding(model, quantized, samples).model)
    )
    assert ["y", "z"] == list(after)
    for name, array in expected.items():
        assert error(array, after[name]) < 1.1 * error(array, before[name])


def test_whole_number_inputs_and_no_layer_at_all() -> None:
    """A table of embeddings has nothing that a rung understands: its bytes come back."""
    model = network(
        "e = Gather(table, x) y = ReduceMean<axes=[1], keepdims=0>(e)",
        {"table": he(10, 4)},
        inputs="int64[n,6] x",
    )
    random = np.random.default_rng(0)
    samples = [Sample({"x": random.integers(0, 10, 6)}, None) for _ in range(8)]
    assert model == equalize(model).model
    quantized = plain_int8(model, samples)
    assert quantized == correct_bias(model, quantized, samples)
    assert quantized == learn_rounding(model, quantized, samples).model


def test_branches_are_walked_through() -> None:
    """An If node whose branches read a tensor from outside is followed to that tensor."""
    nodes = (
        f"a = Conv{_PADS}(x, w0, b0) r = Relu(a) s = ReduceMean<keepdims=0>(r) p = Greater(s, zero) "
        "i = If<then_branch = t () => (float[n,8,8,8] k) { k = Identity(r) }, "
        "else_branch = e () => (float[n,8,8,8] l) { l = Neg(r) }>(p) "
        "y = Conv(i, w1, b1)"
    )
    model, samples = network(nodes, _FIRST | _SECOND | {"zero": np.float32(0)}), smooth_pictures()
    quantized = plain_int8(model, samples)
    corrected = correct_bias(model, quantized, samples)
    expected = outputs(model, samples)
    assert error(expected, outputs(corrected, samples)) <= error(expected, outputs(quantized, samples))

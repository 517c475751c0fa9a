"""Which layers saturate on x86 without VNNI, and the choice of weights to reduce."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.saturation import LayerSaturation, saturating_layers, saturating_product, selective_reduction
from edgeopt.targets import host_target
from edgeopt_contract.errors import ModelError
from tests.optimizer import qdq_layers
from tests.optimizer.qdq_layers import LAYERS, Layer

COUNT = 3


@given(st.data(), st.integers(1, 9))
def test_a_product_adds_pairs_in_sixteen_bits(data: st.DataObject, reduction: int) -> None:
    """The definition of VPMADDUBSW, number by number, for any bytes."""
    rows = data.draw(arrays.arrays(np.uint8, (2, reduction), elements=st.integers(0, 255)))
    weights = data.draw(arrays.arrays(np.int8, (3, reduction), elements=st.integers(-128, 127)))
    expected = [[_by_hand(row.tolist(), kernel.tolist()) for kernel in weights] for row in rows]
    assert expected == saturating_product(rows, weights).tolist()


def _by_hand(row: list[int], weights: list[int]) -> int:
    total = 0
    for start in range(0, len(row), 2):
        pair = zip(row[start : start + 2], weights[start : start + 2], strict=True)
        total += max(-32768, min(32767, sum(one * other for one, other in pair)))
    return total


def test_seven_bits_never_saturate() -> None:
    """Twice 255 times 64 is below 2 to the 15th: that is why reduced weights are exact on any CPU."""
    rows = np.full((1, 8), 255, np.uint8)
    weights = np.full((1, 8), -64, np.int8)
    assert [[-255 * 64 * 8]] == saturating_product(rows, weights).tolist()


@pytest.mark.skipif(not host_target().saturates, reason="this CPU does not saturate: see the tests marked isa")
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_this_cpu_computes_what_the_definition_says(layer: Layer) -> None:
    """ONNX Runtime's kernels pair along the channels, pixel after pixel: bit for bit, for every kind of layer."""
    session = OnnxRuntimeSession(qdq_layers.model((layer,)), threads=1)
    actual = session.predict_singly(qdq_layers.samples(COUNT, (layer,)))[f"{layer.name}.y"]
    np.testing.assert_array_equal(layer.expected(layer.activations(COUNT), saturating=True), actual)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_the_analysis_finds_every_sum_that_saturates(layer: Layer) -> None:
    """Share and error are those of the sums; depthwise layers are no candidates."""
    model, samples = qdq_layers.model((layer,)), qdq_layers.samples(COUNT, (layer,))
    found = saturating_layers(model, qdq_layers.prepared((layer,)), samples)
    activations = layer.activations(COUNT)
    lost = layer.sums(activations, saturating=True) - layer.sums(activations, saturating=False)
    if layer.depthwise:
        assert () == found
        return
    assert [(layer.name, f"{layer.name}.float")] == [(one.node, one.weight) for one in found]
    assert pytest.approx((lost != 0).mean()) == found[0].share
    assert found[0].error > 0.05


def test_layers_come_most_saturating_first() -> None:
    """The order in which they are worth reducing."""
    found = saturating_layers(qdq_layers.model(), qdq_layers.prepared(), qdq_layers.samples(COUNT))
    assert sum(not layer.depthwise for layer in LAYERS) == len(found)
    assert sorted((one.error for one in found), reverse=True) == [one.error for one in found]


def test_another_float_model_is_refused() -> None:
    """Weights cannot be named by a graph that does not have the layer."""
    with pytest.raises(ModelError, match="was not made of this float model"):
        saturating_layers(qdq_layers.model(LAYERS[:1]), qdq_layers.prepared(LAYERS[1:2]), qdq_layers.samples(1))


@pytest.mark.parametrize("needed", range(8))
def test_as_few_weights_as_possible_are_reduced(needed: int) -> None:
    """The most saturating ones, found with about twice the logarithm of their number of models."""
    layers = [LayerSaturation(node=f"n{i}", weight=f"w{i}", share=0.1, error=1 / (i + 1)) for i in range(7)]
    result = selective_reduction(
        layers, build=lambda weights: bytes(len(weights)), lost=lambda model: max(0, needed - len(model)), tolerance=0
    )
    assert tuple(f"w{i}" for i in range(needed)) == result.weights
    assert 0 == result.lost
    assert result.builds <= 7


def test_what_remains_with_all_reduced_is_not_held_against_any() -> None:
    """Kernels never round quite like exact arithmetic: 0.024 standard deviations on EfficientNet-Lite0."""
    layers = [LayerSaturation(node=f"n{i}", weight=f"w{i}", share=0.1, error=1 / (i + 1)) for i in range(7)]
    remains = {0: 0.5, 1: 0.2, 2: 0.06, 3: 0.03}
    result = selective_reduction(
        layers,
        build=lambda weights: bytes(len(weights)),
        lost=lambda model: remains.get(len(model), 0.024),
        tolerance=0.01,
    )
    assert (("w0", "w1", "w2"), 0.03) == (result.weights, result.lost)


def test_where_reduction_does_not_help_nothing_is_reduced() -> None:
    """A bit less for nothing is no bargain; the caller sees what is lost."""
    layers = [LayerSaturation(node="n", weight="w", share=0.1, error=1.0)]
    result = selective_reduction(layers, build=lambda weights: b"", lost=lambda model: 0.25, tolerance=0.01)
    assert ((), 0.25, 2) == (result.weights, result.lost, result.builds)
    assert () == selective_reduction([], build=lambda weights: b"", lost=lambda model: 0.25, tolerance=0.01).weights

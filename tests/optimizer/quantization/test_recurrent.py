"""Learned rounding of LSTMs: nearer to float, one scale for the recurrence, and safe on every CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeopt.quantization.dynamic import quantize_dynamic
from edgeopt.quantization.pairs import unsafe_pairs
from edgeopt.quantization.recurrent import learn_recurrent
from edgeopt.recipe import Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt_contract.errors import ModelError
from tests.optimizer.sequence_graphs import recurrent

SAFE = Recipe(precision=Precision.INT8_DYNAMIC, reduced_weights=("w", "r"), pair_safe=True)


def mixed(count: int, steps: int = 9, seed: int = 0) -> list[Sample]:
    """Return sequences of 16 numbers that hang together, as those of sensors do."""
    mixing = np.random.default_rng(7).standard_normal((4, 16))
    sources = np.random.default_rng(seed).standard_normal((count, steps, 4)) @ mixing
    return [Sample({"input": one.astype(np.float32)}, None) for one in sources]


LEARNED_FROM, JUDGED_BY = mixed(48), mixed(64, seed=1)


def changed(model: bytes, change: Callable[[Any], None]) -> bytes:
    """Return ``model`` with its LSTM changed in place."""
    whole = onnx.load_model_from_string(model)
    change(next(node for node in whole.graph.node if node.op_type == "LSTM"))
    data: bytes = whole.SerializeToString()
    return data


def free_length(model: bytes) -> bytes:
    """Return ``model`` for sequences of any length."""
    whole = onnx.load_model_from_string(model)
    whole.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "steps"
    data: bytes = whole.SerializeToString()
    return data


def backwards(node: Any) -> None:
    """Let the LSTM read from the end."""
    next(item for item in node.attribute if item.name == "direction").s = b"reverse"


def lost(model: bytes, variant: bytes, samples: Sequence[Sample] = JUDGED_BY) -> float:
    """Return the mean error of the states."""
    expected, actual = (OnnxRuntimeSession(one, threads=1).predict(samples)["y"] for one in (model, variant))
    return float(np.abs(expected - actual).mean())


def constants(model: bytes) -> dict[str, np.ndarray]:
    """Return the constants by name."""
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(model).graph.initializer}


ONE = recurrent("LSTM")
FREE = free_length(ONE)
MODELS = {"forward": ONE, "reverse": changed(ONE, backwards), "both": recurrent("LSTM", directions=2)}


@pytest.mark.parametrize("direction", list(MODELS))
def test_states_come_nearer_to_those_of_the_float_network(direction: str) -> None:
    """On sequences it has not seen, in both directions, although the recurrence has one scale only.

    What rounding the activations costs, most of the error of this network, remains.
    """
    model = MODELS[direction]
    nearest = quantize_dynamic(model, SAFE)
    better = learn_recurrent(model, nearest, LEARNED_FROM, pair_safe=True)
    assert lost(model, better) < 0.95 * lost(model, nearest)


def test_learning_from_the_wrong_direction_would_be_worse() -> None:
    """The states before a step are those of the direction in which it is read."""
    model = MODELS["reverse"]
    forward = learn_recurrent(
        MODELS["forward"], quantize_dynamic(MODELS["forward"], SAFE), LEARNED_FROM, pair_safe=True
    )
    reverse = learn_recurrent(model, quantize_dynamic(model, SAFE), LEARNED_FROM, pair_safe=True)
    assert constants(forward)["r_quantized"].tobytes() != constants(reverse)["r_quantized"].tobytes()
    assert constants(forward)["w_quantized"].tobytes() == constants(reverse)["w_quantized"].tobytes()


def test_no_pair_can_saturate() -> None:
    """Learned integers leave their pairs within 16 bits, as nearest ones do."""
    found = constants(learn_recurrent(ONE, quantize_dynamic(ONE, SAFE), LEARNED_FROM, pair_safe=True))
    for name in ("w_quantized", "r_quantized"):
        assert not unsafe_pairs(np.swapaxes(found[name].astype(int), -1, -2)).any()


def test_the_recurrence_has_one_scale_for_each_direction_and_inputs_keep_theirs() -> None:
    """At each step the kernel then multiplies no scales."""
    model = MODELS["both"]
    found = constants(learn_recurrent(model, quantize_dynamic(model, SAFE), LEARNED_FROM, pair_safe=True))
    assert ((2,), (2, 192)) == (found["r_scale"].shape, found["w_scale"].shape)
    assert (found["r_scale"].shape, found["w_scale"].shape) == (
        found["r_zero_point"].shape, found["w_zero_point"].shape
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_samples_leave_the_nearest_integers(count: int) -> None:
    """None is held out to judge by, so nothing is learned."""
    safe = quantize_dynamic(ONE, SAFE)
    found = constants(learn_recurrent(ONE, safe, LEARNED_FROM[:count], pair_safe=True))
    assert np.array_equal(constants(safe)["w_quantized"], found["w_quantized"])


def test_sequences_of_any_length_are_learned_from() -> None:
    """Each runs by itself; of very long ones some steps are enough."""
    samples = [*mixed(8), *mixed(8, steps=3), *mixed(2, steps=4000)]
    safe = quantize_dynamic(FREE, SAFE)
    better = learn_recurrent(FREE, safe, samples, pair_safe=True)
    assert lost(FREE, better) < lost(FREE, safe)


def test_the_same_arguments_give_the_same_bytes() -> None:
    """The variant of a bundle is reproducible."""
    safe = quantize_dynamic(ONE, SAFE)
    first, second = (learn_recurrent(ONE, safe, LEARNED_FROM, pair_safe=True) for _ in range(2))
    assert first == second


def test_a_network_without_an_lstm_in_int8_is_refused() -> None:
    """The float model itself, for instance."""
    with pytest.raises(ModelError, match="no LSTM in dynamic int8"):
        learn_recurrent(ONE, ONE, LEARNED_FROM, pair_safe=True)

"""The ratio is the least that is fast enough; the stopwatch here says what the test wants it to."""

from __future__ import annotations

import copy

import pytest
import torch
from pruning_networks import residual, samples
from torch import nn

from edgeopt.pruning.plan import Importance, PruningPlan
from edgeopt.pruning.search import NotFaster, Pruned, prune
from edgeopt.pruning.speed import OnnxBench
from edgeopt.timing import Plan, Speed
from edgeopt_contract.errors import DataError

DATA = samples(64)


def speed(ratio: float) -> Speed:
    """Return a measurement without any noise."""
    return Speed(
        baseline_ms=1, variant_ms=1 / ratio, ratio=ratio, ratio_low=ratio, ratio_high=ratio, confidence=0.95, rounds=1
    )


class BySize:
    """Every weight costs the same time; ``ratio`` is the answer whatever the network, if given."""

    def __init__(self, ratio: float | None = None) -> None:
        self._ratio = ratio

    def compiled(self, network: nn.Module) -> bytes:
        """Return the weights: what is equal computes equally."""
        return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())

    def time(self, original: bytes, pruned: bytes, plan: Plan) -> Speed:
        """Compare lengths."""
        return speed(self._ratio or len(original) / len(pruned))


def plan(**changes: float) -> PruningPlan:
    """Return a plan that trains for one short epoch."""
    return PruningPlan(**({"speedup": 1.5, "epochs": 1, "batch": 32} | changes))  # type: ignore[arg-type]  # by name


def test_the_least_pruning_that_is_fast_enough_is_taken() -> None:
    """Everything tried with a smaller ratio was too slow, and the widths are multiples of eight."""
    result = prune(residual(), DATA, plan(), bench=BySize())
    assert isinstance(result, Pruned)
    assert result.speed.ratio >= 1.5
    assert all(attempt.speed.ratio < 1.5 * 1.03 for attempt in result.attempts if attempt.ratio < result.ratio)
    widths = [layer.out_channels for layer in result.network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert {0} == {width % 8 for width in widths}
    assert result.macs_before / result.macs_after > 1.3


def test_the_network_that_is_given_is_not_changed() -> None:
    """Neither its weights, nor whether they want gradients, nor their gradients."""
    network = residual()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    prune(network, DATA, plan(), bench=BySize())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert {(False, None)} == {(parameter.requires_grad, parameter.grad) for parameter in network.parameters()}


def test_a_network_in_training_mode_is_pruned_as_it_serves_and_left_as_it_came() -> None:
    """Its widths are found without its running statistics moving; the pruned one is in evaluation mode."""
    network = residual().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    result = prune(network, DATA, plan(epochs=0), bench=BySize())
    assert isinstance(result, Pruned)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    expected = prune(residual().eval(), DATA, plan(epochs=0), bench=BySize())
    assert isinstance(expected, Pruned)
    assert BySize().compiled(expected.network) == BySize().compiled(result.network)
    assert not any(part.training for part in result.network.modules())


def test_without_gain_it_is_refused_before_any_training() -> None:
    """One measurement, of the most pruned, and a sentence with what was seen and asked."""

    def never(job: object) -> None:
        raise AssertionError("there is nothing worth training")

    result = prune(residual(), DATA, plan(), train=never, bench=BySize(0.98))
    assert isinstance(result, NotFaster)
    assert "pruning did not make it faster: at best 0.98 times as fast" in result.reason
    assert 1 == len(result.attempts)


def test_some_gain_that_is_too_little_is_refused_in_other_words() -> None:
    """It is faster, but not as fast as asked."""
    result = prune(residual(), DATA, plan(), bench=BySize(1.3))
    assert isinstance(result, NotFaster)
    assert "did not make it fast enough: at best 1.30 times as fast" in result.reason
    assert "at least 1.5 times as fast was asked for" in result.reason


def test_a_block_wider_than_the_network_leaves_nothing_to_take() -> None:
    """And says so."""
    result = prune(residual(), DATA, plan(round_to=64), bench=BySize())
    assert isinstance(result, NotFaster)
    assert "no width can be lowered and stay a multiple of the block" in result.reason


@pytest.mark.parametrize("importance", list(Importance))
def test_the_same_seed_gives_the_same_network(importance: Importance) -> None:
    """By every importance; down to the last bit of its weights."""
    settings = PruningPlan(speedup=1.5, epochs=1, batch=32, importance=importance)
    first, second = (prune(residual(), DATA, settings, bench=BySize()) for _ in range(2))
    assert isinstance(first, Pruned)
    assert isinstance(second, Pruned)
    assert first.removed == second.removed
    assert first.onnx == second.onnx


def test_progress_counts_the_steps_of_training() -> None:
    """From one to all, so that a bar can say what is left."""
    told: list[tuple[str, int, int]] = []
    prune(residual(), DATA, plan(epochs=2), bench=BySize(), on_progress=lambda *step: told.append(step))
    assert [(1, 4), (2, 4), (3, 4), (4, 4)] == [(done, total) for step, done, total in told if "training" in step]


def test_equal_models_are_timed_as_equal_with_a_clock_that_only_ticks() -> None:
    """The real timer runs both models; with a clock that moves evenly their ratio is one."""
    now = [0.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    bench = OnnxBench(DATA, 1, clock)
    model = bench.compiled(residual())
    seen = bench.time(model, model, Plan(seconds=0.1, repetitions=6, warm_up=1))
    assert seen.ratio == pytest.approx(1)


def test_one_sample_is_too_little() -> None:
    """BatchNorm needs two."""
    with pytest.raises(DataError, match="at least two samples"):
        prune(residual(), DATA[:1], plan(), bench=BySize())

import itertools

import numpy as np
import pytest
import torch

from edgeopt.quantization import rounding
from edgeopt.quantization.bias_correction import correct_bias
from edgeopt.quantization.patches import Patches, patches_of, rows_of
from edgeopt.quantization.quadratic import Grid
from edgeopt.quantization.quadratic import learned as learned_integers
from edgeopt.quantization.rounding import learn_rounding
from edgeopt.quantization.walking import Change, View, walk
from examples import fashion_mnist
from tests.optimizer.plain_int8 import plain_int8
from tests.optimizer.quantization.rung_models import (
    constants,
    error,
    example,
    he,
    network,
    outputs,
    pictures,
    smooth_pictures,
)


def zoo() -> dict[str, bytes]:
    """Return one network for each kind of layer that is learned."""
    dense = {"w0": he(12, 3, 3, 3), "b0": np.full(12, 0.1)}
    head = "c = Conv<pads=[1,1,1,1]>(x, w0, b0) r = Relu(c) "
    return {
        "dense": network(head + "y = Conv<strides=[2,2], dilations=[2,2]>(r, w1)", dense | {"w1": he(6, 12, 3, 3)}),
        "depthwise": network(head + "y = Conv<group=12, pads=[2,0,1,1]>(r, w1)", dense | {"w1": he(12, 1, 3, 3)}),
        "grouped": network(head + "y = Conv<group=3>(r, w1)", dense | {"w1": he(9, 4, 2, 2)}),
        "gemm": network(head + "f = Flatten(r) y = Gemm(f, w1, b1)", dense | {"w1": he(768, 7), "b1": np.zeros(7)}),
        "transposed": network(head + "f = Flatten(r) y = Gemm<transB=1>(f, w1)", dense | {"w1": he(7, 768)}),
        "one axis": network(
            "s = Constant<value_ints=[0, 3, 64]>() f = Reshape(x, s) y = Conv<pads=[1,1]>(f, w1)", {"w1": he(5, 3, 3)}
        ),
    }


def views(model: bytes, quantized: bytes, samples: list) -> list[View]:
    """Return what a walk sees, layer by layer."""
    seen: list[View] = []

    def visit(view: View) -> Change:
        seen.append(view)
        return Change()

    assert quantized == walk(model, quantized, samples, visit)
    return seen


@pytest.mark.parametrize("name", list(zoo()))
def test_patches_times_rows_are_the_layer(name: str) -> None:
    """Patches by the float weights, in rows, give what ONNX Runtime's own kernel gives, up to the bias."""
    model, samples = zoo()[name], pictures(6)
    for view in views(model, plain_int8(model, samples), samples):
        patches = patches_of(view, 100_000, seed=0)
        assert patches is not None
        stored = (view.integers - view.zero) * view.scale
        products = patches.inputs @ rows_of(view, stored).transpose(0, 2, 1)
        positions = int(np.prod(view.actual.shape)) // view.actual.shape[1]
        assert positions == patches.inputs.shape[1] == len(patches.samples)
        channels = view.actual.reshape(len(view.actual), view.actual.shape[1], -1)
        expected = channels.transpose(0, 2, 1).reshape(positions, -1)
        actual = products.transpose(1, 0, 2).reshape(positions, -1)
        offset = (expected - actual).mean(axis=0)  # the bias
        np.testing.assert_allclose(actual + offset, expected, atol=1e-4)


@pytest.mark.parametrize("name", list(zoo()))
def test_learned_rounding_is_nearer_on_unseen_data(name: str) -> None:
    """Where inputs are alike, the output's squared error goes down, biases corrected, for every kind of layer."""
    model, samples, unseen = zoo()[name], smooth_pictures(64), smooth_pictures(64, seed=77)
    quantized = plain_int8(model, samples)
    learned = learn_rounding(model, quantized, samples)
    assert learned.gains
    assert all(gain.after < gain.before for gain in learned.gains)
    expected = outputs(model, unseen)
    before, after = (outputs(one, unseen) for one in (correct_bias(model, quantized, samples), learned.model))
    assert np.square(after - expected).mean() < np.square(before - expected).mean()


def test_weights_stay_in_seven_bits() -> None:
    """No integer leaves the range that the layer used, and scales and zero points stay."""
    model, samples = zoo()["dense"], smooth_pictures()
    quantized = plain_int8(model, samples)
    before, after = constants(quantized), constants(learn_rounding(model, quantized, samples).model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    weights = {"w0_quantized", "w1_quantized"}
    assert weights <= changed <= {*weights, "b0_quantized", *(name for name in after if name not in before)}
    assert all(np.abs(after[name].astype(int)).max() <= 64 for name in weights)
    assert all(np.abs(after[name].astype(int) - before[name]).mean() < 1 for name in weights)


def test_small_layers_are_solved_about_as_well_as_by_trying_everything() -> None:
    """On 30 layers of six inputs the error is within a tenth of the best of all 3^6 neighbours, on average."""
    random = np.random.default_rng(9)
    ratios = []
    for _ in range(30):
        mixing = random.standard_normal((6, 6))
        inputs = (random.standard_normal((200, 6)) @ mixing).astype(np.float32)
        weights = random.standard_normal((1, 1, 6)) * 0.3
        patches = Patches(inputs[None], (inputs @ weights[0].T.astype(np.float32))[None], np.arange(200))
        quadratic = rounding._quadratic(patches)
        grid = Grid(np.full((1, 1, 6), 0.1), np.zeros((1, 1, 6)), -64, 64)
        damped = quadratic.damped(weights, 1e-6)
        learned = learned_integers(damped, grid)
        near = np.rint(weights / 0.1) + np.array(list(itertools.product((-1, 0, 1), repeat=6)))[:, None]
        best = min(quadratic.errors(grid.values(one[None]))[0, 0] for one in near)
        nearest = quadratic.errors(grid.values(np.rint(weights / 0.1)))[0, 0]
        ratios.append((quadratic.errors(grid.values(learned))[0, 0] - best) / (nearest - best + 1e-12))
    assert np.mean(ratios) < 0.1


def test_seed_decides_alone() -> None:
    """Same arguments, same bytes."""
    model, samples = zoo()["dense"], smooth_pictures()
    quantized = plain_int8(model, samples)
    assert learn_rounding(model, quantized, samples, seed=3) == learn_rounding(model, quantized, samples, seed=3)


def test_nothing_is_learned_from_too_little() -> None:
    """Without a sample to judge by weights stay; without int8 layers the bytes come back."""
    model, samples = zoo()["dense"], pictures(2)
    quantized = plain_int8(model, samples)
    learned = learn_rounding(model, quantized, samples)
    assert (correct_bias(model, quantized, samples), ()) == (learned.model, learned.gains)
    assert (model, ()) == (learn_rounding(model, model, pictures()).model, ())


def adaround(view: View, steps: int = 1500) -> np.ndarray:
    """Return integers by AdaRound as its paper has it: rectified sigmoid, annealed regularizer, Adam (section 3.2)."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    patches = patches_of(view, 12_000, seed=0)
    assert patches is not None
    fit = patches.where(patches.samples % 4 != 3)
    inputs, wanted = (
        torch.from_numpy(array - array.mean(axis=1, keepdims=True)) for array in (fit.inputs, fit.outputs)
    )
    shape = view.integers.shape
    scale = torch.from_numpy(rows_of(view, np.broadcast_to(view.scale, shape).copy()))
    weights = torch.from_numpy(rows_of(view, view.weights).copy()) / scale
    low = weights.floor()
    start = (weights - low).clamp(0.01, 0.99)
    variable = torch.special.logit((start + 0.1) / 1.2).requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=1e-2)
    for step in range(steps):
        chosen = torch.randint(inputs.shape[1], (256,), generator=generator)
        soft = (torch.sigmoid(variable) * 1.2 - 0.1).clamp(0, 1)
        output = inputs[:, chosen] @ ((low + soft) * scale).transpose(1, 2)
        power = 20 - 18 * max(step / steps - 0.2, 0) / 0.8
        regularizer = (1 - (2 * soft - 1).abs().pow(power)).sum() * (0.01 if step > 0.2 * steps else 0)
        loss = (output - wanted[:, chosen]).square().sum(2).mean() + regularizer
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    top = int(np.abs(view.integers.astype(int)).max())
    return (low + (variable > 0)).clamp(-top, top).detach().numpy()


@pytest.mark.ladder
def test_no_worse_than_adaround(capsys: pytest.CaptureFixture[str]) -> None:
    """On the trained digits network the error on held-out samples is about that of the paper's own algorithm."""
    model, samples = example("digits", 64)
    quantized = plain_int8(model, samples)
    gains = {gain.layer: gain for gain in learn_rounding(model, quantized, samples).gains}
    learned, reached = [], []
    for view in views(model, quantized, samples):
        patches = patches_of(view, 12_000, seed=0)
        assert patches is not None
        judge = rounding._quadratic(patches.where(patches.samples % 4 == 3))
        grid = rounding._grid(view)
        reached.append(float(judge.errors(grid.values(adaround(view))).sum()))
        ours = gains[view.name].after / gains[view.name].before if view.name in gains else 1.0
        nearest = float(judge.errors(grid.values(rows_of(view, view.integers.astype(float)))).sum())
        learned.append(ours)
        reached[-1] /= nearest
    with capsys.disabled():
        print("\nof nearest rounding's error, ours:", np.round(learned, 3), "AdaRound:", np.round(reached, 3))
    assert np.mean(learned) <= np.mean(reached) + 0.05


def test_trained_depthwise_network_gains() -> None:
    """The outputs of the Fashion-MNIST network come nearer to the float model's."""
    if not fashion_mnist.FOLDER.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    model, samples = example("fashion_mnist", 320)
    fit, unseen = samples[::5], [sample for index, sample in enumerate(samples) if index % 5]
    quantized = plain_int8(model, fit)
    learned = learn_rounding(model, quantized, fit).model
    expected = outputs(model, unseen)
    assert error(expected, outputs(learned, unseen)) < 0.75 * error(expected, outputs(quantized, unseen))

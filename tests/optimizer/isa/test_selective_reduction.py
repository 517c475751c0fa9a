"""Digits on bright paper: a net that AVX2 without VNNI ruins, and the fewest weights in 7 bits that repair it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgeopt.calibration.collection import collect
from edgeopt.emulation.emulator import Emulator
from edgeopt.graph import prepare
from edgeopt.metrics import output_error
from edgeopt.quantization.static import quantize_static
from edgeopt.recipe import Calibrator, Precision, Recipe
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array, Sample
from edgeopt.saturation import LayerSaturation, Reduction, saturating_layers, selective_reduction
from edgeopt.targets import host_target
from examples import bright_digits
from tests.optimizer.isa.conftest import Answer

pytestmark = pytest.mark.isa

Build = Callable[[tuple[str, ...]], bytes]
LAYERS = 10  # with weights
NEGLIGIBLE = 0.02  # standard deviations of the outputs
CHECKED = 60  # samples that the emulated CPU answers as well where this one saturates itself


def samples(part: str) -> list[Sample]:
    """Pictures and digits."""
    return [Sample({"x": picture}, int(label)) for picture, label in zip(*bright_digits.pictures(part), strict=True)]


def accuracy(outputs: dict[str, Array], data: list[Sample]) -> float:
    """The share of right answers."""
    answers = next(iter(outputs.values())).argmax(axis=1)
    return float(np.mean(answers == [sample.label for sample in data]))


@pytest.fixture(scope="module")
def prepared() -> bytes:
    """The float net as it runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            bright_digits.model(),
            (torch.zeros(2, 1, 8, 8),),
            dynamo=True,
            verbose=False,
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
        )
    return prepare(program.model_proto.SerializeToString()).model


@pytest.fixture(scope="module")
def build(prepared: bytes) -> Build:
    """Make the int8 net with some weights in 7 bits; ranges come from training pictures."""
    ranges = collect(prepared, samples("train")[:300]).ranges(Calibrator.MINMAX)

    def built(weights: tuple[str, ...]) -> bytes:
        return quantize_static(prepared, Recipe(precision=Precision.INT8, reduced_weights=weights), ranges)

    return built


@pytest.fixture(scope="module")
def layers(prepared: bytes, build: Build) -> tuple[LayerSaturation, ...]:
    """What the analysis says of the net in full range."""
    return saturating_layers(build(()), prepared, samples("train")[:16])


@pytest.fixture(scope="module")
def reduction(
    layers: tuple[LayerSaturation, ...],
    build: Build,
    saturating: Answer,
) -> Reduction:
    """What is reduced, chosen with training pictures."""
    data = samples("train")[300:364]

    def lost(model: bytes) -> float:
        exact = OnnxRuntimeSession(model, threads=1, simulated=True).predict(data)
        return output_error(exact, saturating(model, data))

    return selective_reduction(layers, build, lost, tolerance=NEGLIGIBLE)


def test_the_layers_with_clipped_weights_saturate_most(layers: tuple[LayerSaturation, ...]) -> None:
    """The analysis knows nothing of how the net was trained."""
    for layer in layers:
        print(f"\n{layer.node}: {layer.share:.1%} of the sums saturate, error {layer.error:.3f} standard deviations")
    assert min(layer.error for layer in layers[:2]) > 5 * max(layer.error for layer in layers[2:])


def test_selective_reduction_repairs_what_saturation_ruins(
    build: Build, reduction: Reduction, saturating: Answer
) -> None:
    """At least 5 points lost on AVX2 in full range; at most 0.5 with at most 30 % of the layers reduced."""
    data = samples("test")
    full, spared = build(()), build(reduction.weights)
    exact = accuracy(OnnxRuntimeSession(full, threads=1, simulated=True).predict(data), data)
    ruined, repaired = (accuracy(saturating(model, data), data) for model in (full, spared))
    share = len(reduction.weights) / LAYERS
    print(
        f"\nexact (VNNI) {exact:.2%}; AVX2 in full range {ruined:.2%}; AVX2 with {share:.0%} of the layers in 7 bits "
        f"{repaired:.2%}; {reduction.builds} models "
        f"built to find them, {reduction.lost:.4f} standard deviations of the outputs remain"
    )
    assert exact - ruined >= 0.05
    assert exact - repaired <= 0.005
    assert share <= 0.3


def test_vnni_keeps_the_full_range(build: Build) -> None:
    """The variant for VNNI is the one without reduction, byte for byte, and answers like exact arithmetic."""
    assert build(()) == build(())
    if not host_target().has_vnni:
        return  # what it answers cannot be seen here: QEMU has no VNNI
    data = samples("test")
    answers = (OnnxRuntimeSession(build(()), threads=1, simulated=one).predict(data) for one in (False, True))
    assert 0.995 <= np.mean([np.equal(*(next(iter(part.values())).argmax(axis=1) for part in answers))])


def test_the_emulated_cpu_gives_the_figures_of_this_one(build: Build, haswell: Emulator) -> None:
    """Certified on an emulated Haswell or on a real one: the same bits, whatever the float layers between."""
    if not host_target().saturates:
        pytest.skip("this CPU does not saturate")
    data = samples("test")[:CHECKED]
    native = next(iter(OnnxRuntimeSession(build(()), threads=1).predict_singly(data).values()))
    emulated = next(iter(haswell.predict(build(()), data).values()))
    np.testing.assert_array_equal(native, emulated)

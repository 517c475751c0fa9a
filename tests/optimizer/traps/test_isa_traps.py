"""Traps that come of judging a model on another CPU than the one it is for; numbers are those of the issue's data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgeopt.emulation.execution import ExecutionKind, execution_for
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.saturation import saturating_layers
from edgeopt.targets import Target, host_target, read_target
from tests.optimizer import qdq_layers
from tests.optimizer.qdq_layers import LAYERS

pytestmark = pytest.mark.traps
DEVICES = Path(__file__).parents[3] / "devices"


def profile(name: str) -> Target:
    """A profile of the project."""
    return read_target(DEVICES / f"{name}.toml")


@pytest.mark.parametrize("path", sorted(DEVICES.glob("*.toml")), ids=lambda path: path.stem)
def test_trap_02_the_activation_type_is_the_targets(path: Path) -> None:
    """Signed on ARM and unsigned on x86, whatever this machine is: 7.2 against 4.5 ms on x86 with VNNI."""
    target = read_target(path)
    assert ("aarch64" == target.arch) == target.signed_activations


def test_trap_02_signed_activations_do_not_cure_saturation() -> None:
    """ONNX Runtime shifts them to unsigned ones on x86, so a target that saturates does so with either type."""
    unsigned, signed = (layer for layer in LAYERS if (16, 8, 3, 1) == dataclasses.astuple(layer)[:4])
    assert (False, True) == (unsigned.signed, signed.signed)
    errors = [
        saturating_layers(qdq_layers.model((layer,)), qdq_layers.prepared((layer,)), qdq_layers.samples(2, (layer,)))[
            0
        ].error
        for layer in (unsigned, signed)
    ]
    assert pytest.approx(errors[0], rel=0.2) == errors[1]


def test_trap_11_a_server_does_not_lend_its_amx_to_a_board() -> None:
    """A time that was measured with AMX or AVX-512 is not taken for a CPU without; the integers may be the same."""
    vnni, avx2 = profile("x86-vnni"), profile("x86-avx2")
    server = dataclasses.replace(vnni, name="server", features=(*vnni.features, "amx_int8"))
    wide = dataclasses.replace(avx2, name="wide", features=("avx2", "avx512f"))
    assert [False, False, False] == [vnni.times_like(server), avx2.times_like(server), avx2.times_like(wide)]
    assert vnni.computes_like(server)
    assert not avx2.computes_like(server)


@pytest.mark.parametrize("name", ["raspberry-pi-4", "x86-avx2", "x86-atom"])
def test_trap_11_a_server_does_not_certify_for_a_board_by_itself(name: str) -> None:
    """On a machine with AMX each of these is emulated, or simulated and said to be: never taken for this CPU."""
    vnni = profile("x86-vnni")
    server = dataclasses.replace(vnni, name="server", features=(*vnni.features, "amx_int8"))
    execution = execution_for(profile(name), server, Path("/no such folder"))
    assert ExecutionKind.NATIVE is not execution.kind
    assert execution.title.startswith(("emulated (qemu-", "simulated integers: "))


@pytest.mark.skipif(not host_target().saturates, reason="this CPU does not saturate: see the tests marked isa")
def test_simulated_integers_are_not_this_cpus() -> None:
    """A variant for VNNI that is judged here is spared this CPU's saturation; one for this CPU is not."""
    layer = LAYERS[2]
    model, samples = qdq_layers.model((layer,)), qdq_layers.samples(2, (layer,))
    answers = [
        next(iter(OnnxRuntimeSession(model, threads=1, simulated=simulated).predict_singly(samples).values()))
        for simulated in (True, False)
    ]
    for saturating, answer in zip((False, True), answers, strict=True):
        np.testing.assert_array_equal(layer.expected(layer.activations(2), saturating=saturating), answer)

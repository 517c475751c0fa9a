"""The real ONNX Runtime on emulated CPUs: who saturates, and who does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeopt.emulation.emulator import Emulator
from edgeopt.emulation.root import Root
from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array
from edgeopt.targets import host_target, read_target
from tests.optimizer import qdq_layers
from tests.optimizer.isa.conftest import DEVICES, emulator_of
from tests.optimizer.qdq_layers import LAYERS

pytestmark = pytest.mark.isa
COUNT = 4
MODEL = qdq_layers.model()


@pytest.fixture(scope="module")
def on_haswell(haswell: Emulator) -> dict[str, Array]:
    """What AVX2 without VNNI answers."""
    return haswell.predict(MODEL, qdq_layers.samples(COUNT))


def expected(*, saturating: bool) -> dict[str, Array]:
    """What every layer must give, in plain NumPy."""
    return {f"{one.name}.y": one.expected(one.activations(COUNT), saturating=saturating) for one in LAYERS}


def assert_equal(answers: dict[str, Array], other: dict[str, Array]) -> None:
    """Bit for bit."""
    assert set(answers) == set(other)
    for name, array in answers.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_an_emulated_haswell_saturates(on_haswell: dict[str, Array]) -> None:
    """Every kind of layer gives what VPMADDUBSW in pairs along the channels gives, and that is not what is exact."""
    assert_equal(expected(saturating=True), on_haswell)
    exact = expected(saturating=False)
    wrong = [one.name for one in LAYERS if (exact[f"{one.name}.y"] != on_haswell[f"{one.name}.y"]).mean() > 0.05]
    print(f"\n{len(wrong)} of {len(LAYERS)} layers differ from exact arithmetic on qemu-x86_64 -cpu Haswell")
    assert [one.name for one in LAYERS if not one.depthwise] == wrong


@pytest.mark.skipif(not host_target().saturates, reason="this CPU does not saturate")
def test_an_emulated_haswell_is_this_cpu(on_haswell: dict[str, Array]) -> None:
    """Where this CPU has AVX2 and no VNNI, the emulated one gives the same bits."""
    session = OnnxRuntimeSession(MODEL, threads=1)
    assert_equal(session.predict_singly(qdq_layers.samples(COUNT)), on_haswell)


@pytest.mark.skipif(not host_target().has_vnni, reason="this CPU has no VNNI")
def test_vnni_is_exact() -> None:
    """The same model, on this CPU: full range costs nothing."""
    session = OnnxRuntimeSession(MODEL, threads=1)
    assert_equal(expected(saturating=False), session.predict_singly(qdq_layers.samples(COUNT)))


def test_an_emulated_atom_is_exact(atom: Emulator) -> None:
    """Without AVX2 ONNX Runtime widens first: an Atom needs no reduced range."""
    assert_equal(expected(saturating=False), atom.predict(MODEL, qdq_layers.samples(COUNT)))


def test_openvino_saturates_on_an_emulated_haswell(haswell: Emulator) -> None:
    """Its kernels use the same instruction, so the runtime does not matter: 1 x 1 over 16 channels pairs alike."""
    layer = LAYERS[0]
    model, samples = qdq_layers.model((layer,)), qdq_layers.samples(COUNT, (layer,))
    answers = haswell.predict(model, samples, runtime=RuntimeName.OPENVINO)[f"{layer.name}.y"]
    saturated = layer.expected(layer.activations(COUNT), saturating=True)
    assert np.abs(answers - saturated).max() < layer.step / 2


@pytest.mark.parametrize("name", ["raspberry-pi-4", "raspberry-pi-5"])
def test_emulated_boards_are_exact(name: str, arm: Root) -> None:
    """Cortex-A72, and A76 with dot product: the same bits as exact arithmetic, for every kind of layer."""
    emulator = emulator_of(read_target(DEVICES / f"{name}.toml"), arm.path.parent)
    assert_equal(expected(saturating=False), emulator.predict(MODEL, qdq_layers.samples(COUNT)))


def test_a_root_says_what_is_in_it(arm: Root) -> None:
    """The versions are those that are installed here, so that what is certified is what was measured."""
    from importlib import metadata

    assert {"onnxruntime", "numpy"} <= set(arm.record.packages)
    assert metadata.version("onnxruntime") == arm.record.packages["onnxruntime"]
    assert Path(f"{arm.prefix('cortex-a72')}/proc/cpuinfo").read_text().count("0xd08") > 0

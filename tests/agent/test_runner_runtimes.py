"""The device's runtimes give what the laptop's give: what was certified is what runs."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import pytest

from edgeopt.recipe import RuntimeName
from edgeopt.runtimes.litert_convert import convert, quantize_litert
from edgeopt.runtimes.port import open_session
from edgeopt.samples import Sample
from edgeopt.silence import silenced_natively
from edgeopt_agent.device.machine import read_capabilities
from edgeopt_agent.runner.port import Order, open_model
from edgeopt_contract.errors import DataError, ModelError
from tests.tiny import Recipe, onnx_model, samples

pytestmark = pytest.mark.runtimes


@functools.cache
def converted() -> tuple[bytes, tuple[Sample, ...]]:
    """A small network for LiteRT in float, and what to feed it."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 5)).eval()
    random = np.random.default_rng(0)
    feeds = tuple(Sample({"input": random.normal(size=(3, 8, 8)).astype(np.float32)}, None) for _ in range(8))
    return convert(module, feeds[0], ["logits"]), feeds


def with_integers_at_its_ends() -> bytes:
    """The same network as other tools quantize it: 8-bit numbers go in and come out."""
    from ai_edge_quantizer import quantizer, recipe

    model, feeds = converted()
    with silenced_natively():
        work = quantizer.Quantizer(model, recipe.static_wi8_ai8())
        data = [{"input": sample.inputs["input"][None]} for sample in feeds]
        return bytes(work.quantize(work.calibrate({"serving_default": data}, num_threads=1)).quantized_model)


def run(
    runtime: str, model: bytes, inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """What the runner's adapter gives for one sample."""
    loaded = open_model(runtime, Order(data=model, threads=1, inputs=tuple(inputs), outputs=outputs))
    first = loaded.run({name: array[np.newaxis] for name, array in inputs.items()})
    again = loaded.run({name: array[np.newaxis] for name, array in inputs.items()})
    assert all(np.array_equal(first[name], again[name]) for name in outputs), "an output must not lie in shared memory"
    return first


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_onnx_runtimes_agree_with_the_laptop(runtime: str) -> None:
    """Bit for bit: same library, same settings, one sample."""
    weights = np.random.default_rng(7).normal(size=(4, 3)).astype(np.float32)
    model = onnx_model(weights, Recipe())
    for row in samples(1, 5):
        expected = open_session(model, RuntimeName(runtime), threads=1).predict([Sample({"x": row}, None)])["p"]
        assert np.array_equal(expected, run(runtime, model, {"x": row}, ("p",))["p"])


@pytest.mark.parametrize("kind", ["float", "int8", "int8 at its ends"])
def test_litert_agrees_with_the_laptop(kind: str) -> None:
    """Floats go in and come out, also where the model's ends are 8-bit numbers."""
    model, feeds = converted()
    if kind != "float":
        model = quantize_litert(model, feeds) if kind == "int8" else with_integers_at_its_ends()
    session = open_session(model, RuntimeName.LITERT, threads=1)
    for sample in feeds:
        expected = session.predict([sample])["logits"]
        assert np.array_equal(expected, run("litert", model, sample.inputs, ("logits",))["logits"])


def test_litert_refuses_numbers_that_would_not_survive() -> None:
    """A whole number beyond the model's type is the caller's error."""
    loaded = open_model("litert", Order(data=with_integers_at_its_ends(), threads=1, inputs=("input",), outputs=()))
    with pytest.raises(DataError, match="expected numbers from -128 to 127"):
        loaded.run({"input": np.full((1, 3, 8, 8), 1000, np.int64)})


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
def test_bytes_that_are_no_model_raise(runtime: str) -> None:
    """Whatever the runtime raises; the runner makes a reply of it."""
    with silenced_natively(), pytest.raises(Exception, match=r".") as raised:
        open_model(runtime, Order(data=b"no model", threads=1, inputs=("x",), outputs=("p",)))
    assert not isinstance(raised.value, ModelError)


def test_runtime_that_is_not_installed_is_named() -> None:
    """The message says which one."""
    with pytest.raises(ModelError, match="the runtime tensorrt cannot be imported: LookupError: it is not installed"):
        open_model("tensorrt", Order(data=b"", threads=1, inputs=(), outputs=()))


def test_installed_runtimes_are_announced() -> None:
    """With their versions, so that the first variant that fits is one that can run."""
    assert {"onnxruntime", "litert", "openvino"} <= set(read_capabilities().runtimes)

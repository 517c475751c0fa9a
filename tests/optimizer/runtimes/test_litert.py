"""From torch to LiteRT and its int8 forms: names, floats at both ends, and the same bytes again."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from edgeopt.runtimes.litert import LiteRtSession
from edgeopt.runtimes.litert_convert import LiteRtInt8, convert, quantize_litert
from edgeopt.samples import Sample
from edgeopt.silence import silenced_natively
from edgeopt_contract.errors import ModelError
from tests.optimizer.edgeopt_zoo import data_dependent

pytestmark = pytest.mark.runtimes


@functools.cache
def _module() -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    return nn.Sequential(*layers).eval()


@functools.cache
def _float() -> bytes:
    return convert(_module(), _samples()[0], ["logits"])


def _samples() -> list[Sample]:
    random = np.random.default_rng(0)
    return [Sample({"input": random.standard_normal((3, 12, 12)).astype(np.float32)}, None) for _ in range(24)]


def _expected() -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(_module()(torch.from_numpy(np.stack([sample.inputs["input"] for sample in _samples()]))))


def test_converting_again_gives_the_same_bytes() -> None:
    """A bundle must be reproducible."""
    assert _float() == convert(_module(), _samples()[0], ["logits"])
    assert quantize_litert(_float(), _samples()) == quantize_litert(_float(), _samples())


@pytest.mark.parametrize("kind", LiteRtInt8)
def test_int8_takes_and_gives_floats_under_the_same_names(kind: LiteRtInt8) -> None:
    """Each kind is smaller, stays close to torch, and is fed like the float model."""
    model = quantize_litert(_float(), _samples(), kind)
    session = LiteRtSession(model, threads=1)
    assert {"input": ("float32", (3, 12, 12))} == session.inputs
    outputs = session.predict(_samples())
    assert ["logits"] == list(outputs)
    assert np.float32 == outputs["logits"].dtype
    error = np.abs(outputs["logits"] - _expected()).mean() / _expected().std()
    assert 0 < error < 0.05
    assert len(model) < len(_float())


def test_models_with_integers_at_their_ends_take_floats_all_the_same() -> None:
    """As other tools make them: the scale at the border is applied here."""
    from ai_edge_quantizer import quantizer, recipe

    with silenced_natively():
        work = quantizer.Quantizer(_float(), recipe.static_wi8_ai8())
        feeds = [{"input": sample.inputs["input"][None]} for sample in _samples()]
        model = bytes(work.quantize(work.calibrate({"serving_default": feeds}, num_threads=1)).quantized_model)
    session = LiteRtSession(model, threads=1)
    assert {"input": ("float32", (3, 12, 12))} == session.inputs
    actual = session.predict(_samples())["logits"]
    assert 0.05 > np.abs(actual - _expected()).mean() / _expected().std()


def test_what_cannot_be_converted_is_said() -> None:
    """Control flow that depends on data has no place in a .tflite file."""
    with pytest.raises(ModelError, match="LiteRT cannot convert the model"):
        convert(data_dependent(), Sample({"input": np.zeros(16, np.float32)}, None), ["y"])


def test_a_wrong_number_of_outputs_is_said() -> None:
    """Names are given by position, so a missing one would shift the others."""
    with pytest.raises(ModelError, match="has 1 inputs or outputs, expected logits, boxes"):
        convert(_module(), _samples()[0], ["logits", "boxes"])


def test_what_cannot_be_quantized_is_said() -> None:
    """Rubbish is refused by the quantizer's name."""
    with pytest.raises(ModelError, match="LiteRT cannot quantize the model"):
        quantize_litert(b"rubbish", _samples())

"""What the optimizer's tests share: the zoo on the path, requests, and a stopwatch that says what it is told."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch and its friends warn about each other when imported
    import onnxruntime  # noqa: F401  (imported here, so that no test meets the warnings)
    import onnxsim  # noqa: F401
    import torch  # noqa: F401

from edgeopt import pipeline
from edgeopt.data import fit_to, load_samples
from edgeopt.graph import prepare
from edgeopt.models import load_model
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt.timing import Times

ZOO = Path(__file__).parent
sys.path.insert(0, str(ZOO))  # where the tests' command lines find 'edgeopt_zoo'


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let int8 be a given number of times as fast as fp32, without measuring: tests never depend on time."""

    def set_ratio(ratio: float) -> None:
        times = Times(((0.002,),) * 15, ((0.002 / ratio,),) * 15)
        monkeypatch.setattr(pipeline, "compare", lambda pair, feeds, plan: times)

    return set_ratio


@pytest.fixture(scope="session")
def images() -> list[Sample]:
    """Random pictures of three channels."""
    random = np.random.default_rng(1)
    return [Sample({"x": random.standard_normal((3, 8, 8)).astype(np.float32)}, None) for _ in range(24)]


@pytest.fixture(scope="session")
def trained_digits() -> tuple[bytes, list[Sample]]:
    """Give the trained digits network, prepared, and all digits as it takes them."""
    samples = load_samples("edgeopt_zoo:digits_data")
    model = prepare(load_model("edgeopt_zoo:digits").to_onnx(samples[0])).model
    return model, fit_to(samples, OnnxRuntimeSession(model, threads=1).inputs)

"""The trained networks on sequences, prepared, with the samples that may be used for each purpose."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgeopt.data import load_samples
from edgeopt.gate import Judgement, judge
from edgeopt.graph import prepare
from edgeopt.metrics import accuracy, agreement
from edgeopt.models import load_model
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Array, Sample
from edgeopt.splits import Split, assign, sample_digest
from examples.fashion_mnist import FOLDER

NAMES = ("transformer", "lstm", "gru")


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """One of the examples: as exported, as prepared, and its test data in two of the three splits."""

    exported: bytes
    model: bytes
    calibration: Sequence[Sample]
    certification: Sequence[Sample]

    def outputs(self, model: bytes) -> dict[str, Array]:
        """Return what ``model`` answers to the certification samples."""
        return _outputs(self, model)

    def scores(self, model: bytes) -> np.ndarray:
        """Return 1 for each certification sample that ``model`` answers rightly, else 0."""
        return accuracy(self.outputs(model), [sample.label for sample in self.certification])

    def judged(self, variant: bytes, margin: float = 0.01) -> Judgement:
        """Return what the gate says of ``variant`` on the certification samples."""
        return judge(self.scores(self.model), self.scores(variant), margin=margin, confidence=0.95)

    def agreement(self, variant: bytes) -> float:
        """Return the share of certification samples that ``variant`` answers like the float model."""
        return float(agreement(self.outputs(self.model), self.outputs(variant)).mean())


@functools.lru_cache(maxsize=16)  # the float model is asked for each variant again
def _outputs(one: Trained, model: bytes) -> dict[str, Array]:
    return OnnxRuntimeSession(model, threads=1).predict(one.certification)


@functools.cache
def trained(name: str) -> Trained:
    """Return the example called ``name``."""
    if name != "transformer" and not FOLDER.exists():
        pytest.skip("needs the Debian package dataset-fashion-mnist")
    samples = load_samples(f"examples.{name}:data")
    purposes = assign([sample_digest(sample.inputs) for sample in samples], seed=0)
    parts: dict[Any, list[Sample]] = {split: [] for split in Split}
    for sample, purpose in zip(samples, purposes, strict=True):
        parts[purpose].append(sample)
    return exported(name, parts[Split.CALIBRATION], parts[Split.CERTIFICATION])


def exported(name: str, calibration: Sequence[Sample], certification: Sequence[Sample]) -> Trained:
    """Return the example called ``name`` as it is exported for these samples, and prepared."""
    model = load_model(f"examples.{name}:model").to_onnx(certification[0])
    return Trained(model, prepare(model).model, calibration, certification)

"""Trap 9: calibration with the first samples of data ordered by class ruins a model; the draw reaches through all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeopt.graph import prepare
from edgeopt.metrics import agreement
from edgeopt.runtimes.onnx_runtime import OnnxRuntimeSession
from edgeopt.samples import Sample
from edgeopt.scoring import Metric
from edgeopt.sources import DataSources, read_splits
from tests.optimizer import wild_graphs as wild
from tests.optimizer.minmax_int8 import minmax_int8

pytestmark = pytest.mark.traps
CLASSES, EACH = 8, 200


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data ordered by class; each class is twice as loud as the one before."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), EACH)
    pictures = random.standard_normal((CLASSES * EACH, 3, 8, 8)) * 2.0 ** labels[:, None, None, None]
    path = tmp_path_factory.mktemp("ordered") / "ordered.npz"
    np.savez(path, x=pictures.astype(np.float32), y=labels)
    return path


def _agreement(model: bytes, calibration: Sequence[Sample], samples: Sequence[Sample]) -> float:
    int8 = minmax_int8(model, calibration)
    before, after = (OnnxRuntimeSession(one, threads=1, simulated=True).predict(samples) for one in (model, int8))
    return float(agreement(before, after).mean())


def test_calibration_is_drawn_from_all_classes(ordered: Path) -> None:
    """Ranges from the first samples clip what comes later; those of the draw do not."""
    splits = read_splits(DataSources(single=str(ordered)), 0, Metric("accuracy"))
    drawn = splits.calibration
    counts = Counter(int(sample.label) for sample in drawn)
    assert set(range(CLASSES)) == set(counts)
    assert min(counts.values()) > len(drawn) / CLASSES / 2
    model = prepare(wild.several_outputs()).model
    named = [Sample({"x": sample.inputs["input"]}, sample.label) for sample in (*drawn, *splits.certification)]
    everything = sorted(named, key=lambda sample: int(sample.label))
    judged = named[len(drawn) :]
    spread, first = (_agreement(model, chosen, judged) for chosen in (named[: len(drawn)], everything[: len(drawn)]))
    print(f"agreement {spread:.1%} when calibrated on the draw, {first:.1%} on the first {len(drawn)} samples")
    assert spread > first + 0.1


def test_a_calibration_set_that_is_too_large_is_drawn_from_as_well(ordered: Path, tmp_path: Path) -> None:
    """Also when the user gives three splits, the 512 are not the first 512."""
    random = np.random.default_rng(1)
    others = []
    for name in ("b", "c"):
        others.append(str(tmp_path / f"{name}.npz"))
        np.savez(others[-1], x=random.standard_normal((50, 3, 8, 8)).astype(np.float32), y=np.arange(50) % CLASSES)
    sources = DataSources(calibration=str(ordered), selection=others[0], certification=others[1])
    drawn = read_splits(sources, 0, Metric("accuracy")).calibration
    counts = Counter(int(sample.label) for sample in drawn)
    assert (512, CLASSES) == (len(drawn), len(counts))
    assert min(counts.values()) > 512 / CLASSES / 2

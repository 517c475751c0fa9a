"""How much a device's figures change when nothing has changed: the variances that the gate's simulation draws from.

Measured on the examples' trained models and their unseen test data, through the very cells that devices count into
and the arithmetic that the gate compares with (``edgeopt_fleet.gate.measuring``). A virtual device has a world of its
own: a mix of classes drawn from a Dirichlet distribution, seen in runs of rows of one class, as a camera sees them. It
serves a stretch before and a stretch after; between the two its world wanders a little.

Latency is measured one row at a time on one thread. Virtual devices take turns, row by row, so that what else the
machine does falls on all of them alike, as the weather does on a site; what is left is a device's own. One machine
cannot say what real devices differ by beyond that: :data:`ASSUMED_LATENCY` is added, and said to be assumed. Example::

    python -m benchmarks.fleet.variances -o tests/fleet/gate/variances.json
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeopt_contract.profile import (
    CONFIDENCE_EDGES,
    FeatureSpec,
    ReferenceFeature,
    ReferenceProfile,
    Source,
    Summary,
    count_latency,
    count_values,
)
from edgeopt_fleet.gate import METRICS, Metric
from edgeopt_fleet.gate.measuring import Served, changes, side_of
from edgeopt_fleet.totals import Layout

Floats = npt.NDArray[np.float64]

_WORLD = 3.0  # concentration of a device's class mix: devices differ much
_WANDER = 300.0  # concentration of the later mix around the earlier one: a device differs little from itself
_RUN = 5  # rows of one class in a row
_ROWS = (200, 1000)  # of a stretch: two sizes tell the noise of rows from what devices differ by
_TIMED_ROWS = (200, 800)
ASSUMED_LATENCY = 0.03  # deviation between devices of the logarithm of the 95th percentile
_LEAST_US = 100.0  # timing a shorter call on a machine that is shared times the machine
_METRICS = (Metric.LATENCY, Metric.CONFIDENCE, Metric.CLASS_MIX, Metric.DRIFT)


@dataclass(frozen=True)
class Answers:
    """A model's answers on its test rows: label, greatest class, confidence and one input feature, all (rows,)."""

    labels: npt.NDArray[np.int64]
    top1: npt.NDArray[np.int64]
    confidence: Floats
    feature: Floats
    ask: Callable[[int], None]


def main() -> None:
    """Measure and write a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, required=True, metavar="FILE")
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--timed-devices", type=int, default=16)
    arguments = parser.parse_args()
    generator = np.random.default_rng(11)
    found: dict[str, Any] = {}
    for name in ("letter", "digits"):
        answers = _answers(name)
        served = {rows: _changes(answers, arguments.devices, rows, generator) for rows in _ROWS}
        found[name] = {"served": _variances(served)}
        if _typical_us(answers) >= _LEAST_US:
            timed = {rows: _timed(answers, arguments.timed_devices, rows, generator) for rows in _TIMED_ROWS}
            found[name]["timed"] = _variances(timed)
        print(name, json.dumps(found[name], indent=1))
    origin = f"python -m benchmarks.fleet.variances, {platform.machine()}, {time.strftime('%Y-%m')}"
    whole = {"origin": origin, "assumed": {str(Metric.LATENCY): ASSUMED_LATENCY}, "models": found}
    arguments.o.write_text(json.dumps(whole, indent=1) + "\n")


def _answers(name: str) -> Answers:
    import importlib

    import torch

    torch.set_num_threads(1)
    module = importlib.import_module(f"examples.{name}")
    rows, labels = zip(*module.data(), strict=True)
    inputs = torch.from_numpy(np.stack(rows))
    model = module.model().eval()
    with torch.no_grad():
        shares = torch.softmax(model(inputs), dim=1).numpy().astype(np.float64)

    def ask(row: int) -> None:
        with torch.no_grad():
            model(inputs[row : row + 1])

    return Answers(
        labels=np.asarray(labels, dtype=np.int64),
        top1=shares.argmax(axis=1),
        confidence=shares.max(axis=1),
        feature=np.stack(rows).reshape(len(rows), -1).mean(axis=1).astype(np.float64),
        ask=ask,
    )


def _changes(answers: Answers, devices: int, rows: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Return changes and their noise (metrics, devices) of devices whose worlds wander between two stretches."""
    profile = _profile(answers)
    classes = int(answers.labels.max()) + 1
    by_class = [np.flatnonzero(answers.labels == number) for number in range(classes)]
    packed: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(devices):
        world = generator.dirichlet(np.full(classes, _WORLD))
        for stretch, mix in zip(packed, (world, generator.dirichlet(_WANDER * world + 1e-3)), strict=True):
            runs = generator.choice(classes, size=rows // _RUN, p=mix)
            stretch.append(
                _count(answers, profile, np.concatenate([generator.choice(by_class[c], _RUN) for c in runs]))
            )
    return _compare(profile, packed, rows)


def _timed(answers: Answers, devices: int, rows: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Return changes of latency, and their noise, of devices that take turns."""
    profile = _profile(answers)
    layout = Layout.of(profile)
    packed: tuple[list[Any], list[Any]] = ([], [])
    for stretch in packed:
        taken = np.empty((rows, devices))
        for turn in range(rows):
            for device, row in enumerate(generator.integers(0, len(answers.labels), devices)):
                begun = time.thread_time_ns()
                answers.ask(int(row))
                taken[turn, device] = (time.thread_time_ns() - begun) / 1000
        stretch.extend(layout.pack({}, count_latency(own.tolist()).tolist()) for own in taken.T)
    return _compare(profile, packed, rows)


def _typical_us(answers: Answers) -> float:
    taken = []
    for row in range(100):
        begun = time.thread_time_ns()
        answers.ask(row)
        taken.append((time.thread_time_ns() - begun) / 1000)
    return float(np.median(taken))


def _compare(profile: ReferenceProfile, packed: tuple[list[Any], list[Any]], rows: int) -> tuple[Floats, Floats]:
    n = np.full(len(packed[0]), rows)
    sides = [side_of(Served(np.stack(part), n, np.zeros_like(n)), Layout.of(profile), profile) for part in packed]
    return changes(*sides)


def _specs(answers: Answers) -> tuple[tuple[FeatureSpec, Floats], ...]:
    edges = np.unique(np.quantile(answers.feature, np.linspace(0, 1, 17)))
    confidence = FeatureSpec(
        name="confidence", source=Source.OUTPUT, tensor="y", summary=Summary.CONFIDENCE, edges=CONFIDENCE_EDGES
    )
    top1 = FeatureSpec(
        name="top1", source=Source.OUTPUT, tensor="y", summary=Summary.TOP1, categories=int(answers.labels.max()) + 1
    )
    mean = FeatureSpec(
        name="mean", source=Source.INPUT, tensor="x", summary=Summary.MEAN, edges=tuple(float(edge) for edge in edges)
    )
    return (confidence, answers.confidence), (top1, answers.top1.astype(np.float64)), (mean, answers.feature)


def _profile(answers: Answers) -> ReferenceProfile:
    features = tuple(
        ReferenceFeature(
            spec=spec,
            counts=tuple(int(n) for n in count_values(spec, values)),
            mean=float(values.mean()),
            std=float(values.std()),
        )
        for spec, values in _specs(answers)
    )
    return ReferenceProfile(rows=len(answers.labels), features=features)


def _count(answers: Answers, profile: ReferenceProfile, rows: npt.NDArray[np.int64]) -> Any:
    cells = {spec.name: count_values(spec, values[rows]).tolist() for spec, values in _specs(answers)}
    return Layout.of(profile).pack(cells, ())


def _variances(measured: dict[int, tuple[Floats, Floats]]) -> dict[str, Any]:
    """Return for each metric the robust deviation of a change with few and with many rows, and what explains it.

    With n rows the variance is between + row / n; two sizes give both. ``tail`` is the greatest change among the
    devices, in deviations.
    """
    few, many = sorted(measured)
    found = {}
    for metric in _METRICS:
        place = METRICS.index(metric)
        values = [measured[rows][0][place] for rows in (few, many)]
        if not all(np.isfinite(part).all() for part in values):
            continue
        first, second = (_robust(part) ** 2 for part in values)
        row = max((first - second) / (1 / few - 1 / many), 0.0)
        found[str(metric)] = {
            "rows": [few, many],
            "sd": [round(first**0.5, 5), round(second**0.5, 5)],
            "between": round(max(second - row / many, 0.0) ** 0.5, 5),
            "row": round(row**0.5, 5),
            "tail": round(_tail(values[1]), 2),
        }
    return found


def _robust(values: Floats) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _tail(values: Floats) -> float:
    return float(np.abs(values - np.median(values)).max() / max(_robust(values), 1e-12))


if __name__ == "__main__":
    main()

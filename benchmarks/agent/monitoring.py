"""What monitoring costs an inference: all that the runner does to count one answer, in its own code.

The time is that of the thread on a CPU, so that other work of the machine is not counted; the time by the clock stands
beside it. Example::

    python -m benchmarks.agent.monitoring
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt_agent.reports.counts import FEATURES, Counts, Layout, map_cells
from edgeopt_agent.runner.arrays import Array, Batch
from edgeopt_agent.runner.tally import Tally
from edgeopt_contract.counting import ProfileCounter
from edgeopt_contract.features import CONFIDENCE_EDGES, FeatureSpec, ReferenceFeature, Source, Summary

__all__ = ["Cost", "main", "measure"]

_WARM_UP = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Microseconds for one inference."""

    profile: str
    features: int
    inferences: int
    median_us: float
    p99_us: float
    clock_p99_us: float  # with whatever else the machine did meanwhile


def main() -> None:
    """Measure and print a table."""
    for cost in measure(20_000):
        print(
            f"{cost.profile:30s} {cost.features:3d} features: median {cost.median_us:6.1f} µs, "
            f"99 % {cost.p99_us:6.1f} µs (by the clock {cost.clock_p99_us:.1f} µs)"
        )


def measure(inferences: int) -> list[Cost]:
    """Return the cost with a table of 64 columns, with 61 columns and a classifier's answer, and with a picture."""
    rng = np.random.default_rng(5)
    table = rng.normal(size=(1, 64)).astype(np.float32)
    picture = rng.normal(size=(1, 3, 224, 224)).astype(np.float32)
    scores = rng.normal(size=(1, 10)).astype(np.float32)
    answer = [
        _feature("confidence", Source.OUTPUT, Summary.CONFIDENCE),
        _feature("entropy", Source.OUTPUT, Summary.ENTROPY),
        _feature("class", Source.OUTPUT, Summary.TOP1),
    ]
    columns = [_feature(f"x[{index}]", Source.INPUT, Summary.COLUMN, column=index) for index in range(64)]
    summaries = [_feature(str(summary), Source.INPUT, summary) for summary in (Summary.MEAN, Summary.STD)]
    return [
        _measure("table", columns, table, scores, inferences),
        _measure("table and classes", [*columns[:61], *answer], table, scores, inferences),
        _measure("picture 3x224x224 and classes", [*summaries, *answer], picture, scores, max(500, inferences // 20)),
    ]


def _feature(name: str, source: Source, summary: Summary, column: int | None = None) -> ReferenceFeature:
    edges = tuple(float(edge) for edge in np.linspace(-3, 3, 33))
    if summary is Summary.CONFIDENCE:
        edges = CONFIDENCE_EDGES
    spec = FeatureSpec(
        name=name,
        source=source,
        tensor="x" if source is Source.INPUT else "y",
        summary=summary,
        column=column,
        logits=True,
        edges=() if summary is Summary.TOP1 else edges,
        categories=10 if summary is Summary.TOP1 else 0,
    )
    return ReferenceFeature(spec=spec, counts=(0,) * spec.cells, mean=0.0, std=1.0)


def _measure(name: str, features: list[ReferenceFeature], x: Array, y: Array, inferences: int) -> Cost:
    layout = Layout(bundle="ab" * 32, variant="int8", features=tuple((f.spec.name, f.spec.cells) for f in features))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "counts"
        Counts.open(path, layout, "boot").close()
        cells = np.frombuffer(map_cells(path), dtype=np.int64)
        tally = Tally(cells, ProfileCounter(features, cells[FEATURES:]), frozenset({"y"}))
        batch, outputs = Batch({"x": x}, 1, single=True), {"y": y}
        times = np.empty((2, inferences + _WARM_UP))
        for index in range(inferences + _WARM_UP):
            start, clock_start = time.thread_time_ns(), time.perf_counter_ns()
            tally.answered(1, outputs, [412.0])
            tally.count(batch, outputs)
            times[:, index] = time.thread_time_ns() - start, time.perf_counter_ns() - clock_start
    (median, p99), (_, clock_p99) = np.percentile(times[:, _WARM_UP:] / 1000, [50, 99], axis=1).T
    return Cost(
        profile=name,
        features=len(features),
        inferences=inferences,
        median_us=float(median),
        p99_us=float(p99),
        clock_p99_us=float(clock_p99),
    )


if __name__ == "__main__":
    main()

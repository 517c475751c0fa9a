"""Counting takes no memory: neither in the runner that counts, nor in the agent that tells."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeopt_agent.reports.counts import FEATURES, ROWS, Counts, Layout
from edgeopt_agent.reports.monitor import Mark, Window
from edgeopt_contract.counting import ProfileCounter
from edgeopt_contract.features import CONFIDENCE_EDGES, FeatureSpec, ReferenceFeature, Source, Summary

pytestmark = pytest.mark.runner

ROWS_IN_ALL = 10_000_000
BATCH = 10_000
COLUMNS = 6
SINGLE_ROWS = 2_000
MIB = 1 << 20


def features() -> list[ReferenceFeature]:
    """Some columns, and what is counted of a classifier's answer."""
    edges = tuple(float(edge) for edge in np.linspace(-2, 2, 17))
    specs = [
        FeatureSpec(name=f"x[{i}]", source=Source.INPUT, tensor="x", summary=Summary.COLUMN, column=i, edges=edges)
        for i in range(COLUMNS)
    ]
    specs += [
        FeatureSpec(
            name="confidence", source=Source.OUTPUT, tensor="p", summary=Summary.CONFIDENCE, edges=CONFIDENCE_EDGES
        ),
        FeatureSpec(name="class", source=Source.OUTPUT, tensor="p", summary=Summary.TOP1, categories=3),
    ]
    return [ReferenceFeature(spec=spec, counts=(0,) * spec.cells, mean=0.0, std=1.0) for spec in specs]


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.fixture
def counts(tmp_path: Path) -> Iterator[Counts]:
    """Cells for the features."""
    layout = Layout(bundle="ab" * 32, variant="int8", features=tuple((f.spec.name, f.spec.cells) for f in features()))
    counts = Counts.open(tmp_path / "counts", layout, "boot")
    yield counts
    counts.close()


class Counting:
    """A runner's counter and an agent's windows over the same cells."""

    def __init__(self, counts: Counts) -> None:
        offset = counts.path.stat().st_size - 8 * counts.layout.cells
        self._counts = counts
        self._cells = np.memmap(counts.path, dtype=np.int64, mode="r+", offset=offset)
        self._counter = ProfileCounter(features(), self._cells[FEATURES:])
        self._mark = Mark(epoch=counts.epoch, at=0)
        rng = np.random.default_rng(3)
        self._x = rng.normal(size=(BATCH, COLUMNS)).astype(np.float32)
        self._p = rng.random(size=(BATCH, 3)).astype(np.float32)
        self.rows = self.counted = 0  # told

    def count(self, batches: int, singly: int) -> None:
        """Count many batches and some single rows; tell now and then."""
        for number in range(batches):
            self._observe(slice(None))
            if number % 50 == 0:
                self._tell()
        for row in range(singly):
            self._observe(slice(row, row + 1))
        self._tell()

    def _observe(self, rows: slice) -> None:
        x, p = self._x[rows], self._p[rows]
        self._counter.observe({"x": x}, {"p": p})
        self._cells[ROWS] += len(x)

    def _tell(self) -> None:
        window = Window.since(self._mark, self._counts.layout, self._counts.snapshot(), end=1)
        telemetry = window.telemetry(1, 1, gauges={})
        self._mark = window.mark
        self.rows += telemetry.rows
        self.counted += sum(sum(cells) for cells in telemetry.cells.values())


def test_ten_million_rows_grow_memory_by_less_than_a_mebibyte(
    counts: Counts, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows in batches and alone, windows in between: every row is counted and told once, and nothing is kept of it."""
    counting = Counting(counts)
    counting.count(10, 100)  # what is allocated once is not growth
    gc.collect()
    tracemalloc.start()
    resident_before, (before, _) = resident(), tracemalloc.get_traced_memory()
    counting.count(ROWS_IN_ALL // BATCH, SINGLE_ROWS)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    allocated, process = after - before, resident() - resident_before
    rows = ROWS_IN_ALL + 10 * BATCH + 100 + SINGLE_ROWS
    with capsys.disabled():
        print(f"\n  {rows:,} rows counted: {allocated:,} bytes allocated more, process {process / MIB:+.2f} MiB")
    assert (rows, rows * len(features())) == (counting.rows, counting.counted)
    assert allocated <= MIB
    assert process <= MIB
